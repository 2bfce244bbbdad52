"""Prefer: wait=n and respond-async, as RFC 7240 has them."""

from __future__ import annotations

import pytest

from dumbwaiter.gateway.http.preferences import Preferences, preferences_of


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], 60.0),
        (["wait=7"], 7.0),
        (["WAIT = 7"], 7.0),
        (['wait="7"'], 7.0),
        (["respond-async, wait=7; x=y"], 7.0),
        (["respond-async", "wait=7"], 7.0),
        (["wait=7, wait=9"], 7.0),
        (["wait=0"], 1.0),
        (["wait=9999"], 600.0),
        (["wait=" + "9" * 5000], 600.0),
        (["wait"], 60.0),
        (["wait=soon"], 60.0),
        (["wait=soon, wait=7"], 60.0),
        (["wait=-1"], 60.0),
        (["wait=1.5"], 60.0),
        (["wait=٣"], 60.0),
        (["waiting=3"], 60.0),
    ],
)
def test_wait_is_read_bounded_and_ignored_when_malformed(headers, seconds):
    assert preferences_of(headers).patience(default=60.0, maximum=600.0) == seconds


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ([], False),
        (["respond-async"], True),
        (["wait=3, Respond-Async"], True),
        (["wait=3", "respond-async; x=y"], True),
        (["respond-asynchronously"], False),
    ],
)
def test_respond_async_is_read_wherever_it_stands(headers, wanted):
    assert preferences_of(headers).respond_async is wanted


def test_whoever_asks_for_no_wait_at_all_waits_not_at_all_where_that_makes_sense():
    assert Preferences(wait=0.0).patience(default=5.0, maximum=600.0, least=0.0) == 0.0
