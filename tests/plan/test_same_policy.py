"""The simulator calls the policies of the running system, knows no more than that does, and repeats itself exactly."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from dumbwaiter.demand import inflow
from dumbwaiter.plan.actuation import KedaSettings, Machines, Native
from dumbwaiter.plan.generators import generated
from dumbwaiter.plan.knowledge import Knowledge, known_before
from dumbwaiter.plan.pool import Pool
from dumbwaiter.plan.services import Curve, Heavy, Inputs
from dumbwaiter.plan.simulation import Kills, Setting, World, simulate
from dumbwaiter.plan.traces import Trace
from dumbwaiter.policies import batching, scaling, service_times
from dumbwaiter.policies.scaling import Rules
from dumbwaiter.policies.service_times import ServiceTimes, expected

CURVE = Curve(each=0.15)
RULES = Rules(max_replicas=30, cold_start=10.0)
WORLD = World(CURVE, Machines(boot=5.0, load=5.0))
LOCAL = Setting("local", RULES)
KEDA = Setting("keda", RULES, KedaSettings())


def trace_of(seed=1, *, inputs=None, duration=1200.0, name="mmpp2", rate=10.0):
    return generated(name, inputs or Inputs(CURVE, Heavy(3.0, 0.02)), rate=rate, duration=duration, seed=seed)


def facts(outcome):
    return outcome.latencies.tolist(), outcome.worker_seconds, outcome.counts


@pytest.mark.parametrize("setting", [LOCAL, KEDA], ids=["local", "keda"])
def test_the_same_seed_gives_the_same_outcome_to_the_last_digit(setting):
    world = dataclasses.replace(WORLD, error=0.3, kills=Kills(hourly=5.0))
    once, again, other = (simulate(trace_of(), setting, world, seed=seed) for seed in (1, 1, 2))
    assert facts(once) == facts(again)
    assert facts(once) != facts(other)


@pytest.mark.parametrize("setting", [LOCAL, KEDA], ids=["local", "keda"])
@pytest.mark.parametrize("world", [WORLD, dataclasses.replace(WORLD, curve=Curve(0.3, 0.02, 16))], ids=["one", "batch"])
def test_everything_is_answered_and_nothing_before_it_came(setting, world):
    trace = trace_of()
    outcome = simulate(trace, setting, world, seed=1)
    assert (outcome.latencies >= trace.each + world.curve.fixed - 1e-9).all()
    busy = float(trace.each.sum())
    if world.curve.max_batch == 1:
        assert outcome.worker_seconds >= busy


@pytest.mark.parametrize("setting", [LOCAL, KEDA], ids=["local", "keda"])
def test_what_broker_and_network_add_makes_answers_later_and_workers_no_busier(setting):
    trace = trace_of()
    here, there = (simulate(trace, setting, dataclasses.replace(WORLD, transit=one), seed=1) for one in (0.0, 0.25))
    np.testing.assert_allclose(there.latencies, here.latencies + 0.25)
    assert (there.worker_seconds, there.counts) == (here.worker_seconds, here.counts)


@pytest.mark.parametrize(
    ("place", "name", "mutant"),
    [
        (scaling, "work_ahead", lambda _: 0.0),
        (scaling, "_settled", lambda wanted, raw, current: raw),
        (scaling, "_may_end", lambda idle_since, rules, now: False),
        (scaling, "_staffing", lambda load, rules: math.ceil(load)),
        (scaling, "_within", lambda rules: rules.drain_target),
        (service_times, "HALF_LIFE", 1e9),
        (scaling, "MEMORY", 5.0),
        (inflow, "arrivals", lambda **_: 0),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_change_of_a_policy_changes_what_is_simulated(monkeypatch, place, name, mutant):
    inputs = Inputs(CURVE, Heavy(3.0, 0.02, 0.25))
    trace = generated("mmpp3", inputs, rate=5.0, duration=3000.0, seed=3)
    before = simulate(trace, LOCAL, WORLD, seed=1)
    monkeypatch.setattr(place, name, mutant)
    assert facts(simulate(trace, LOCAL, WORLD, seed=1)) != facts(before)


def test_what_is_worth_batching_is_decided_by_the_policy(monkeypatch):
    curve = Curve(0.02, 0.02, 32)
    assert curve.target == 19
    monkeypatch.setattr(batching, "KNEE", 0.5)
    assert curve.target <= 2


# --- what is known ---


def flat(count, gap=0.5, each=0.2):
    arrivals = np.arange(count) * gap
    return Trace("flat", arrivals, np.full(count, each), np.full(count, 1_000, dtype=np.int64), count * gap)


def test_nothing_is_known_of_inputs_that_nobody_has_answered():
    trace = flat(10)
    pool = Pool(trace, CURVE)
    knowledge = Knowledge(pool, trace)
    pool.advance(2.0)
    look = knowledge.look()
    assert (look.seconds_each, look.waiting, look.in_flight, look.ready) == (None, 5, 0, 0)


def test_how_long_the_first_input_took_is_known_at_once():
    trace = flat(40)
    pool = Pool(trace, CURVE)
    knowledge = Knowledge(pool, trace)
    pool.order(2, 0.0)
    pool.advance(0.1)
    assert knowledge.look().seconds_each is None
    pool.advance(0.3)
    assert knowledge.look().seconds_each == pytest.approx(0.2)


def test_a_worker_tells_every_five_seconds_what_it_has_settled():
    trace = flat(40, gap=0.5)
    pool = Pool(trace, CURVE)
    knowledge = Knowledge(pool, trace)
    pool.order(1, 0.0)
    came = {}
    for moment in np.arange(0.4, 12.0, 0.5):
        pool.advance(float(moment))
        came[round(moment, 1)] = knowledge.look().arrived
    # Nothing is there at any look. Its first answer was at 0.2 s, and those until 5.2 s and 10.2 s are 11 and 10.
    assert {at: count for at, count in came.items() if count} == {5.4: 11, 10.4: 10}


def test_arrivals_are_told_by_counters_and_add_up():
    trace = flat(400)
    pool = Pool(trace, CURVE)
    knowledge = Knowledge(pool, trace)
    pool.order(2, 0.0)
    came = 0
    for moment in np.arange(0.0, 230.0, 2.0):
        pool.advance(float(moment))
        came += knowledge.look().arrived
    assert came == 400


def test_estimates_may_be_wrong_and_only_they():
    trace = flat(100)
    looks = []
    for wrong in (1.0, 1.3):
        pool = Pool(trace, CURVE)
        knowledge = Knowledge(pool, trace, wrong=wrong)
        pool.order(2, 0.0)
        pool.advance(30.0)
        knowledge.look()
        pool.advance(40.0)
        looks.append(knowledge.look())
    assert looks[1].seconds_each == pytest.approx(1.3 * looks[0].seconds_each)
    assert dataclasses.replace(looks[1], seconds_each=None) == dataclasses.replace(looks[0], seconds_each=None)


def test_the_mix_is_learnt_after_it_has_changed():
    light, heavy = flat(400, each=0.1), flat(400, each=1.0)
    trace = Trace(
        "flip",
        np.concatenate([light.arrivals, 200.0 + heavy.arrivals]),
        np.concatenate([light.each, heavy.each]),
        np.concatenate([light.nbytes, heavy.nbytes * 100]),
        400.0,
    )
    pool = Pool(trace, CURVE)
    knowledge = Knowledge(pool, trace)
    pool.order(4, 0.0)
    seen = {}
    for moment in range(2, 400, 2):
        pool.advance(float(moment))
        seen[moment] = knowledge.look().seconds_each
    assert seen[198] == pytest.approx(0.1)
    assert seen[204] < 0.4, "not at once"
    assert seen[398] > 0.5
    assert seen[240] < seen[280] < seen[360]


def test_a_profile_from_before_holds_what_the_first_inputs_would_have_shown():
    trace = trace_of()
    times = known_before(trace, CURVE)
    assert expected(times, 0.0) == pytest.approx(trace.each[:100].mean())
    assert isinstance(times, ServiceTimes)


def test_without_knowledge_one_worker_finds_out_first():
    trace = flat(2_000, gap=0.01)
    unknown = dataclasses.replace(WORLD, is_known=False)
    outcomes = [simulate(trace, LOCAL, world, seed=1) for world in (WORLD, unknown)]
    known, first = (max(count for at, count in outcome.counts if at < 10.0) for outcome in outcomes)
    assert (known > 10, first) == (True, 1)


# --- what can go wrong ---


def test_kills_cost_time_but_no_answers():
    trace = trace_of(duration=3600.0)
    calm = simulate(trace, LOCAL, WORLD, seed=1)
    for notice in (0.0, 30.0):
        kills = Kills(all_at=(1800.0,), notice=notice)
        struck = simulate(trace, LOCAL, dataclasses.replace(WORLD, kills=kills), seed=1)
        assert np.isfinite(struck.latencies).all()
        after = (trace.arrivals > 1795.0) & (trace.arrivals < 1805.0)
        assert struck.latencies[after].mean() > calm.latencies[after].mean() + 3.0
        before = trace.arrivals < 1700.0
        assert struck.latencies[before].tolist() == calm.latencies[before].tolist()


def test_workers_are_killed_as_often_as_was_asked_for():
    nothing = Trace("none", np.empty(0), np.empty(0), np.empty(0, dtype=np.int64), 3600.0)
    kept = Setting("kept", dataclasses.replace(RULES, min_replicas=25))
    world = dataclasses.replace(WORLD, kills=Kills(hourly=4.0))
    killed = [simulate(nothing, kept, world, seed=seed).ordered - 25 for seed in range(4)]
    assert np.mean(killed) == pytest.approx(25 * 4.0, rel=0.2)


def test_a_trigger_of_kedas_needs_keda():
    with pytest.raises(ValueError, match="need KEDA"):
        simulate(flat(3), Setting("native", Native(1.0)), WORLD, seed=1)


def test_what_comes_before_the_warm_up_ends_is_not_counted():
    trace = trace_of(duration=1200.0)
    warm = simulate(trace, LOCAL, dataclasses.replace(WORLD, warm_up=600.0), seed=1)
    cold = simulate(trace, LOCAL, WORLD, seed=1)
    counted = trace.arrivals >= 600.0
    assert warm.latencies.tolist() == cold.latencies[counted].tolist()
    assert 0.0 < warm.worker_seconds < cold.worker_seconds


def test_a_trace_without_requests_costs_what_is_kept_ready():
    empty = Trace("none", np.empty(0), np.empty(0), np.empty(0, dtype=np.int64), 600.0)
    assert simulate(empty, LOCAL, WORLD, seed=1).worker_seconds == 0.0
    kept = Setting("kept", dataclasses.replace(RULES, min_replicas=2))
    assert simulate(empty, kept, WORLD, seed=1).worker_seconds == pytest.approx(1200.0)
