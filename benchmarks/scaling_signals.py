"""The tables and pictures of docs/scaling.md: what to scale by, simulated under KEDA, with 2 minutes to a machine.

python benchmarks/scaling_signals.py [SEEDS [FRESH_SEEDS]]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dumbwaiter.plan import picture
from dumbwaiter.plan.actuation import KedaSettings, Machines, Native
from dumbwaiter.plan.comparing import Generated, Result, compare, pareto, recommended
from dumbwaiter.plan.services import Curve, Heavy, Inputs
from dumbwaiter.plan.simulation import Setting, World
from dumbwaiter.plan.statistics import mean_of
from dumbwaiter.policies.scaling import Rules

PICTURES = Path(__file__).parents[1] / "docs" / "img"
MIXES = {"steady": Heavy(3.0, 0.02), "shifting": Heavy(3.0, 0.02, 0.25)}
CURVE = Curve(each=0.15)
MOST = 100
WARM_UP = 900.0
LATE = 30.0
RIVALS = {"steady": ((3, 0.5),), "shifting": ((4, 1), (8, 0.5))}
"""Values of spare, each with the count of messages that comes closest to it."""
FRESH_FROM = 1_001
WORLD = World(CURVE, Machines(boot=110.0, load=10.0), error=0.3, warm_up=WARM_UP)


def settings() -> list[Setting]:
    """What is compared. The HPA may add as many pods as it likes: that suits the message counts."""
    place = KedaSettings(push=True, up_percent=None, up_pods=None)
    base = Rules(max_replicas=MOST, cold_start=WORLD.machines.cold_start)
    tried = [
        Setting(f"KEDA's queue length, {each:g} each", Native(each, max_replicas=MOST), place)
        for each in (0.25, 0.5, 1, 2, 5)
    ]
    tried += [Setting(f"age, {age} s", replace(base, signal="age", age_target=age), place) for age in (5, 10)]
    return tried + [
        Setting(f"work, spare {spare}", replace(base, spare=spare), place) for spare in (1, 2, 3, 4, 5, 6, 8, 12)
    ]


def main(seeds: int, fresh: int) -> None:
    """Print a table for each mix, and draw it; and what the closest ones differ by on seeds that chose nothing."""
    for name in MIXES:
        source = source_of(name)
        results = compare(source, settings(), WORLD, seeds=range(1, seeds + 1), late_after=LATE)
        print(f"\n{name}, {seeds} seeds\n")
        print("| signal | GPU-hours | later than 30 s | p99 | GPUs at the most | started |\n|---|--:|--:|--:|--:|--:|")
        for one in results:
            print(row(one, results))
        chosen, _ = recommended(results, goal=0.01)
        picture.draw(
            PICTURES / f"plan-{name}.svg",
            results,
            chosen=chosen,
            late_after=LATE,
            goal=0.01,
            title=f"{name} mix: GPU-hours of 4 h against lateness",
        )

    print(f"\ndifferences, {fresh} other seeds\n")
    print("| mix | work | instead of | GPU-hours | later than 30 s |\n|---|---|---|--:|--:|")
    for name, rivals in RIVALS.items():
        for spare, each in rivals:
            print(differences(name, spare, each, range(FRESH_FROM, FRESH_FROM + fresh)))


def source_of(name: str) -> Generated:
    """The requests of the mix of this *name*."""
    return Generated("bursts", Inputs(CURVE, MIXES[name]), 15.0, 4 * 3600.0 + WARM_UP)


def differences(name: str, spare: float, each: float, seeds: range) -> str:
    """One line of the last table: by how much the one differs from the other where both meet the same requests."""
    wanted = (f"work, spare {spare}", f"KEDA's queue length, {each:g} each")
    tried = [one for title in wanted for one in settings() if one.name == title]
    work, count = (one.per_seed for one in compare(source_of(name), tried, WORLD, seeds=seeds, late_after=LATE))
    hours = mean_of([ours.hours - theirs.hours for ours, theirs in zip(work, count, strict=True)])
    late = mean_of([100 * (ours.late - theirs.late) for ours, theirs in zip(work, count, strict=True)])
    numbers = f"{hours.mean:+.1f} ± {hours.half or 0.0:.1f} | {late.mean:+.2f} ± {late.half or 0.0:.2f} %"
    return f"| {name} | spare {spare} | {each:g} each | {numbers} |"


def row(one: Result, results: Sequence[Result]) -> str:
    """One line of the table; bold on the Pareto front."""
    name = f"**{one.setting.name}**" if one in pareto(results) else one.setting.name
    hours = f"{one.hours.mean:.1f} ± {one.hours.half or 0.0:.1f}"
    late = f"{one.late.mean * 100:.2f} ± {(one.late.half or 0.0) * 100:.2f} %"
    return f"| {name} | {hours} | {late} | {one.p99.mean:.1f} s | {one.most.mean:.0f} | {one.ordered.mean:.0f} |"


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*(given + [10, 30][len(given) :]))
