"""Histories of several workers on one device, seeded, with the real tenancy, census and policy.

python tests/devices/sharing/sharing_seeds.py SEED          replays one, with a trace
python tests/devices/sharing/sharing_seeds.py FIRST LAST    runs so many, and says what befell them
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable, Iterable

from sharing_parts import GIB, MIB, RIGHT, BrokenRuleError, Model, Outcome, Switches
from sharing_world import World

from dumbwaiter.policies.admission import Device

FOR_EVER = 10**9


def random_model(name: str, limit: int, dice: random.Random) -> Model:
    """One that fits alone, beside the contexts of others."""
    context = int(limit * dice.uniform(0.004, 0.02))
    if dice.random() < 0.5:
        weights, need = dice.uniform(0.15, 0.6), dice.uniform(0.01, 0.1)
    else:
        weights, need = dice.uniform(0.02, 0.15), dice.uniform(0.1, 0.5)
    takes_one = dice.random() < 0.4
    return Model(
        name=name,
        weight=dice.choice((1.0, 1.0, 1.0, 0.5, 3.0)),
        context=context,
        weights=int(limit * weights),
        parked=None if dice.random() < 0.25 else int(limit * 0.002 * dice.random()),
        need=int(limit * need),
        growth=dice.uniform(0.1, 0.9),
        seconds=dice.uniform(0.02, 0.3),
        target=1 if takes_one else dice.choice((2, 4, 8)),
        takes_one=takes_one,
        load_seconds=dice.uniform(0.1, 0.8),
        move_seconds=dice.uniform(0.02, 0.15),
        is_known=dice.random() < 0.85,
        park_after=dice.choice((0.2, 1.0, 300.0)),
    )


def random_world(seed: int, *, switches: Switches = RIGHT, trace: Callable[[str], None] | None = None) -> World:
    """Two to five models, with what a seed has in store for them."""
    dice = random.Random(seed)
    capacity = int(dice.choice((4, 8, 16, 80)) * GIB)
    outside = int(dice.choice((0.0, 0.0, 0.05)) * capacity)
    world = World(capacity, seed=seed, outside=outside, switches=switches, trace=trace)
    limit = Device("gpu", capacity, outside).limit - 256 * MIB
    world.death_rate = dice.choice((0.0, 0.0, 0.1, 0.3))
    world.failure_rate = dice.choice((0.0, 0.0, 0.0, 0.05))
    for number in range(dice.choice((2, 2, 2, 3, 3, 5))):
        queue = world.add_queue(random_model("abcde"[number], limit, dice))
        for _ in range(dice.choice((1, 1, 1, 2)) if number < 3 else 1):
            world.after(dice.random() * 0.5, lambda queue=queue: world.add_worker(queue))
        if number == 0 and dice.random() < 0.3:
            queue.is_endless = True
            world.arrive(queue, FOR_EVER)
            continue
        for _ in range(dice.randint(1, 3)):
            count = dice.choice((1, 2, 5, 12))
            world.after(dice.random() * 2.0, lambda queue=queue, count=count: world.arrive(queue, count))
    if dice.random() < 0.4:
        for _ in range(dice.randint(1, 4)):
            world.after(dice.random() * 3.0, lambda: befall(world, dice))
    return world


def befall(world: World, dice: random.Random) -> None:
    """Something happens to somebody."""
    if not world.workers:
        return
    worker = dice.choice(world.workers)
    what = dice.random()
    if what < 0.5 and world.death_rate:
        world.kill(worker, whole=what < 0.15)
    elif what < 0.75:
        worker.cancel_wishes()
    else:
        world.fetch(worker)


def live(world: World, *, idle: float = 0.0) -> Outcome:
    """The history: things happen, then all is done that there is to do, and then nothing happens for *idle* seconds."""
    began = world.now
    world.run(began + 3.0)
    world.death_rate = world.failure_rate = 0.0
    while any(queue.pending and not queue.is_endless and not world.is_hopeless(queue) for queue in world.queues):
        world.run(world.now + 1.0)
    world.run(world.now + idle)
    world.outcome.seconds = world.now - began
    return world.outcome


def run_seed(
    seed: int, *, switches: Switches = RIGHT, trace: Callable[[str], None] | None = None, idle: float = 0.0
) -> Outcome:
    """The history of one seed, on a running loop. Raises BrokenRuleError, which tells how to replay it."""
    try:
        return live(random_world(seed, switches=switches, trace=trace), idle=idle)
    except Exception as error:
        raise BrokenRuleError(
            f"seed {seed}: {error!r}; replay: python tests/devices/sharing/sharing_seeds.py {seed}"
        ) from error


def run_seeds(seeds: Iterable[int], *, idle: float = 0.0) -> Outcome:
    """All of them, added up."""
    total = Outcome()
    for seed in seeds:
        total.add(run_seed(seed, idle=idle))
    return total


async def main(arguments: list[str]) -> None:
    if len(arguments) == 1:
        run_seed(int(arguments[0]), trace=print)
        return
    began = time.monotonic()
    outcome = run_seeds(range(int(arguments[0]), int(arguments[1])))
    print(outcome, f"{time.monotonic() - began:.1f} s")  # noqa: T201 - a script that prints


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
