"""Lanes for products without priorities."""

from __future__ import annotations

from collections import Counter

import pytest

from dumbwaiter.policies.lanes import HIGH, HIGH_TURNS, LANES, LOW, NORMAL, lane_of, order


@pytest.mark.parametrize(("priority", "lane"), [(9, HIGH), (1, HIGH), (0, NORMAL), (-1, LOW), (-9, LOW), (10**9, HIGH)])
def test_the_sign_of_a_priority_is_its_lane(priority, lane):
    assert lane_of(priority) == lane


def test_every_turn_asks_all_lanes_once():
    for turn in range(20):
        assert sorted(order(turn)) == list(range(LANES))


def test_a_higher_lane_is_first_more_often_and_none_never():
    first = Counter(order(turn)[0] for turn in range(800))
    assert first[HIGH] > first[NORMAL] > first[LOW] > 0


def test_whoever_begins_asks_for_what_is_urgent_and_for_the_rest_soon_after():
    assert HIGH_TURNS
    for turn in HIGH_TURNS:
        assert order(turn)[0] == HIGH
        assert {order(turn + later)[0] for later in range(8)} == set(range(LANES))


def test_behind_the_first_one_higher_lanes_come_before_lower_ones():
    for turn in range(20):
        assert list(order(turn)[1:]) == sorted(order(turn)[1:])
