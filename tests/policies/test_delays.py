from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.delays import GROWTH, LONGEST, SHORTEST, bucket_of


@given(st.floats(0.001, LONGEST))
def test_a_message_never_comes_before_its_delay_and_at_most_a_quarter_late(delay):
    assert delay <= bucket_of(delay) <= max(SHORTEST, delay * GROWTH + 0.001)


@given(st.floats(0.001, 2 * LONGEST))
def test_a_length_stands_for_itself(delay):
    assert bucket_of(bucket_of(delay)) == bucket_of(delay)


def test_there_are_few_lengths_for_all_the_delays_of_a_day():
    assert len({bucket_of(seconds / 10) for seconds in range(1, 864_000, 7)}) < 65


@pytest.mark.parametrize("delay", [LONGEST, 2 * LONGEST, 1e12])
def test_a_delay_beyond_the_longest_is_cut(delay):
    assert bucket_of(delay) == bucket_of(LONGEST)
    assert bucket_of(delay) * 1000 < 2**32
