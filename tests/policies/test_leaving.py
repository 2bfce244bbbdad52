"""A batch is waited for when those like it ended in time often enough, and when nobody knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.leaving import SHARE_FOR_ALL, SHARE_FOR_BATCH, is_worth_waiting

PAST = st.lists(st.tuples(st.integers(1, 64), st.floats(0.0, 1e4)), max_size=64)


def test_after_the_batch_there_is_time_to_settle_and_after_that_to_say_goodbye():
    assert 0.0 < SHARE_FOR_BATCH < SHARE_FOR_ALL < 1.0


@pytest.mark.parametrize(
    ("past", "size", "elapsed", "within", "expected"),
    [
        ([(1, 10.0)], 1, 2.0, 5.0, False),
        ([(1, 10.0)], 1, 6.0, 5.0, True),
        ([(1, 10.0)], 1, 5.0, 5.0, True),
        ([(1, 10.0)], 4, 2.0, 5.0, False),
        ([(4, 10.0)], 1, 2.0, 5.0, True),
        ([], 1, 2.0, 5.0, True),
        ([(1, 1.0)], 1, 2.0, 5.0, True),
        ([(1, 3.0), *[(1, 60.0)] * 8], 1, 2.0, 5.0, True),
        ([(1, 3.0), *[(1, 60.0)] * 10], 1, 2.0, 5.0, False),
        ([(1, 1.0), *[(1, 60.0)] * 2], 1, 2.0, 5.0, False),
    ],
    ids=[
        "it takes 8 s more and has 5",
        "it takes 4 s more and has 5",
        "to the second",
        "a larger one takes no less",
        "a smaller one may take less",
        "nothing has run yet",
        "it takes longer than all before it",
        "one in nine ended in time",
        "one in eleven did",
        "the short ones would have ended by now",
    ],
)
def test_what_ran_before_says_whether_it_ends_in_time(past, size, elapsed, within, expected):
    assert is_worth_waiting(past, size=size, elapsed=elapsed, within=within) is expected


@given(PAST, st.integers(1, 64), st.floats(0.0, 1e4))
def test_who_has_all_the_time_waits(past, size, elapsed):
    assert is_worth_waiting(past, size=size, elapsed=elapsed, within=float("inf"))


@given(PAST, st.integers(1, 64), st.floats(0.0, 1e4), st.floats(0.0, 1e4), st.floats(0.0, 1e4))
def test_more_time_never_makes_it_less_worth_waiting(past, size, elapsed, within, more):
    if is_worth_waiting(past, size=size, elapsed=elapsed, within=within):
        assert is_worth_waiting(past, size=size, elapsed=elapsed, within=within + more)
