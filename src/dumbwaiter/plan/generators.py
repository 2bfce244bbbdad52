"""Arrivals, made up from a seed: shapes that were seen in published traces, not the traces themselves.

Azure Functions: Shahrad et al., "Serverless in the Wild", 2020. Gamma: Wang et al., "BurstGPT", 2024.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dumbwaiter.plan.bounds import MOST_AT_ONCE, check_requests
from dumbwaiter.plan.services import Inputs
from dumbwaiter.plan.traces import Floats, Trace

DAY = 86_400.0
STEP = 1.0
"""Seconds within which a rate that changes is taken to be constant."""
JOB = 5_000
"""Images of one bulk job."""
JOB_RATE = 500.0
"""Of which so many are sent in a second."""

Generator = Callable[[np.random.Generator, float, float], Floats]
"""Arrivals, in order, of *rate* a second on average over *duration* seconds."""


def poisson(rng: np.random.Generator, rate: float, duration: float) -> Floats:
    """The same rate all the time."""
    return np.sort(rng.uniform(0.0, duration, rng.poisson(rate * duration)))


def gamma(rng: np.random.Generator, rate: float, duration: float) -> Floats:
    """Gamma gaps, burstier than Poisson, with a shape that drifts between 0.1 and 1 every ten minutes, as BurstGPT."""
    arrivals: list[Floats] = []
    shape, at = 0.4, 0.0
    while at < duration:
        end = min(at + 600.0, duration)
        shape = float(np.clip(shape * rng.lognormal(0.0, 0.4), 0.1, 1.0))
        count = int(rate * (end - at) * 2 + 20 / shape)
        gaps = rng.gamma(shape, 1.0 / (shape * rate), count)
        moments = at + np.cumsum(gaps)
        while moments[-1] < end:
            more = rng.gamma(shape, 1.0 / (shape * rate), count)
            moments = np.concatenate([moments, moments[-1] + np.cumsum(more)])
        arrivals.append(moments[moments < end])
        at = end
    return np.concatenate(arrivals) if arrivals else np.empty(0)


def mmpp2(rng: np.random.Generator, rate: float, duration: float) -> Floats:
    """Two states: calm for 5 minutes, bursts of five times that rate for 1 minute, both on average."""
    return _mmpp(rng, rate, duration, levels=(1.0, 5.0), stays=(300.0, 60.0))


def bursts(rng: np.random.Generator, rate: float, duration: float) -> Floats:
    """Two slower states: calm for 20 minutes, three times that rate for 5 minutes, both on average."""
    return _mmpp(rng, rate, duration, levels=(1.0, 3.0), stays=(1200.0, 300.0))


def mmpp3(rng: np.random.Generator, rate: float, duration: float) -> Floats:
    """Three states: silence for 10 minutes, calm for 10, bursts of ten times that rate for 1, all on average."""
    return _mmpp(rng, rate, duration, levels=(0.0, 1.0, 10.0), stays=(600.0, 600.0, 60.0))


def diurnal(rng: np.random.Generator, rate: float, duration: float) -> Floats:
    """A Poisson process whose rate goes with the hour: from a tenth of the mean at night to 1.9 of it at noon."""
    return _nhpp(rng, rate * (1.0 - 0.9 * np.cos(2 * np.pi * _cells(duration) / DAY)), duration)


def flash(rng: np.random.Generator, rate: float, duration: float) -> Floats:
    """A flash crowd: after a third of the time 15 times the usual within 20 seconds, fading over 5 minutes."""
    since = _cells(duration) - duration / 3
    crowd = 14.0 * np.clip(since / 20.0, 0.0, 1.0) * np.exp(-np.maximum(since - 20.0, 0.0) / 300.0)
    rates: Floats = rate * (1.0 + crowd) / (1.0 + float(crowd.mean()))
    return _nhpp(rng, rates, duration)


def jobs(rng: np.random.Generator, rate: float, duration: float) -> Floats:
    """Half of the requests come alone, the others in bulk jobs of 5,000 images each, at random times."""
    alone = poisson(rng, rate / 2, duration)
    number = max(1, round(rate / 2 * duration / JOB)) if rate > 0 else 0
    starts = rng.uniform(0.0, max(duration - JOB / JOB_RATE, 0.0), number)
    bulk = (starts[:, None] + np.arange(JOB)[None, :] / JOB_RATE).ravel()
    return np.sort(np.concatenate([alone, bulk[bulk < duration]]))


def azure(rng: np.random.Generator, rate: float, duration: float) -> Floats:
    """Some 50 functions as in Azure Functions: rates over orders of magnitude; calls over HTTP at random, queues in
    bursts, events in rarer and longer ones, and timers that all fire on the minute.
    """
    parts: list[Floats] = []
    for share, functions, make in (
        (0.37, 28, poisson),
        (0.35, 8, gamma),
        (0.26, 4, mmpp3),
        (0.02, 10, _timers),
    ):
        weights = rng.lognormal(0.0, 2.5, functions)
        parts += [make(rng, rate * share * weight, duration) for weight in weights / weights.sum()]
    return np.sort(np.concatenate(parts))


GENERATORS: dict[str, Generator] = {
    "azure": azure,
    "bursts": bursts,
    "diurnal": diurnal,
    "flash": flash,
    "gamma": gamma,
    "jobs": jobs,
    "mmpp2": mmpp2,
    "mmpp3": mmpp3,
    "poisson": poisson,
}


def generated(name: str, inputs: Inputs, *, rate: float, duration: float, seed: int) -> Trace:
    """The trace *name* of *seed*: arrivals and inputs are drawn apart, so that one can change without the other."""
    of_arrivals, of_inputs = (np.random.default_rng([seed, part]) for part in (0, 1))
    arrivals = GENERATORS[name](of_arrivals, rate, duration)
    check_requests(f"--generate {name}, seed {seed}", len(arrivals), MOST_AT_ONCE)  # bursts are not the average
    each, nbytes = inputs.drawn(of_inputs, arrivals, duration)
    return Trace(name, arrivals, each, nbytes, duration)


def _cells(duration: float) -> Floats:
    cells: Floats = np.arange(max(1, int(np.ceil(duration / STEP)))).astype(np.float64)
    return (cells + 0.5) * STEP


def _nhpp(rng: np.random.Generator, rates: Floats, duration: float) -> Floats:
    """A Poisson process with one rate for each STEP."""
    counts = rng.poisson(rates * STEP)
    starts = np.repeat(np.arange(len(rates)) * STEP, counts)
    arrivals = np.sort(starts + rng.uniform(0.0, STEP, len(starts)))
    return arrivals[arrivals < duration]


def _mmpp(
    rng: np.random.Generator, rate: float, duration: float, *, levels: tuple[float, ...], stays: tuple[float, ...]
) -> Floats:
    """States one after the other at random, each with its level of the rate and its mean stay, both exponential."""
    mean = sum(level * stay for level, stay in zip(levels, stays, strict=True)) / sum(stays)
    arrivals: list[Floats] = []
    at, state = 0.0, int(rng.choice(len(levels), p=np.array(stays) / sum(stays)))
    while at < duration:
        stay = min(float(rng.exponential(stays[state])), duration - at)
        arrivals.append(at + poisson(rng, rate * levels[state] / mean, stay))
        at += stay
        others = [one for one in range(len(levels)) if one != state]
        state = int(rng.choice(others))
    return np.concatenate(arrivals) if arrivals else np.empty(0)


def _timers(rng: np.random.Generator, rate: float, duration: float) -> Floats:
    """Fires every 1, 5, 15 or 60 minutes on the minute, as many at a time as the rate wants."""
    period = float(rng.choice([60.0, 300.0, 900.0, 3600.0]))
    moments = np.arange(0.0, duration, period)
    return np.repeat(moments, rng.poisson(rate * period, len(moments)))
