"""What Kubernetes makes of a number: cases worked out by hand from its documentation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dumbwaiter.plan.actuation import Keda, KedaSettings, Machines, Native, synced
from dumbwaiter.plan.knowledge import Knowledge
from dumbwaiter.plan.pool import Pool
from dumbwaiter.plan.services import Curve
from dumbwaiter.plan.traces import Trace
from dumbwaiter.policies.scaling import Rules

USUAL = KedaSettings()


def once(replicas, value, settings=USUAL, recommended=(), now=0.0, least=0, most=100):
    return synced(list(recommended), replicas, value, now, settings, least, most)[1]


@pytest.mark.parametrize(
    ("replicas", "value", "then"),
    [
        (10, 10.0, 10),
        (10, 11.0, 10),  # a tenth more is tolerated
        (10, 11.01, 12),  # and what is beyond is rounded up
        (10, 9.0, 10),
        (10, 8.99, 9),
        (1, 1.1, 1),
        (1, 1.2, 2),
        (3, 3.2, 3),
        (3, 3.4, 4),
    ],
)
def test_a_change_of_a_tenth_is_left_alone(replicas, value, then):
    assert once(replicas, value) == then


@pytest.mark.parametrize(("replicas", "then"), [(1, 5), (3, 7), (4, 8), (5, 10), (40, 80)])
def test_one_sync_adds_four_pods_or_as_many_again(replicas, then):
    assert once(replicas, 1000.0, most=1000) == then


def test_without_limits_it_adds_what_is_asked_for():
    free = KedaSettings(up_percent=None, up_pods=None)
    assert once(1, 60.0, free) == 60
    assert once(1, 60.0, free, most=20) == 20


def test_only_pods_and_only_percents_are_limits_too():
    assert once(2, 90.0, KedaSettings(up_percent=None, up_pods=3)) == 5
    assert once(2, 90.0, KedaSettings(up_percent=50.0, up_pods=None)) == 3


def test_it_never_goes_below_one_nor_the_least():
    assert once(3, 0.0) == 1
    assert once(3, 0.0, least=2) == 2


def test_fewer_pods_come_only_when_none_more_were_recommended_within_the_window():
    recommended, replicas, seen = [], 10, []
    for number, value in enumerate([10.0] + [2.0] * 25):
        recommended, replicas = synced(recommended, replicas, value, 15.0 * number, USUAL, 0, 100)
        seen.append(replicas)
    # The last recommendation of 10 was at 0 s and counts for less than 300 s: the 20th sync is the first without it.
    assert seen == [10] * 20 + [2] * 6


def test_a_short_dip_within_the_window_changes_nothing():
    recommended, replicas = [], 8
    for number, value in enumerate([8.0, 1.0, 8.0, 1.0, 8.0] * 6):
        recommended, replicas = synced(recommended, replicas, value, 15.0 * number, USUAL, 0, 100)
        assert replicas == 8


# --- to zero and back ---


def keda(arrivals, settings=USUAL, each=0.1, native=None):
    seconds = np.full(len(arrivals), each)
    trace = Trace("test", np.array(arrivals), seconds, np.ones(len(arrivals), dtype=np.int64), 1000.0)
    pool = Pool(trace, Curve(each=each))
    rules = native or Native(1.0, max_replicas=10)
    return pool, Keda(pool, Machines(boot=5.0, load=5.0), Knowledge(pool, trace), rules, settings)


def counts(pool, actuator, until):
    """Workers after each of what is done, by its moment."""
    seen = {}
    while actuator.next_at <= until:
        pool.advance(actuator.next_at)
        actuator.act()
        seen[round(pool.now, 3)] = pool.current
    return seen


def test_the_first_message_waits_for_the_next_poll():
    seen = counts(*keda([31.0]), until=100.0)
    assert (seen[30.0], seen[45.0], seen[60.0]) == (0, 0, 1)


def test_pushed_it_does_not():
    seen = counts(*keda([31.0], KedaSettings(push=True), native=Rules(max_replicas=10)), until=100.0)
    assert seen[30.0] == 0
    assert seen[31.1] == 1


def test_only_our_scaler_pushes():
    seen = counts(*keda([31.0], KedaSettings(push=True)), until=100.0)
    assert (seen[45.0], seen[60.0]) == (0, 1)


def test_after_the_cooldown_all_go_at_once():
    pool, actuator = keda([1.0] * 40, each=3.0)
    seen = counts(pool, actuator, until=700.0)
    most = max(seen.values())
    assert most == 10
    last = float(np.nanmax(pool.finish))
    active_at = 30.0 * math.floor(last / 30.0)
    assert seen[active_at + 300.0 - 30.0] >= 1
    assert seen[active_at + 300.0] == 0


def test_a_pod_that_is_lost_is_replaced():
    pool, actuator = keda([1.0] * 100, each=5.0)
    counts(pool, actuator, until=60.0)
    before = pool.current
    pool.kill(pool.alive()[:2], notice=0.0, lock=30.0)
    assert pool.current == before - 2
    counts(pool, actuator, until=75.0)
    assert pool.current >= before


def test_a_trigger_that_counts_only_what_waits_sends_the_busy_away():
    for counts_in_flight, then in ((True, 1), (False, 0)):
        pool, actuator = keda([0.0], each=900.0, native=Native(1.0, counts_in_flight, max_replicas=10))
        counts(pool, actuator, until=100.0)
        assert (pool.current, pool.waiting, pool.in_flight) == (1, 0, 1)
        counts(pool, actuator, until=500.0)
        assert (pool.current, pool.waiting, pool.in_flight) == (then, 0, 1)
