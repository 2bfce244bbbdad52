"""The simulated KEDA asks what the real one asks: our scaler by external-push, its page by metrics-api."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dumbwaiter.plan.actuation import Keda, KedaSettings, Machines
from dumbwaiter.plan.knowledge import Knowledge, known_before
from dumbwaiter.plan.pool import Pool
from dumbwaiter.plan.services import Curve
from dumbwaiter.plan.traces import Trace
from dumbwaiter.policies.scaling import Rules

CURVE = Curve(each=0.5)
RULES = Rules(max_replicas=20, idle_after=10.0, scale_in_after=200.0)
PUSH = KedaSettings(15.0, 60.0, stabilization=0.0, up_percent=None, up_pods=None, push=True)
BUSY = 100.0
"""Until this second six messages come each second, a worker's half second each."""


def run(settings, rules=RULES, *, arrivals=None, until=1000.0):
    """Workers at every moment at which KEDA or the HPA did something."""
    came = np.arange(0.0, BUSY, 1 / 6) if arrivals is None else np.array(arrivals)
    trace = Trace("test", came, np.full(came.size, 0.5), np.full(came.size, 1_000, dtype=np.int64), 1000.0)
    pool = Pool(trace, CURVE)
    keda = Keda(pool, Machines(load=0.1), Knowledge(pool, trace, times=known_before(trace, CURVE)), rules, settings)
    seen = {}
    while keda.next_at <= until:
        pool.advance(keda.next_at)
        keda.act()
        seen[pool.now] = pool.current
    return seen


def ended(seen):
    """When the last worker went."""
    return max(at for at, count in seen.items() if count) + 15.0


def test_pushed_all_go_a_cooldown_after_the_last_sign_of_work_whatever_load_is_remembered():
    assert BUSY + 60.0 - 15.0 <= ended(run(PUSH)) <= BUSY + 60.0 + 15.0


def test_by_metrics_api_the_cooldown_begins_when_nothing_more_is_desired():
    idle = replace(RULES, idle_after=150.0)
    assert BUSY + 150.0 + 60.0 - 15.0 <= ended(run(replace(PUSH, push=False), idle)) <= BUSY + 150.0 + 60.0 + 30.0
    assert ended(run(PUSH, idle)) <= BUSY + 60.0 + 15.0, "pushed, it is a sign of work that counts"


def light_after(busy):
    """Six a second, and then one in four seconds."""
    return [*np.arange(0.0, busy, 1 / 6), *np.arange(busy, 900.0, 4.0)]


def test_pushed_the_hpa_alone_smooths_and_by_metrics_api_it_gets_what_is_smoothed():
    pushed, read = (run(replace(PUSH, push=push), arrivals=light_after(BUSY)) for push in (True, False))
    most = max(read.values())
    held = {at: count for at, count in read.items() if BUSY + 100.0 <= at <= BUSY + 190.0}
    assert set(held.values()) == {most}, "for the 200 s of scale_in_after"
    assert max(count for at, count in pushed.items() if at in held) < most
    assert read[max(read)] < most


def test_the_first_sync_comes_after_the_first_poll():
    seen = run(replace(PUSH, push=False), arrivals=[0.0] * 400, until=20.0)
    before, after = (count for at, count in seen.items() if at in {0.0, 15.0})
    assert (before, after > 1) == (1, True)


@pytest.mark.parametrize("push", [True, False])
def test_a_least_number_stays(push):
    seen = run(replace(PUSH, push=push), replace(RULES, min_replicas=2))
    assert seen[max(seen)] == 2
