"""About ten tries over about two hours, and no more than a receiver can take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.delivering import (
    LONGEST_RETRY_AFTER,
    MAX_TRIES,
    Again,
    Done,
    Stop,
    back_off,
    is_past_trying,
    judge,
)

LUCK = st.floats(0.0, 1.0, exclude_max=True)
STATUS = st.one_of(st.none(), st.integers(100, 599))
TRIES = st.integers(1, MAX_TRIES)


@given(st.integers(200, 299), TRIES, LUCK)
def test_any_success_is_the_end_of_it(status, tries, luck):
    assert judge(status, tries, luck=luck) == Done()


@given(TRIES, LUCK)
def test_gone_stops_at_once(tries, luck):
    assert judge(410, tries, luck=luck) == Stop("webhook-gone")


@given(STATUS, st.integers(1, 1000), LUCK, st.one_of(st.none(), st.floats(0, 1e9)), st.integers(1, MAX_TRIES))
def test_everything_else_is_tried_again_until_the_last_try(status, tries, luck, retry_after, most):
    end = judge(status, tries, luck=luck, retry_after=retry_after, most=most)
    success = status is not None and 200 <= status < 300
    if success or status == 410:
        assert not isinstance(end, Again)
    elif tries >= most:
        assert end == Stop("webhook-failed")
    else:
        assert isinstance(end, Again)
        assert end.delay >= back_off(tries, luck=luck)
        assert end.delay <= max(back_off(tries, luck=luck), LONGEST_RETRY_AFTER)


@given(st.lists(LUCK, min_size=MAX_TRIES - 1, max_size=MAX_TRIES - 1))
def test_the_tries_spread_over_about_two_hours(lucks):
    total = sum(back_off(number, luck=luck) for number, luck in enumerate(lucks, start=1))
    assert 1.5 * 3600 < total < 2.5 * 3600


@given(st.integers(1, MAX_TRIES - 2), LUCK, LUCK)
def test_each_pause_is_longer_than_the_one_before(tries, luck, other):
    assert back_off(tries + 1, luck=other) > back_off(tries, luck=luck)


def test_the_first_pause_is_some_seconds_and_differs_between_messages():
    assert back_off(1, luck=0.0) == pytest.approx(4.0)
    assert back_off(1, luck=0.5) == pytest.approx(5.0)
    assert back_off(1, luck=1.0) == pytest.approx(6.0)


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_may_ask_for_a_longer_pause_within_bounds(status):
    assert judge(status, 1, luck=0.5, retry_after=100.0) == Again(100.0)
    assert judge(status, 1, luck=0.5, retry_after=0.0) == Again(5.0)
    assert judge(status, 1, luck=0.5, retry_after=1e9) == Again(LONGEST_RETRY_AFTER)


@pytest.mark.parametrize("status", [None, 302, 400, 500])
def test_others_may_not(status):
    assert judge(status, 1, luck=0.5, retry_after=100.0) == Again(5.0)


def test_a_message_that_ends_whoever_holds_it_is_not_tried_for_ever():
    assert not is_past_trying(MAX_TRIES)
    assert not is_past_trying(2 * MAX_TRIES)
    assert is_past_trying(2 * MAX_TRIES + 1)
