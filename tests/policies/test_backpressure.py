"""Refusing what would come too late: by rule, and in a simulation of overload."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.backpressure import Load, expected_wait, inputs_a_second, seconds_until_it_fits

seconds = st.floats(0.001, 10.0)
loads = st.builds(Load, ahead=st.integers(0, 5000), seconds_each=st.lists(seconds, min_size=1, max_size=20))
counts = st.integers(0, 1000)
times = st.floats(0.0, 5.0)
patiences = st.floats(0.1, 600.0)


def test_workers_share_the_work_and_an_unmeasured_one_counts_as_the_others():
    assert inputs_a_second([0.1, 0.1]) == pytest.approx(20.0)
    assert inputs_a_second([0.1, 0.0]) == pytest.approx(20.0)
    assert inputs_a_second([0.1, 0.2]) == pytest.approx(15.0)


@pytest.mark.parametrize("seconds_each", [[], [0.0], [0.0, 0.0]])
def test_without_a_worker_or_a_measurement_nobody_can_tell_and_all_are_let_in(seconds_each):
    load = Load(ahead=10_000, seconds_each=seconds_each)
    assert expected_wait(load, sent_since=0, elapsed=0.0) is None
    assert seconds_until_it_fits(load, patience=1.0, sent_since=0, elapsed=0.0) is None


def test_the_wait_is_the_work_ahead_over_the_workers():
    load = Load(ahead=100, seconds_each=[0.5, 0.5])
    assert expected_wait(load, sent_since=20, elapsed=0.0) == pytest.approx(30.0)
    assert expected_wait(load, sent_since=20, elapsed=10.0) == pytest.approx(20.0)
    assert expected_wait(load, sent_since=0, elapsed=60.0) == 0.0
    assert seconds_until_it_fits(load, patience=30.0, sent_since=0, elapsed=0.0) is None
    assert seconds_until_it_fits(load, patience=10.0, sent_since=0, elapsed=0.0) == pytest.approx(25.5 - 9.0)


@given(seconds, patiences)
def test_an_idle_model_is_always_asked(each, patience):
    load = Load(ahead=0, seconds_each=[each])
    assert seconds_until_it_fits(load, patience=patience, sent_since=0, elapsed=0.0) is None


@given(loads, counts, times, patiences)
def test_whoever_comes_back_when_told_to_is_let_in_if_nobody_else_came(load, sent, elapsed, patience):
    wait = seconds_until_it_fits(load, patience=patience, sent_since=sent, elapsed=elapsed)
    if wait is not None:
        assert wait > 0.0
        later = elapsed + wait + 1e-6 * (1 + elapsed + wait)
        again = seconds_until_it_fits(load, patience=patience, sent_since=sent, elapsed=later)
        assert again is None or again < 1e-3


@given(loads, counts, times, patiences)
def test_more_work_never_shortens_the_wait_and_more_patience_never_hurts(load, sent, elapsed, patience):
    wait = expected_wait(load, sent_since=sent, elapsed=elapsed)
    assert wait >= 0.0
    assert expected_wait(load, sent_since=sent + 1, elapsed=elapsed) >= wait
    if seconds_until_it_fits(load, patience=patience, sent_since=sent, elapsed=elapsed) is None:
        assert seconds_until_it_fits(load, patience=patience * 2, sent_since=sent, elapsed=elapsed) is None


class Shop:
    """A queue with *workers*, each of which takes about *each* seconds for one input, and a look once a second."""

    def __init__(self, workers, each, luck):
        self.free_at = [0.0] * workers
        self.each = each
        self.luck = luck
        self.ends = []
        self.look(0.0)

    def look(self, now):
        while self.ends and self.ends[0] <= now:
            heapq.heappop(self.ends)
        self.load = Load(ahead=len(self.ends), seconds_each=[self.each] * len(self.free_at))
        self.looked_at, self.sent_since = now, 0

    def ask(self, now, patience):
        """Seconds to the answer, or (negative) those after which to come again."""
        if now - self.looked_at >= 1.0:
            self.look(now)
        facts = {"sent_since": self.sent_since, "elapsed": now - self.looked_at}
        refused = seconds_until_it_fits(self.load, patience=patience, **facts)
        if refused is not None:
            return -refused
        self.sent_since += 1
        start = max(now, heapq.heappop(self.free_at))
        end = start + self.each * self.luck.uniform(0.7, 1.3)
        heapq.heappush(self.free_at, end)
        heapq.heappush(self.ends, end)
        return end - now


@pytest.mark.parametrize("overload", [0.5, 0.9, 1.5, 3.0, 10.0])
@pytest.mark.parametrize(("workers", "each"), [(1, 0.05), (4, 0.2), (1, 0.5)])
def test_under_overload_those_let_in_are_in_time_and_the_device_stays_busy(overload, workers, each):
    luck = random.Random(7)
    shop = Shop(workers, each, luck)
    capacity, patience, now = workers / each, 5.0, 0.0
    waits, refused = [], []
    while now < 120.0:
        now += luck.expovariate(capacity * overload)
        answer = shop.ask(now, patience)
        (waits if answer >= 0.0 else refused).append(answer)
    late = sum(wait > patience for wait in waits) / len(waits)
    assert late < 0.05
    assert len(waits) >= 0.9 * capacity * 120.0 * min(overload, 1.0)
    if overload <= 0.5:
        assert not refused
    if overload > 1.0:
        assert refused
        assert max(-wait for wait in refused) < patience  # the queue is never longer than the patience allows


def test_at_three_times_overload_whoever_comes_back_when_told_to_finds_no_longer_queue():
    """The time that a refusal names is that in which the queue shrinks to fit, not a guess for politeness."""
    luck = random.Random(11)
    shop = Shop(2, 0.1, luck)
    for _ in range(600):
        shop.ask(0.0, 1e9)  # callers with all the time in the world
    told = -shop.ask(0.0, 5.0)
    assert told == pytest.approx(30.0 + 0.1 - 4.5, rel=0.1)
    assert shop.ask(told * 0.9, 5.0) < 0.0
    assert 0.0 < shop.ask(told + 1.0, 5.0) <= 5.5
