"""What to make of the results, in words: what is recommended, or why nothing is and what would change that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dumbwaiter.plan.comparing import Recorded, Result, Source, contenders
from dumbwaiter.plan.report import three_digits
from dumbwaiter.plan.simulation import World
from dumbwaiter.plan.traces import Trace

ENOUGH = 1000
"""Requests, over all seeds. Of fewer, a share of late answers says next to nothing."""


def warnings(source: Source, requests: int, seeds: int) -> list[str]:
    """What makes any recommendation doubtful, for *requests* of *source* a seed."""
    asked = requests if isinstance(source, Recorded) else requests * seeds
    if asked >= ENOUGH:
        return []
    more = "a longer TRACE" if isinstance(source, Recorded) else "a longer --duration"
    return [f"{asked:,} requests are too few to recommend anything by; take {more}, with {ENOUGH:,} at least"]


@dataclass(frozen=True, slots=True)
class Wish:
    """At most the share *goal* of the answers later than *late_after* seconds."""

    goal: float
    late_after: float


def verdict(
    results: Sequence[Result], chosen: Result, wish: Wish, source: Source, world: World, *, is_good: bool
) -> str:
    """What is *chosen*, or why nothing *is_good* and what would change that."""
    said = f"at most {wish.goal * 100:g} % of the answers later than {wish.late_after:g} s"
    more = "more --seeds" if isinstance(source, Recorded) else "more --seeds or a longer --duration"
    if is_good:
        unsure = _unsure(contenders(results, chosen, goal=wish.goal), more)
        if len(chosen.per_seed) == 1:
            return f"The cheapest that had {said} is: {chosen.setting.name}. It is one run: others may differ."
        return f"The cheapest that is certain to have {said} is: {chosen.setting.name}.{unsure}"
    if any(one.late.mean <= wish.goal for one in results):
        return f"None has {said} for certain, but some may: the intervals are too wide. Give {more}."
    causes = " ".join(_causes(chosen, wish, source.trace(1), world))
    return f"None has {said}; the least late is: {chosen.setting.name}. {causes}"


def _unsure(cheaper: Sequence[Result], more: str) -> str:
    """Which are *cheaper* and nobody can tell yet whether they are good enough, the cheapest by name."""
    if not cheaper:
        return ""
    first, *others = cheaper
    name = f"{first.setting.name} ({three_digits(first.cost.mean)})"
    if others:
        return f" {name} and {len(others)} more cost less and may have it too: {more} would tell."
    return f" {name} costs less and may have it too: {more} would tell."


def _causes(chosen: Result, wish: Wish, trace: Trace, world: World) -> list[str]:
    """Why the least late is late, and what to do, the surest first."""
    alone = trace.each + world.curve.fixed + world.transit
    slow = float(np.mean(alone > wish.late_after)) if len(trace) else 0.0
    if slow > wish.goal:
        who = "The model itself takes" if world.transit == 0.0 else "The model and the --transit take"
        return [f"{who} longer than that for {slow * 100:.3g} % of the inputs: raise --late."]
    found = []
    most, runs = chosen.setting.rules.max_replicas, len(chosen.per_seed)
    if full := sum(one.most >= most for one in chosen.per_seed):
        often = f" in {full} of {runs} runs" if runs > 1 else ""
        found.append(f"It had all of its {most} workers{often}: raise --max-replicas.")
    coming = world.machines.cold_start
    if not found or coming > wish.late_after:
        found.append(
            f"A worker takes {coming:g} s to come: shorten --boot or --load, or keep more than are needed, with a"
            " larger --spare or --min-replicas."
        )
    return found


def heading(model: str | None) -> str:
    """What to say above the table to paste."""
    if model is None:
        return "For dumbwaiter.toml; [scaling] scales every model there, so plan with --model NAME for one of them:"
    return f"For dumbwaiter.toml, in place of the table of {model} if it is there already:"
