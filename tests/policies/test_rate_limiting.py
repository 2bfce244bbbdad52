"""The token bucket: never more than its rate and burst, and an honest time to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.rate_limiting import full, take

rates = st.floats(0.01, 1000.0)
bursts = st.floats(1.0, 100.0)
gaps = st.lists(st.floats(0.0, 5.0), min_size=1, max_size=100)


def test_a_full_bucket_gives_its_burst_and_then_one_for_each_that_flows_in():
    bucket = full(2.0, 3.0, now=10.0)
    assert [take(bucket, 1.0, now=10.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert take(bucket, 1.0, now=10.5) == 0.0
    assert take(bucket, 1.0, now=10.5) == 0.5


def test_what_is_refused_costs_nothing():
    bucket = full(1.0, 1.0, now=0.0)
    take(bucket, 1.0, now=0.0)
    for _ in range(100):
        assert take(bucket, 1.0, now=0.5) == 0.5
    assert take(bucket, 1.0, now=1.0) == 0.0


@given(rates, bursts, gaps)
def test_in_no_stretch_of_time_more_is_taken_than_burst_and_rate_allow(rate, burst, gaps):
    now, times = 0.0, []
    bucket = full(rate, burst, now=now)
    for gap in gaps:
        now += gap
        if take(bucket, 1.0, now=now) == 0.0:
            times.append(now)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + rate * (times[last] - times[first]) + 1e-6


@given(rates, bursts, gaps)
def test_whoever_waits_as_long_as_told_is_let_in_and_not_much_earlier(rate, burst, gaps):
    now = 0.0
    bucket = full(rate, burst, now=now)
    for gap in gaps:
        now += gap
        wait = take(bucket, 1.0, now=now)
        if wait:
            assert take(bucket, 1.0, now=now + wait * 0.99 - 1e-6) > 0.0
            now += wait + 1e-6
            assert take(bucket, 1.0, now=now) == 0.0


@given(rates, bursts, gaps)
def test_a_steady_caller_below_the_rate_is_never_refused(rate, burst, gaps):
    now = 0.0
    bucket = full(rate, burst, now=now)
    for gap in gaps:
        assert take(bucket, 1.0, now=now) == 0.0
        now += gap + 1.0 / rate + 1e-9


def test_a_clock_that_goes_back_gives_nothing():
    bucket = full(1.0, 1.0, now=100.0)
    take(bucket, 1.0, now=100.0)
    assert take(bucket, 1.0, now=50.0) == 1.0
    assert take(bucket, 1.0, now=100.5) == pytest.approx(0.5)
