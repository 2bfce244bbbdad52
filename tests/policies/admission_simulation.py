"""Several models on one device, with all that befalls them, in a few milliseconds: seeded, with the real policy.

python tests/policies/admission_simulation.py SEED [events=N]          replays one, with a trace
python tests/policies/admission_simulation.py FIRST LAST [events=N]    runs so many, and says how long waits were
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from admission_parts import FOR_EVER, GIB, RIGHT, BrokenRuleError, Model, Outcome, Switches
from admission_world import Simulation

from dumbwaiter.policies.admission import Device, Rung

#: How long histories are unless told otherwise.
EVENTS = 18


def random_model(name: str, limit: int, dice: random.Random) -> Model:
    context = int(limit * dice.uniform(0.004, 0.03))
    if dice.random() < 0.45:
        weights, need = dice.uniform(0.15, 0.8), dice.uniform(0.01, 0.12)
    else:
        weights, need = dice.uniform(0.01, 0.15), dice.uniform(0.08, 0.7)
    full = context + int(limit * weights)
    seconds = dice.uniform(0.02, 0.5)
    ladder = tuple(
        Rung(2**k, int(limit * need * (1.0 + 0.6 * k)), seconds * (1.0 + 0.5 * k)) for k in range(dice.randint(1, 3))
    )
    reload_seconds = dice.uniform(0.02, 0.3)
    return Model(
        name,
        full=full,
        parked=full if weights < 0.1 and dice.random() < 0.2 else context,
        ladder=ladder,
        load_seconds=reload_seconds * dice.choice((1.0, 1.0, 4.0)),
        reload_seconds=reload_seconds,
        park_seconds=dice.uniform(0.0, 0.1),
        weight=dice.choice((1.0, 1.0, 1.0, 0.5, 3.0)),
    )


def random_world(
    seed: int,
    *,
    switches: Switches = RIGHT,
    trace: Callable[[str], None] | None = None,
) -> Simulation:
    """Two to eight models, most often two or three, with what a seed has in store for them."""
    dice = random.Random(seed)
    capacity = int(dice.choice((4, 6, 8, 16, 80)) * GIB)
    world = Simulation(capacity, seed=seed, switches=switches, trace=trace)
    limit = Device("gpu", capacity).limit
    world.crash_rate = dice.choice((0.0, 0.0, 0.0, 0.1))
    world.hang_rate = dice.choice((0.0, 0.0, 0.0, 0.05))
    for number in range(dice.choice((2, 2, 2, 2, 2, 2, 3, 3, 4, 8))):
        model = random_model("abcdefgh"[number], limit, dice)
        load = dice.random()
        for _ in range(dice.choice((1, 1, 1, 1, 1, 2, 2, 3)) if world.places < 6 else 1):
            work = FOR_EVER if load < 0.5 else dice.randint(0, 4)
            worker = world.add(
                model,
                work=work,
                polls=dice.random() < 0.2,
                probe_seconds=dice.uniform(0.1, 0.5) if dice.random() < 0.1 else 0.0,
            )
            if work < FOR_EVER:
                for _ in range(dice.randint(0, 3)):
                    world.at(dice.random() * 3.0, "arrive", worker.place, dice.randint(1, 6))
    world.disturbed()
    return world


def run_seed(
    seed: int,
    *,
    events: int = EVENTS,
    switches: Switches = RIGHT,
    trace: Callable[[str], None] | None = None,
) -> Outcome:
    """The history of one seed. Raises BrokenRuleError, which names the seed and how to replay it."""
    try:
        return random_world(seed, switches=switches, trace=trace).run(events=events)
    except Exception as error:
        raise BrokenRuleError(
            f"seed {seed}: {error!r}; replay: python tests/policies/admission_simulation.py {seed} events={events}"
        ) from error


def article(
    *, seed: int = 0, switches: Switches = RIGHT, dominated_by: str, trace: Callable[[str], None] | None = None
) -> Simulation:
    """Networks that need 3 GB and 6 GB on 8 GB, both backlogged, two workers of the small one."""
    gb = 10**9
    # What they need is the same; how much of it stays, and how much is a batch's, is not.
    small, big = {"weights": (2.2, 4.8), "activation": (0.5, 1.5), "both": (1.0, 2.5)}[dominated_by]
    world = Simulation(8 * gb, seed=seed, switches=switches, trace=trace, hidden=1.0)
    for name, weights, total, seconds, workers in (("small", small, 3.0, 0.05, 2), ("big", big, 6.0, 0.3, 1)):
        model = Model(
            name,
            full=int(weights * gb),
            parked=int(0.3 * gb),
            ladder=(Rung(1, int((total - weights) * gb), seconds),),
            load_seconds=weights,
            reload_seconds=0.1 * weights,
            park_seconds=0.05 * weights,
        )
        for _ in range(workers):
            world.add(model, work=FOR_EVER)
    world.disturbed()
    return world


def backlogged(weights: dict[str, float], *, need: float, seconds: dict[str, float], workers: int = 1) -> Simulation:
    """Models that never run out of work, each with its weight, and *need* of what the device has for a batch."""
    world = Simulation(10 * GIB, seed=0, is_steady=True)
    for name, weight in weights.items():
        ladder = (Rung(1, int(need * world.device.limit), seconds[name]),)
        model = Model(name, GIB // 4, GIB // 4, ladder, 0.1, 0.1, 0.1, weight)
        for _ in range(workers):
            world.add(model, work=FOR_EVER)
    world.disturbed()
    return world


def main(arguments: list[str]) -> int:
    events = EVENTS
    for argument in arguments[:]:
        if argument.startswith("events="):
            events = int(argument.partition("=")[2])
            arguments.remove(argument)
    if len(arguments) == 1:
        run_seed(int(arguments[0]), events=events, trace=print)
        return 0
    outcomes = [run_seed(seed, events=events) for seed in range(int(arguments[0]), int(arguments[1]))]
    ratios = sorted(ratio for outcome in outcomes for ratio in outcome.waits_over_bound if ratio > 0.0)
    print(  # noqa: T201 - a script that prints
        f"{len(outcomes)} seeds, {sum(o.events for o in outcomes)} events, {sum(o.evictions for o in outcomes)} "
        f"evictions, {sum(o.backfills for o in outcomes)} backfills, {sum(o.errors for o in outcomes)} errors; "
        f"wait / bound: median {ratios[len(ratios) // 2]:.3f}, longest {ratios[-1]:.3f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
