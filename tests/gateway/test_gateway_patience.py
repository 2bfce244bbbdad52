"""Prefer: wait=n, as RFC 7240 has it."""

from __future__ import annotations

import pytest

from dumbwaiter.gateway.patience import patience_of


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
        (["wait=-1"], 60.0),
        (["wait=1.5"], 60.0),
        (["wait=٣"], 60.0),
        (["waiting=3"], 60.0),
    ],
)
def test_wait_is_read_bounded_and_ignored_when_malformed(headers, seconds):
    assert patience_of(headers, default=60.0, maximum=600.0) == seconds
