"""One run: a trace, the workers that settings give it, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dumbwaiter.plan.actuation import Actuator, Keda, KedaSettings, Local, LocalSettings, Machines, Native
from dumbwaiter.plan.bounds import check_ordered
from dumbwaiter.plan.knowledge import Knowledge, known_before
from dumbwaiter.plan.pool import Pool, costs
from dumbwaiter.plan.services import Curve
from dumbwaiter.plan.traces import Floats, Trace
from dumbwaiter.policies.scaling import Rules
from dumbwaiter.policies.service_times import ServiceTimes

_PATIENCE = 3_600.0
"""Seconds, or the trace once more if that is longer, after which what is not answered yet never is."""


@dataclass(frozen=True, slots=True)
class Kills:
    """Spot machines: each worker is taken away *hourly* times an hour on average, and all together at *all_at*
    seconds, with a *notice* of some seconds, or without one: then what it had in hand comes back when its locks of
    *lock* seconds run out.
    """

    hourly: float = 0.0
    all_at: tuple[float, ...] = ()
    notice: float = 30.0
    lock: float = 30.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What is tried: *rules* of ours, or a trigger of KEDA's own, on this machine or under KEDA."""

    name: str
    rules: Rules | Native
    place: LocalSettings | KedaSettings = field(default_factory=LocalSettings)


@dataclass(frozen=True, slots=True)
class World:
    """What settings cannot change. *error*: what is expected of an input is wrong by up to this part, either way, all
    the time of a run. *times*: what is known of it from before; None: what inputs as the first ones have shown, or
    nothing where not even that *is_known*. What happens in the first *warm_up* seconds is not reported. *transit*:
    seconds that broker and network add to each answer; no worker waits for them.
    """

    curve: Curve
    machines: Machines = field(default_factory=Machines)
    kills: Kills = field(default_factory=Kills)
    error: float = 0.0
    is_known: bool = True
    times: ServiceTimes | None = None
    pulls_ahead: bool = True
    warm_up: float = 0.0
    transit: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """*latencies* in seconds, from the intended arrival to the answer, of the requests after the warm-up; what workers
    were paid for since then, in seconds; the most that were there, and how many were ordered in all. *end*: when all
    was answered and the time of the trace over. *counts*: the moments at which there were other numbers of workers.
    """

    latencies: Floats
    worker_seconds: float
    most: int
    ordered: int
    end: float
    counts: list[tuple[float, int]] = field(default_factory=list)


def simulate(trace: Trace, setting: Setting, world: World, *, seed: int) -> Outcome:
    """Run *trace* under *setting*. The same arguments give the same outcome."""
    rng = np.random.default_rng([seed, 2])
    pool = Pool(trace, world.curve, pulls_ahead=world.pulls_ahead)
    wrong = 1.0 + world.error * float(rng.uniform(-1.0, 1.0))
    knowledge = Knowledge(
        pool, trace, wrong=wrong, times=world.times or (known_before(trace, world.curve) if world.is_known else None)
    )
    actuator = _actuator(pool, knowledge, setting, world.machines)
    reaper = _Reaper(pool, world.kills, rng)
    counts: list[tuple[float, int]] = []
    patience = _patience(trace, world)
    while not (pool.is_done and pool.now >= trace.duration):
        at = min(actuator.next_at, reaper.next_at)
        if not math.isfinite(at) or at > trace.duration + patience:
            break
        pool.advance(at)
        if reaper.next_at <= at:
            reaper.act()
        if actuator.next_at <= at:
            actuator.act()
            check_ordered(setting.name, len(pool.workers))
        if not counts or counts[-1][1] != pool.current:
            counts.append((at, pool.current))
    last = float(np.nanmax(pool.finish, initial=0.0))
    end = max(trace.duration, last)
    counted = trace.arrivals >= world.warm_up
    latencies = (pool.finish - trace.arrivals)[counted] + world.transit
    seconds = sum(costs(pool.workers, world.warm_up, end))
    return Outcome(latencies, seconds, max((count for _, count in counts), default=0), len(pool.workers), end, counts)


def serve(trace: Trace, curve: Curve, workers: int, *, pulls_ahead: bool = False) -> Floats:
    """Latencies of *trace* where there are always so many *workers*: the queue of the textbooks."""
    pool = Pool(trace, curve, pulls_ahead=pulls_ahead)
    pool.order(workers, 0.0)
    pool.advance(math.inf)
    return pool.finish - trace.arrivals


def _patience(trace: Trace, world: World) -> float:
    longest = world.curve.fixed + float(trace.each.max(initial=0.0)) * world.curve.target
    return max(_PATIENCE, trace.duration) + world.machines.cold_start + longest


def _actuator(pool: Pool, knowledge: Knowledge, setting: Setting, machines: Machines) -> Actuator:
    if isinstance(setting.place, KedaSettings):
        return Keda(pool, machines, knowledge, setting.rules, setting.place)
    if isinstance(setting.rules, Native):
        raise ValueError(f"{setting.name}: KEDA's triggers need KEDA")  # noqa: TRY004 - of the value that was given
    return Local(pool, machines, knowledge, setting.rules, setting.place)


class _Reaper:
    """Takes spot machines away: at its own moments, whatever the settings, so that runs can be compared."""

    def __init__(self, pool: Pool, kills: Kills, rng: np.random.Generator) -> None:
        self._pool = pool
        self._kills = kills
        self._rng = rng
        self._all_at = sorted(kills.all_at)
        self._one_at = self._in_a_while(0.0)

    @property
    def next_at(self) -> float:
        return min(self._one_at, self._all_at[0] if self._all_at else math.inf)

    def act(self) -> None:
        pool, alive = self._pool, self._pool.alive()
        doomed: Sequence[int] = []
        if self._all_at and pool.now >= self._all_at[0]:
            self._all_at.pop(0)
            doomed = alive
        elif pool.now >= self._one_at:
            doomed = [one for one in alive if self._rng.random() < self._kills.hourly * _REAPED_EVERY / 3600.0]
            self._one_at = self._in_a_while(pool.now)
        pool.kill(list(doomed), notice=self._kills.notice, lock=self._kills.lock)

    def _in_a_while(self, now: float) -> float:
        return now + _REAPED_EVERY if self._kills.hourly > 0.0 else math.inf


_REAPED_EVERY = 10.0
"""Seconds in which a worker is taken away with the probability that its rate gives."""
