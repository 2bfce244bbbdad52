"""The simulated queue against formulas: within 2 %."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dumbwaiter.plan.services import Curve
from dumbwaiter.plan.simulation import serve
from dumbwaiter.plan.traces import Trace

WITHIN = 0.02


def poisson_trace(rate, count, services, seed):
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1.0 / rate, count))
    arrivals *= count / rate / arrivals[-1]  # the rate to the last digit: a few per mille of it are many of the wait
    return Trace("test", arrivals, services(rng, count), np.ones(count, dtype=np.int64), float(arrivals[-1]))


def erlang_c(workers, load):
    """The chance that a request of an M/M/c queue has to wait."""
    blocked = 1.0
    for number in range(1, workers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1.0 - load / workers * (1.0 - blocked))


def exponential(rng, count):
    seconds = rng.exponential(1.0, count)
    return seconds / seconds.mean()


@pytest.mark.parametrize(("workers", "load"), [(1, 0.5), (2, 1.2), (8, 5.6)])
def test_waits_of_random_inputs_are_those_of_erlang(workers, load):
    traces = [poisson_trace(load, 600_000, exponential, seed=seed) for seed in range(4)]
    waits = np.concatenate([serve(trace, Curve(each=1.0), workers) - trace.each for trace in traces])
    has_to_wait = erlang_c(workers, load)
    assert waits.mean() == pytest.approx(has_to_wait / (workers - load), rel=WITHIN)
    assert (waits > 1e-9).mean() == pytest.approx(has_to_wait, rel=WITHIN)
    longest = math.log(has_to_wait / 0.01) / (workers - load)
    assert np.quantile(waits, 0.99) == pytest.approx(longest, rel=WITHIN)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_waits_of_equal_inputs_at_one_worker_are_those_of_pollaczek_and_khinchin(load):
    trace = poisson_trace(load, 500_000, lambda _, count: np.ones(count), seed=3)
    waits = (serve(trace, Curve(each=1.0), 1) - 1.0)[20_000:]
    assert waits.mean() == pytest.approx(load / (2 * (1 - load)), rel=WITHIN)


def batch_latency(rate, fixed, each, most, states=300):
    """Mean latency where one worker takes up to *most* of what waits: by the chain of what each batch leaves behind."""
    step = np.zeros((states, states))
    for left in range(states):
        size = min(max(left, 1), most)
        mean, rest = rate * (fixed + each * size), max(left - size, 0)
        more = np.arange(states - rest)
        step[left, rest:] = np.exp(-mean + more * math.log(mean) - np.array([math.lgamma(one + 1) for one in more]))
        step[left, -1] += 1.0 - step[left].sum()
    equations = np.vstack([step.T - np.eye(states), np.ones(states)])
    chance = np.linalg.lstsq(equations, np.r_[np.zeros(states), 1.0], rcond=None)[0]
    left = np.arange(states)
    takes = fixed + each * np.minimum(np.maximum(left, 1), most)
    there = chance @ (np.maximum(left, 1) * takes + rate * takes**2 / 2)
    return there / (chance @ (takes + (left == 0) / rate)) / rate  # Little


@pytest.mark.parametrize(("rate", "most"), [(10.0, 16), (40.0, 16), (60.0, 16), (30.0, 4)])
def test_latencies_of_batches_are_those_of_the_exact_chain(rate, most):
    trace = poisson_trace(rate, 200_000, lambda _, count: np.full(count, 0.01), seed=5)
    curve = Curve(fixed=0.05, each=0.01, max_batch=most)
    assert curve.target == most
    latencies = serve(trace, curve, 1)[10_000:]
    assert latencies.mean() == pytest.approx(batch_latency(rate, 0.05, 0.01, most), rel=WITHIN)


@pytest.mark.parametrize("rate", [20.0, 60.0, 80.0])
def test_batches_without_a_limit_stay_below_inoues_bound_and_meet_it_under_load(rate):
    """Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching", 2021: his bound phi_1."""
    trace = poisson_trace(rate, 300_000, lambda _, count: np.full(count, 0.01), seed=7)
    latencies = serve(trace, Unlimited(fixed=0.05, each=0.01, max_batch=10_000), 1)[10_000:]
    load = rate * 0.01
    bound = 1.5 * 0.05 / (1 - load) + 0.005 * (load + 2) / (1 - load**2)
    assert latencies.mean() <= bound * 1.01
    if load >= 0.6:
        assert latencies.mean() == pytest.approx(bound, rel=WITHIN)


class Unlimited(Curve):
    """Takes all that waits, not what is worth aiming at."""

    @property
    def target(self):
        return self.max_batch


def test_a_batch_is_no_larger_than_the_knee_of_its_curve():
    assert Curve(fixed=0.02, each=0.01, max_batch=500).target in (38, 39)  # 19 a/c = 38, but for rounding
