"""The pause before the next try."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.backing_off import back_off

LUCK = st.floats(0, 1, exclude_max=True)


def test_pauses_double_up_to_the_longest():
    assert [back_off(n, first=0.5, longest=3.0) for n in (1, 2, 3, 4, 5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_pauses_grow_as_told():
    assert back_off(3, first=1.0, longest=100.0, growth=3.0) == 9.0


@pytest.mark.parametrize(("luck", "part"), [(0.0, 0.8), (0.5, 0.9), (1.0, 1.0)])
def test_luck_takes_off_up_to_what_least_leaves(luck, part):
    assert back_off(1, first=10.0, longest=10.0, luck=luck, least=0.8) == pytest.approx(10.0 * part)


@given(attempt=st.integers(-3, 10**9), luck=LUCK, least=st.floats(0, 1))
def test_a_pause_is_never_longer_than_the_longest_nor_shorter_than_the_least_part_of_the_first(attempt, luck, least):
    pause = back_off(attempt, first=0.05, longest=60.0, luck=luck, least=least)
    assert least * 0.05 * 0.999 <= pause <= 60.0
    assert pause <= back_off(attempt + 1, first=0.05, longest=60.0, luck=luck, least=least)
