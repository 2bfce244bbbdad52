"""What becomes of requests and workers, in cases that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dumbwaiter.plan.pool import Pool, costs
from dumbwaiter.plan.services import Curve
from dumbwaiter.plan.traces import Trace

ONE = Curve(each=1.0)


def trace(*arrivals, each=1.0):
    count = len(arrivals)
    seconds = np.full(count, each) if isinstance(each, float) else np.array(each)
    return Trace("test", np.array(arrivals, dtype=float), seconds, np.ones(count, dtype=np.int64), arrivals[-1])


def pool_of(arrivals, workers, *, each=1.0, curve=ONE, pulls_ahead=False, ready=0.0):
    pool = Pool(trace(*arrivals, each=each), curve, pulls_ahead=pulls_ahead)
    pool.order(workers, ready)
    return pool


@pytest.mark.parametrize("ahead", [False, True])
def test_a_request_meets_an_idle_worker_at_once(ahead):
    pool = pool_of([1.0, 5.0], 1, pulls_ahead=ahead)
    pool.advance(math.inf)
    assert pool.finish.tolist() == [2.0, 6.0]


def test_requests_are_begun_in_order_by_whoever_is_free_first():
    pool = pool_of([0.0, 0.1, 0.2, 0.3], 2)
    pool.advance(math.inf)
    assert pool.finish.tolist() == pytest.approx([1.0, 1.1, 2.0, 2.1])


def test_who_pulls_ahead_keeps_the_next_ones_from_an_idle_neighbour():
    each = [3.0, 1.0, 1.0, 1.0]
    alone, ahead = (
        pool_of([0.0, 0.0, 0.0, 0.0], 2, each=each, pulls_ahead=one, curve=Curve(each=1.0, decode_threads=2))
        for one in (False, True)
    )
    alone.advance(math.inf)
    ahead.advance(math.inf)
    assert alone.finish.tolist() == [3.0, 1.0, 2.0, 3.0]
    # The first one to pull takes one, and another one to decode meanwhile; so does its neighbour.
    assert ahead.finish.tolist() == [3.0, 4.0, 1.0, 2.0]


def test_how_much_is_pulled_ahead_goes_by_what_the_inputs_take_not_by_what_the_curve_says():
    pool = pool_of([0.0] * 6, 2, each=[1.0] * 6, pulls_ahead=True, curve=Curve(each=0.0, decode_threads=1))
    pool.advance(math.inf)
    # Quick inputs are taken 64 at a time; of these a worker holds one, and the next.
    assert sorted(pool.finish.tolist()) == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_a_batch_takes_what_waits_when_it_begins():
    pool = pool_of([0.0, 0.1, 0.2], 1, curve=Curve(fixed=1.0, each=1.0, max_batch=8))
    pool.advance(math.inf)
    assert pool.finish.tolist() == [2.0, 5.0, 5.0]


def test_workers_tell_of_a_small_batch_what_its_inputs_would_take_in_a_full_one():
    curve = Curve(fixed=1.0, each=1.0, max_batch=4)
    pool = pool_of([0.0, 0.1, 0.2], 1, curve=curve)
    pool.advance(math.inf)
    assert pool.work.tolist() == pytest.approx([1.25, 1.25, 1.25])


@pytest.mark.parametrize("ahead", [False, True])
def test_a_worker_serves_from_when_it_is_ready(ahead):
    pool = pool_of([0.0, 0.5], 1, pulls_ahead=ahead, ready=10.0)
    pool.advance(5.0)
    assert (pool.ready, pool.starting, pool.waiting, pool.in_flight) == (0, 1, 2, 0)
    assert pool.oldest_age == 5.0
    pool.advance(10.5)
    assert (pool.ready, pool.starting, pool.waiting + pool.in_flight) == (1, 0, 2)
    pool.advance(math.inf)
    assert pool.finish.tolist() == [11.0, 12.0]


def test_counts_are_those_of_the_moment():
    pool = pool_of([0.0, 0.5, 0.6, 9.0], 1)
    pool.advance(0.7)
    assert (pool.waiting, pool.in_flight, pool.oldest_age) == (2, 1, pytest.approx(0.2))
    assert pool.finished_since().tolist() == []
    assert pool.next_arrival == 9.0
    pool.advance(2.5)
    assert pool.finished_since().tolist() == [0, 1]
    assert pool.finished_since().tolist() == []
    assert (pool.waiting, pool.in_flight) == (0, 1)
    assert not pool.is_done
    pool.advance(11.0)
    assert pool.is_done


@pytest.mark.parametrize("ahead", [False, True])
def test_who_is_sent_away_finishes_its_batch_and_is_paid_until_then(ahead):
    pool = pool_of([0.0, 0.1, 0.2], 1, pulls_ahead=ahead)
    pool.advance(0.5)
    pool.retire(1)
    assert pool.current == 0
    pool.advance(3.0)
    assert pool.finish[0] == 1.0
    assert list(costs(pool.workers, 0.0, 10.0)) == [1.0]
    # What it had not begun waits for the next worker.
    assert (pool.waiting, pool.in_flight) == (2, 0)
    pool.order(1, 3.0)
    pool.advance(math.inf)
    assert pool.finish.tolist() == [1.0, 4.0, 5.0]


def test_those_that_start_go_first_then_the_idle_then_who_has_least_in_hand():
    """As policies.retiring says: the first has two in hand, the second one that takes longer, and the third none."""
    pool = pool_of([0.0] * 3, 3, each=[2.0, 0.5, 5.0], pulls_ahead=True, curve=Curve(each=1.0, decode_threads=1))
    pool.advance(1.0)
    assert pool.by[[0, 2]].tolist() == [0, 1]
    pool.order(2, 60.0)
    pool.advance(1.5)
    ends = []
    for _ in range(5):
        pool.retire(1)
        ends.append([worker.end for worker in pool.workers])
    inf = math.inf
    assert ends[0] == [inf, inf, inf, inf, 1.5]
    assert ends[1] == [inf, inf, inf, 1.5, 1.5]
    assert ends[2] == [inf, inf, 1.5, 1.5, 1.5]
    assert ends[3] == [inf, 5.0, 1.5, 1.5, 1.5]
    assert ends[4] == [2.0, 5.0, 1.5, 1.5, 1.5]


@pytest.mark.parametrize("ahead", [False, True])
def test_what_the_grace_does_not_allow_is_begun_again_by_another(ahead):
    pool = pool_of([0.0], 1, each=10.0, pulls_ahead=ahead)
    pool.advance(4.0)
    pool.retire(1, grace=5.0)
    pool.order(1, 6.0)
    assert (pool.waiting, pool.in_flight) == (1, 0)
    pool.advance(math.inf)
    assert pool.finish.tolist() == [16.0]
    assert list(costs(pool.workers, 0.0, 16.0)) == [4.0, 12.0]


@pytest.mark.parametrize("ahead", [False, True])
def test_what_a_vanished_worker_held_waits_for_its_lock(ahead):
    pool = pool_of([0.0, 20.0], 2, each=10.0, pulls_ahead=ahead)
    pool.advance(4.0)
    busy = next(place for place in pool.alive() if pool._running[place])
    pool.kill([busy], notice=0.0, lock=30.0)
    assert (pool.waiting, pool.in_flight) == (0, 1)
    pool.advance(33.0)
    assert pool.in_flight == 1
    pool.advance(math.inf)
    assert pool.finish.tolist() == [44.0, 30.0]


@pytest.mark.parametrize(("each", "ends_at"), [(23.0, 23.0), (25.0, 45.0)])
def test_of_a_notice_a_batch_has_four_fifths_as_a_workers_has(each, ends_at):
    pool = pool_of([0.0], 1, each=each)
    pool.advance(0.0)
    pool.order(1, 20.0)
    pool.advance(0.1)
    pool.kill(pool.alive()[:1], notice=30.0, lock=60.0)
    pool.advance(math.inf)
    assert pool.finish.tolist() == [ends_at]


def test_a_worker_is_paid_until_its_process_is_gone():
    pool = pool_of([0.0], 2)
    pool.advance(0.5)
    pool.retire(2, leave=2.0)
    assert sorted(costs(pool.workers, 0.0, 10.0)) == [2.5, 3.0]


def test_cost_is_counted_within_the_time_that_is_watched():
    pool = pool_of([0.0], 2)
    pool.advance(1.0)
    pool.retire(1)
    pool.advance(10.0)
    assert sorted(costs(pool.workers, 4.0, 10.0)) == [0.0, 6.0]


@pytest.mark.parametrize("curve", [Curve(each=0.3), Curve(fixed=0.2, each=0.1, max_batch=8)])
def test_every_request_is_answered_once_and_never_too_soon_however_workers_come_and_go(curve):
    rng = np.random.default_rng(1)
    arrivals = np.cumsum(rng.exponential(0.1, 3_000))
    each = rng.exponential(0.3, 3_000)
    pool = Pool(Trace("test", arrivals, each, np.ones(3_000, dtype=np.int64), 300.0), curve)
    answered = []
    for moment in np.arange(0.0, 600.0, 0.7):
        pool.advance(float(moment))
        answered += pool.finished_since().tolist()
        assert pool.waiting >= 0
        assert pool.in_flight >= 0
        assert pool.waiting + pool.in_flight + len(answered) == (arrivals <= moment).sum()
        choice = rng.random()
        if choice < 0.4:
            pool.order(int(rng.integers(1, 4)), float(moment + rng.uniform(0.0, 5.0)))
        elif choice < 0.6 and pool.current > 1:
            pool.retire(1, grace=float(rng.choice([0.1, math.inf])))
        elif choice < 0.65 and pool.current > 1:
            pool.kill(pool.alive()[:1], notice=0.0, lock=2.0)
    assert pool.is_done
    assert sorted(answered) == list(range(3_000))
    assert (pool.finish >= arrivals + each + curve.fixed - 1e-9).all()


@pytest.mark.parametrize("ahead", [False, True])
def test_looking_changes_nothing(ahead):
    rng = np.random.default_rng(2)
    arrivals, each = np.cumsum(rng.exponential(0.1, 2_000)), rng.exponential(0.25, 2_000)
    both = Trace("both", arrivals, each, np.ones(2_000, dtype=np.int64), 200.0)
    once, often = (Pool(both, ONE, pulls_ahead=ahead) for _ in range(2))
    for pool in (once, often):
        pool.order(4, 0.0)
    for moment in np.arange(0.0, 300.0, 0.31):
        often.advance(float(moment))
        assert often.oldest_age >= 0.0
        assert often.ready == 4
    once.advance(math.inf)
    often.advance(math.inf)
    assert once.finish.tolist() == often.finish.tolist()
