"""kill -9 of workers and runners that share a device, whatever they do just then.

The memory of the dead is given out again soon after the device has freed it and not before, and each message is
answered once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import subprocess
import time
from collections import Counter as Counted
from dataclasses import dataclass, field

import pytest
from sharing_kitchen import Counter, Kitchen, Watch, kitchen_in_memory, runners_of

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs.results import load_result
from dumbwaiter.devices.ledger import Ledger, LedgerBusyError
from dumbwaiter.policies.admission import Seat
from dumbwaiter.testing import eventually

pytestmark = [pytest.mark.anyio]

#: Weights of 7 GiB in all and activations of up to 3 on a device of 8: they park, wake, and are ended and loaded.
MODELS = {
    "ada": (1.0, 2.0, 0.05, "Movable"),
    "bea": (1.5, 3.0, 0.08, "Movable"),
    "cleo": (2.5, 2.0, 0.06, "Movable"),
    "dora": (2.0, 1.5, 0.05, "Fixed"),
}
MOMENTS = ("running", "loading", "probing", "parking", "polling", "any", "turn")
FREES_AFTER = 0.2
GIVEN_BACK_WITHIN = 1.0


@dataclass
class Quarantine:
    """How long seats of the dead stay after the device has freed all memory of dead processes."""

    kitchen: Kitchen
    longest: float = 0.0
    seen: set[str] = field(default_factory=set)
    _since: dict[tuple[int, Seat], float] = field(default_factory=dict)

    async def look_on(self, until: asyncio.Event) -> None:
        while not until.is_set():
            self._look()
            await asyncio.sleep(0.02)

    def _look(self) -> None:
        is_freed = all(share.back_at is None for share in self.kitchen.device.record().shares.values())
        dead = self.kitchen.all_seats()[1]
        now = time.monotonic()
        self.seen.update(seat.doing for seat in dead.values())
        mourned = {(place, seat) for place, seat in dead.items()} if is_freed else set()
        self._since = {one: self._since.get(one, now) for one in mourned}
        self.longest = max([self.longest, *(now - since for since in self._since.values())])


class Killer:
    """Kills workers and runners, by *luck*, at the moments that it is told; *kills* counts what they were doing."""

    def __init__(self, kitchen: Kitchen, luck: random.Random) -> None:
        self.kills: Counted[str] = Counted()
        self._kitchen = kitchen
        self._luck = luck
        self._workers: dict[str, subprocess.Popen[bytes]] = {}

    def start_all(self) -> None:
        for name in MODELS:
            self._workers[name] = self._kitchen.start(name)

    async def kill(self, moment: str) -> None:
        """One of them, while it does what is called *moment*, or if nobody does within a second whatever it does."""
        name, did = await self._find(moment)
        worker = self._workers[name]
        runners = runners_of(worker)
        if moment == "turn" and self._is_stopped_in_turn(worker):
            self._kill(name, worker, f"worker {did} in a turn")
        elif runners and self._luck.random() < 0.5:
            runners[0].kill()
            self.kills[f"runner {did}"] += 1
        else:
            self._kill(name, worker, f"worker {did}")

    def _kill(self, name: str, worker: subprocess.Popen[bytes], what: str) -> None:
        worker.kill()
        worker.wait()
        self._kitchen.workers.remove(worker)
        self.kills[what] += 1
        if self._luck.random() < 0.2:  # the next runners have to be measured again
            shutil.rmtree(self._kitchen.folder / "footprints", ignore_errors=True)
        self._workers[name] = self._kitchen.start(name)

    async def _find(self, moment: str) -> tuple[str, str]:
        give_up_at = time.monotonic() + 1.0
        while moment not in {"any", "turn"} and time.monotonic() < give_up_at:
            found = [seat for seat in self._kitchen.seats().values() if seat.doing == moment]
            if found:
                return self._luck.choice(found).model, moment
            await asyncio.sleep(0.005)
        name = self._luck.choice(list(MODELS))
        return name, next((seat.doing for seat in self._kitchen.seats().values() if seat.model == name), "starting")

    def _is_stopped_in_turn(self, worker: subprocess.Popen[bytes]) -> bool:
        """Whether it could be stopped in the middle of a turn at the ledger; else it goes on."""
        for _ in range(300):
            worker.send_signal(signal.SIGSTOP)
            if not self._can_have_a_turn():
                return True
            worker.send_signal(signal.SIGCONT)
            time.sleep(self._luck.random() * 0.002)
        return False

    def _can_have_a_turn(self) -> bool:
        try:
            ledger = Ledger.look(self._kitchen.ledger_path, record=Seat, patience=0.1)
            with contextlib.closing(ledger), ledger.turn():
                return True
        except LedgerBusyError:
            return False


async def kept_answers(counter: Counter) -> dict[str, bytes]:
    found = {}
    for name in counter.placed:
        answer = await load_result(counter.store, name)
        assert failure_of(answer) is None, answer.body
        found[name] = answer.body
    return found


async def rehearse(kitchen: Kitchen, kills: int, *, pause: float, seed: int) -> None:
    """So many kills under load, and what has to be true after them."""
    for name, (weights, activation, seconds, kind) in MODELS.items():
        kitchen.add(name, weights, activation, seconds, kind=kind, max_deliveries=1000)
    luck = random.Random(seed)
    killer, quarantine, watch = Killer(kitchen, luck), Quarantine(kitchen), Watch(kitchen, "bea")
    done = asyncio.Event()
    killer.start_all()
    async with kitchen.open() as counter:
        feeding = asyncio.create_task(counter.keep_busy(list(MODELS), float("inf"), backlog=16, kept=True))
        watching = asyncio.create_task(watch.look_on(float("inf")))
        mourning = asyncio.create_task(quarantine.look_on(done))
        await eventually(lambda: len(kitchen.seats()) == len(MODELS), within=60.0)
        for number in range(kills):
            await killer.kill(MOMENTS[number % len(MOMENTS)])
            await asyncio.sleep(luck.random() * 2 * pause)
        feeding.cancel()
        await counter.all_answered(within=120.0)
        answers = await kept_answers(counter)
        for name, bodies in counter.bodies.items():
            assert set(bodies) == {answers[name]}, f"{name} was told more than one answer"
        for name in MODELS:
            stats = await counter.broker.stats(name)
            assert stats.dead == 0, [letter.detail for letter in await counter.broker.dead_letters(name)]
        kitchen.stop_all()
        done.set()
        await mourning
        watching.cancel()
    report = f"{dict(killer.kills)}; {len(answers)} answers; dead seats stayed for {quarantine.longest:.2f} s at most"
    kitchen.assert_never_out_of_memory()
    assert not watch.overcommitted, watch.overcommitted[0]
    assert quarantine.longest <= GIVEN_BACK_WITHIN, report
    assert kitchen.all_seats() == ({}, {})
    await eventually(lambda: kitchen.device.used() == 0, within=2.0)


@pytest.mark.timeout(120)
async def test_a_killed_runner_and_a_killed_worker_cost_nobody_an_answer() -> None:
    with kitchen_in_memory(context="64MiB", frees_after="200ms", load="8GB") as kitchen:
        kitchen.add("ada", 1.0, 2.0, 0.05, footprint="3GiB", max_deliveries=10)
        worker = kitchen.start("ada")
        async with kitchen.open() as counter:
            await counter.place("ada", [{}] * 80)
            await eventually(lambda: len(counter.served.ran) >= 8, within=30.0)
            runners_of(worker)[0].kill()
            await eventually(lambda: len(counter.served.ran) >= 24, within=30.0)
            worker.kill()
            worker.wait()
            kitchen.start("ada")
            await counter.all_answered()
            assert not counter.served.failures
        kitchen.assert_never_out_of_memory()


@pytest.mark.trial
@pytest.mark.timeout(1200)
async def test_300_kills_over_commit_nothing_and_every_message_is_answered_once() -> None:
    with kitchen_in_memory(context="64MiB", frees_after=f"{FREES_AFTER * 1000:.0f}ms", load="8GB") as kitchen:
        await rehearse(kitchen, 300, pause=0.5, seed=1)
