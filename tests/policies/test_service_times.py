"""How long an input takes by its size: learnt from what ran, expected of what comes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.service_times import (
    HALF_LIFE,
    Bucket,
    ServiceTimes,
    bucket_of,
    expected,
    expected_of,
    merged,
    sound,
)

inputs = st.lists(st.tuples(st.integers(0, 2**40), st.floats(0.0, 100.0), st.floats(0.0, 1000.0)), min_size=1)


def with_one(times: ServiceTimes, nbytes: int, seconds: float, now: float) -> ServiceTimes:
    """*times* after a worker has told of one more input."""
    return merged(times, ServiceTimes(buckets={bucket_of(nbytes): Bucket(seconds, 1.0, now)}), now)


def learnt(*seen: tuple[int, float], now: float = 0.0) -> ServiceTimes:
    times = ServiceTimes()
    for nbytes, seconds in seen:
        times = with_one(times, nbytes, seconds, now)
    return times


def from_inputs(seen) -> tuple[ServiceTimes, float]:
    times, now = ServiceTimes(), 0.0
    for nbytes, seconds, pause in seen:
        now += pause
        times = with_one(times, nbytes, seconds, now)
    return times, now


@given(inputs, st.floats(0.0, 1e9))
def test_what_is_expected_lies_between_the_least_and_the_most_that_was_seen(seen, later):
    times, now = from_inputs(seen)
    least, most = min(s for _, s, _ in seen), max(s for _, s, _ in seen)
    mean = expected(times, now + later)
    assert mean is not None
    assert least - 1e-9 <= mean <= most * (1 + 1e-9) + 1e-9


@given(inputs, inputs)
def test_two_workers_know_together_what_lies_between_them(first, second):
    (one, at), (other, later) = from_inputs(first), from_inputs(second)
    now = max(at, later)
    both = merged(one, other, now)
    means = [expected(one, now), expected(other, now)]
    assert min(means) - 1e-9 <= expected(both, now) <= max(means) * (1 + 1e-9) + 1e-9
    assert both.buckets.keys() == one.buckets.keys() | other.buckets.keys()


@given(inputs)
def test_nobody_else_changes_nothing(seen):
    times, now = from_inputs(seen)
    assert merged(times, ServiceTimes(), now) == times
    assert merged(ServiceTimes(), times, now) == times


@given(inputs, st.integers(0, 2**41))
def test_of_any_size_something_is_expected_that_is_not_negative(seen, nbytes):
    times, _ = from_inputs(seen)
    assert expected_of(times, nbytes) >= 0.0


@pytest.mark.parametrize(("nbytes", "bucket"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11)])
def test_a_bucket_ends_at_a_power_of_two(nbytes, bucket):
    assert bucket_of(nbytes) == bucket


def test_nothing_is_expected_of_what_was_never_seen():
    assert expected(ServiceTimes(), 0.0) is None
    assert expected_of(ServiceTimes(), 10) is None
    assert not ServiceTimes().is_known


def test_an_input_is_expected_to_take_what_those_of_its_size_took():
    times = learnt((1000, 0.1), (1_000_000, 3.0))
    assert (expected_of(times, 900), expected_of(times, 900_000)) == (0.1, 3.0)


def test_between_two_sizes_it_grows_in_proportion_and_beyond_too():
    times = learnt((1024, 1.0), (4096, 4.0))
    assert expected_of(times, 2048) == pytest.approx(2.0)
    assert expected_of(times, 8192) == pytest.approx(8.0)
    assert expected_of(times, 16) == 1.0, "and below, it takes what the smallest takes"


def test_the_mix_of_late_counts_for_those_to_come():
    """After a flip from light to heavy, two half-lives ago."""
    times = learnt(*[(1000, 0.15)] * 100)
    for _ in range(100):
        times = with_one(times, 1_000_000, 3.0, 2 * HALF_LIFE)
    assert expected(times, 2 * HALF_LIFE) == pytest.approx((0.15 * 25 + 3.0 * 100) / 125)


def test_what_has_faded_away_altogether_is_better_than_nothing():
    assert expected(learnt((10, 2.0)), 1e9) == 2.0


def test_a_slower_device_is_believed_after_some_half_lives():
    times, now = learnt(*[(10, 1.0)] * 500), 3 * HALF_LIFE
    slower = ServiceTimes(buckets={bucket_of(10): Bucket(2.0, 500.0, now)})
    assert expected(merged(times, slower, now), now) == pytest.approx((1.0 * 500 / 8 + 2.0 * 500) / (500 / 8 + 500))


def test_of_two_workers_the_one_that_has_seen_more_of_late_counts_more():
    old = learnt(*[(10, 1.0)] * 30)
    new = learnt(*[(10, 2.0)] * 10, now=HALF_LIFE)
    assert expected(merged(old, new, HALF_LIFE), HALF_LIFE) == pytest.approx((1.0 * 15 + 2.0 * 10) / 25)


@pytest.mark.parametrize(
    ("key", "bucket"),
    [
        (1, Bucket(1e308, 5.0, 10.0)),
        (1, Bucket(math.inf, 5.0, 10.0)),
        (1, Bucket(math.nan, 5.0, 10.0)),
        (1, Bucket(-5.0, 5.0, 10.0)),
        (1, Bucket(1.0, math.inf, 10.0)),
        (1, Bucket(1.0, -1.0, 10.0)),
        (1, Bucket(1.0, 1.0, math.nan)),
        (100_000, Bucket(1.0, 1.0, 10.0)),
        (-1, Bucket(1.0, 1.0, 10.0)),
    ],
)
def test_a_number_that_nobody_can_have_measured_is_unknown_and_the_others_stay(key, bucket):
    good = Bucket(2.0, 1.0, 10.0)
    kept = sound(ServiceTimes(buckets={key: bucket, 7: good}), 10.0)
    assert kept.buckets == {7: good}
    assert expected_of(kept, 1 << 60) is not None


def test_what_is_dated_ahead_was_measured_now_at_the_latest():
    assert sound(ServiceTimes(buckets={7: Bucket(2.0, 1.0, math.inf)}), 10.0).buckets == {7: Bucket(2.0, 1.0, 10.0)}
