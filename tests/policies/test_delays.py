from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.delays import GROWTH, KEPT_AT_MOST, LONGEST, SHORTEST, bucket_of, kept


@given(st.floats(0.001, LONGEST))
def test_a_message_never_comes_before_its_delay_and_at_most_a_quarter_late(delay):
    assert delay <= bucket_of(delay) <= max(SHORTEST, delay * GROWTH + 0.001)


@given(st.floats(0.001, 2 * LONGEST))
def test_a_length_stands_for_itself(delay):
    assert bucket_of(bucket_of(delay)) == bucket_of(delay)


@pytest.mark.parametrize(("delay", "is_kept_as"), [(math.nan, 0.0), (-1.0, 0.0), (2.5, 2.5), (math.inf, KEPT_AT_MOST)])
def test_what_is_no_delay_is_none_and_what_no_calendar_has_is_cut(delay, is_kept_as):
    assert kept(delay) == is_kept_as


def test_there_are_few_lengths_for_all_the_delays_of_a_day():
    assert len({bucket_of(seconds / 10) for seconds in range(1, 864_000, 7)}) < 65


@pytest.mark.parametrize("delay", [LONGEST, 2 * LONGEST, 1e12])
def test_a_delay_beyond_the_longest_is_cut(delay):
    assert bucket_of(delay) == bucket_of(LONGEST)
    assert bucket_of(delay) * 1000 < 2**32
