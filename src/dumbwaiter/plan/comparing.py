"""Many settings over the same seeds: what each costs and how late its answers are, and which of them to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from dumbwaiter.cores import cores
from dumbwaiter.plan.bounds import MOST_AT_ONCE
from dumbwaiter.plan.generators import generated
from dumbwaiter.plan.running import Tell, results_of
from dumbwaiter.plan.services import Inputs
from dumbwaiter.plan.simulation import Outcome, Setting, World, simulate
from dumbwaiter.plan.statistics import Mean, mean_of
from dumbwaiter.plan.traces import Trace

_WORTH_PROCESSES = 500_000
"""Requests, over all runs, from which on more processes than one save time."""


class Source(Protocol):
    """Where traces come from."""

    def trace(self, seed: int) -> Trace:
        """The trace of *seed*."""
        ...


@dataclass(frozen=True)
class Recorded:
    """A trace that is what it is."""

    recorded: Trace

    def trace(self, seed: int) -> Trace:  # noqa: ARG002 - the same for all
        """It."""
        return self.recorded


@dataclass(frozen=True)
class Generated:
    """A trace for each seed."""

    name: str
    inputs: Inputs
    rate: float
    duration: float

    def trace(self, seed: int) -> Trace:
        """The one of *seed*."""
        return generated(self.name, self.inputs, rate=self.rate, duration=self.duration, seed=seed)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run. Seconds, but *hours* of workers; *late* is the share of requests later than the limit."""

    hours: float
    p50: float
    p95: float
    p99: float
    late: float
    most: int
    ordered: int


@dataclass(frozen=True, slots=True)
class Result:
    """Of one setting: what it cost, and means over the seeds. *per_seed*: what they are means of."""

    setting: Setting
    cost: Mean
    hours: Mean
    p50: Mean
    p95: Mean
    p99: Mean
    late: Mean
    most: Mean
    ordered: Mean
    per_seed: tuple[Figures, ...]

    def meets(self, goal: float) -> bool:
        """Whether the share of late answers is at most *goal*, certain to 97.5 %."""
        return self.late.upper <= goal


def compare(
    source: Source,
    settings: Sequence[Setting],
    world: World,
    *,
    seeds: Sequence[int],
    late_after: float,
    price: float = 1.0,
    processes: int | None = None,
    tell: Tell | None = None,
) -> list[Result]:
    """Run every one of *settings* on every one of *seeds*; the same seed is the same trace for all of them.

    An answer is late after *late_after* seconds; *price* is that of a worker for an hour. *processes*: as many as
    there are cores, where that is worth it. *tell* hears of each run that has ended.
    """
    work = [(seed, setting) for seed in seeds for setting in settings]
    run = partial(_figures, source=source, world=world, late_after=late_after)
    if processes is None:
        processes = processes_for(len(source.trace(seeds[0])), len(work), cores=cores())
    got = results_of(run, work, processes=processes, tell=tell)
    return [_result(one, got[place :: len(settings)], price) for place, one in enumerate(settings)]


def processes_for(requests: int, runs: int, *, cores: int) -> int:
    """How many processes are worth their start for so many *runs* of *requests* each, and do not fill the memory."""
    if requests * runs < _WORTH_PROCESSES:
        return 1
    return max(1, min(cores, runs, MOST_AT_ONCE // max(1, requests)))


def pareto(results: Sequence[Result]) -> list[Result]:
    """Those of which no other is both as cheap and as seldom late, the cheapest first."""
    front: list[Result] = []
    for one in sorted(results, key=lambda one: (one.cost.mean, one.late.mean)):
        if not front or one.late.mean < front[-1].late.mean:
            front.append(one)
    return front


def recommended(results: Sequence[Result], *, goal: float) -> tuple[Result, bool]:
    """The cheapest that meets *goal* for certain; where none does, the least late and False. Raises ValueError where
    there are no results.
    """
    if good := [one for one in results if one.meets(goal)]:
        return min(good, key=lambda one: (one.cost.mean, one.late.mean)), True
    return min(results, key=lambda one: (one.late.mean, one.cost.mean)), False


def contenders(results: Sequence[Result], chosen: Result, *, goal: float) -> list[Result]:
    """Those that cost less than *chosen* and may meet *goal*, for all that was simulated, the cheapest first."""
    unsure = [one for one in results if one.late.mean <= goal and not one.meets(goal)]
    return sorted((one for one in unsure if one.cost.mean < chosen.cost.mean), key=lambda one: one.cost.mean)


def _figures(work: tuple[int, Setting], *, source: Source, world: World, late_after: float) -> Figures:
    seed, setting = work
    trace = source.trace(seed)
    return figures_of(simulate(trace, setting, world, seed=seed), late_after)


def figures_of(outcome: Outcome, late_after: float) -> Figures:
    """What is reported of one run. Requests that were never answered are late, and their latency is infinite."""
    latencies = np.nan_to_num(outcome.latencies, nan=np.inf)
    hours = outcome.worker_seconds / 3600
    if not len(latencies):
        return Figures(hours, 0.0, 0.0, 0.0, 0.0, outcome.most, outcome.ordered)
    p50, p95, p99 = (float(one) for one in np.quantile(latencies, [0.5, 0.95, 0.99], method="lower"))
    late = float((latencies > late_after).mean())
    return Figures(hours, p50, p95, p99, late, outcome.most, outcome.ordered)


def _result(setting: Setting, figures: Sequence[Figures], price: float) -> Result:
    hours = [one.hours for one in figures]
    return Result(
        setting=setting,
        cost=mean_of([price * one for one in hours]),
        hours=mean_of(hours),
        p50=mean_of([one.p50 for one in figures]),
        p95=mean_of([one.p95 for one in figures]),
        p99=mean_of([one.p99 for one in figures]),
        late=mean_of([one.late for one in figures]),
        most=mean_of([float(one.most) for one in figures]),
        ordered=mean_of([float(one.ordered) for one in figures]),
        per_seed=tuple(figures),
    )
