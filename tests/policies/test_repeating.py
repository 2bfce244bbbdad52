"""Which requests are sent to a gateway again, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.repeating import (
    LAST_PAUSE,
    STEADY_AFTER,
    failures_in_a_row,
    is_counted,
    is_worth_another_try,
    pause_before,
)


@pytest.mark.parametrize(
    ("status", "code", "is_unavailable", "is_worth_it"),
    [
        (None, "", True, True),
        (503, "busy", True, True),
        (503, "model-failing", True, False),
        (429, "rate-limited", False, True),
        (409, "idempotency-conflict", False, False),
        (401, "no-key", False, False),
        (None, "", False, False),
    ],
)
def test_only_what_may_pass_is_worth_another_try(status, code, is_unavailable, is_worth_it):
    assert is_worth_another_try(status, code, is_unavailable=is_unavailable) == is_worth_it


@given(attempt=st.integers(1, 50), luck=st.floats(0, 1, exclude_max=True))
def test_pauses_grow_and_are_bounded_and_the_gateways_word_counts(attempt, luck):
    pause = pause_before(attempt, retry_after=None, luck=luck)
    assert 0 < pause <= LAST_PAUSE
    assert pause <= pause_before(attempt + 1, retry_after=None, luck=luck)
    assert 30 <= pause_before(attempt, retry_after=30, luck=luck) <= 35
    assert pause_before(attempt, retry_after=0, luck=luck) == 0


def test_not_so_many_at_once_is_not_counted_while_patience_ends_it():
    assert not is_counted(429, has_patience=True)
    assert is_counted(429, has_patience=False)
    assert is_counted(503, has_patience=True)
    assert is_counted(None, has_patience=True)


def test_a_stream_that_was_quiet_for_long_before_it_broke_was_alive_and_the_count_begins_anew():
    assert failures_in_a_row(3, STEADY_AFTER + 1.0) == 1
    assert failures_in_a_row(3, STEADY_AFTER) == 4
    assert failures_in_a_row(0, 0.0) == 1
