"""How long batches take at the longest: what a worker that leaves has to be given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.batch_times import (
    HALF_LIFE,
    SHORTEST,
    STEP,
    BatchTimes,
    bin_of,
    gathered,
    longest,
    merged,
    upper_end,
)

durations = st.floats(SHORTEST, 1e5)


def of(*seconds: float, at: float = 0.0) -> BatchTimes:
    counts: dict[int, float] = {}
    for one in seconds:
        counts[bin_of(one)] = counts.get(bin_of(one), 0.0) + 1.0
    return gathered(counts, at)


@given(durations)
def test_a_bin_holds_what_is_at_most_a_fifth_shorter_than_its_end(seconds):
    assert upper_end(bin_of(seconds)) / STEP * (1 - 1e-6) <= seconds <= upper_end(bin_of(seconds)) * (1 + 1e-6)


@given(st.lists(durations, min_size=1), st.floats(0.0, 1.0))
def test_so_many_batches_stay_within_what_is_told(seen, share):
    end = longest(of(*seen), share)
    assert end is not None
    within = sum(one <= end * (1 + 1e-6) for one in seen)
    assert within >= share * len(seen) - 1e-6


@given(st.lists(durations, max_size=20), st.lists(durations, max_size=20), st.floats(0.0, 1e6))
def test_it_does_not_matter_who_tells_first(one, other, later):
    first, second = of(*one), of(*other, at=later)
    there, back = merged(first, second), merged(second, first)
    assert there.at == back.at
    assert there.counts == pytest.approx(back.counts)


def test_nothing_is_told_of_what_was_never_seen():
    assert longest(BatchTimes()) is None
    assert longest(merged(BatchTimes(), BatchTimes())) is None


def test_one_long_batch_in_two_thousand_is_not_the_rule_and_three_are():
    usual = [0.1] * 1997
    assert longest(of(*usual, 5.0)) == pytest.approx(0.1, rel=0.2)
    assert longest(of(*usual, 5.0, 5.0, 5.0)) == pytest.approx(5.0, rel=0.2)


def test_what_was_seen_yesterday_counts_half():
    assert merged(of(1.0, 1.0), BatchTimes(at=HALF_LIFE)).total == pytest.approx(1.0)


def test_what_has_faded_to_nothing_is_left_out():
    assert merged(of(1.0), of(2.0, at=20 * HALF_LIFE)).counts == of(2.0).counts
