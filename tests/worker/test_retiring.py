"""A worker that is told to retire takes nothing more, lets what runs end however long that takes, and leaves."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from kitchen import QUEUE, Kitchen, kitchen

from dumbwaiter.blobs.presence import workers_of
from dumbwaiter.blobs.profiles import load_profile
from dumbwaiter.config import WorkerSettings
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

#: It runs until it is let go; "quick" does not wait.
PATIENT = """
import time
from pathlib import Path

class Model:
    def __call__(self, text: str) -> str:
        if text != "quick":
            Path(__file__).with_name("begun").touch()
            while not Path(__file__).with_name("go").exists():
                time.sleep(0.01)
        return text.upper()
"""
GRACE = 0.4


async def begun(it: Kitchen, folder: Path, *more: str) -> None:
    """One input runs, and *more* are in the queue or in hand."""
    await it.send("long", "one")
    await eventually((folder / "begun").exists)
    for text in more:
        await it.send(text, text)


async def test_what_runs_ends_although_it_takes_longer_than_the_grace(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PATIENT, options=WorkerSettings(grace=GRACE)) as it:
        await begun(it, tmp_path)
        it.retire.set()
        await eventually(lambda: "draining" in it.states)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2 * GRACE):
                await asyncio.shield(it.running)
        (tmp_path / "go").touch()
        assert (await it.result("one", within=5.0)).body == b"LONG"
        await it.running
        assert await it.is_empty()
        assert await workers_of(it.store, QUEUE) == []


async def test_what_has_not_started_goes_back_at_once_and_nothing_more_is_taken(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PATIENT) as it:
        await begun(it, tmp_path, "quick")
        it.retire.set()

        async def handed_back() -> bool:
            stats = await it.broker.stats(QUEUE)
            return (stats.ready, stats.locked) == (1, 1)

        await eventually(handed_back)
        await it.send("quick", "late")
        (delivery,) = await it.broker.receive(QUEUE, max_messages=1, max_wait=0.0)
        assert (delivery.message.id, delivery.delivery_count) == ("quick", 1), "it was not counted"
        await it.broker.complete([delivery])
        (tmp_path / "go").touch()
        await it.running
        stats = await it.broker.stats(QUEUE)
        assert (stats.ready, stats.locked) == (1, 0), "nobody has touched the late one"


async def test_one_that_has_nothing_to_do_leaves_at_once(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PATIENT) as it:
        assert (await it.ask("quick")).body == b"QUICK"
        started = time.monotonic()
        it.retire.set()
        await it.running
        assert time.monotonic() - started < 5.0


async def test_one_that_still_loads_does_not_load_to_the_end(tmp_path: Path) -> None:
    slow = "import time\nclass Model:\n    def __init__(self): time.sleep(1000)\n"
    code = f"{slow}    def __call__(self, t: str) -> str: ..."
    async with kitchen(tmp_path, code, wait_ready=False) as it:
        await eventually(lambda: it.states == ["loading"])
        it.retire.set()
        await it.running


async def test_sigterm_means_what_it_always_means_also_while_it_retires(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PATIENT, options=WorkerSettings(grace=GRACE)) as it:
        await begun(it, tmp_path)
        it.retire.set()
        await eventually(lambda: "draining" in it.states)
        it.stop.set()
        await it.running
        stats = await it.broker.stats(QUEUE)
        assert (stats.ready, stats.locked) == (1, 0), "the grace is over, so it was handed back"


async def test_and_so_does_the_second_one(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PATIENT, options=WorkerSettings(grace=60.0)) as it:
        await begun(it, tmp_path)
        it.retire.set()
        await eventually(lambda: "draining" in it.states)
        it.stop.set()
        it.hurry.set()
        await it.running
        assert (await it.broker.stats(QUEUE)).ready == 1


async def test_a_runner_that_dies_while_its_worker_retires_gives_back_what_it_had(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PATIENT) as it:
        await begun(it, tmp_path)
        pid = it.runner_pid
        it.retire.set()
        await eventually(lambda: "draining" in it.states)
        import os
        import signal

        os.kill(pid, signal.SIGKILL)
        await it.running
        stats = await it.broker.stats(QUEUE)
        assert (stats.ready, stats.locked) == (1, 0)


async def test_what_it_has_done_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dumbwaiter.blobs.presence.ANNOUNCE_EVERY", 0.05)
    (tmp_path / "go").touch()
    async with kitchen(tmp_path, PATIENT) as it:
        for text in ("a", "b", "quick"):
            await it.ask(text)

        async def told() -> bool:
            (status,) = await workers_of(it.store, QUEUE)
            return (
                status.settled == 3 and status.in_hand == 0 and status.work_seconds > 0.0 and status.load_seconds > 0.0
            )

        await eventually(told)


async def test_what_it_measured_outlives_it_also_what_it_did_in_its_last_moments(tmp_path: Path) -> None:
    """The next announcement of its own accord is 5 s away, and what takes as long as ever is no news before."""
    code = (
        "import time\nclass Model:\n    def __call__(self, t: str) -> str:\n        time.sleep(0.2)\n        return t"
    )
    async with kitchen(tmp_path, code) as it:
        await eventually(lambda: load_profile(it.store, QUEUE))
        for text in ("a", "b", "c", "d"):
            await it.ask(text)
        it.retire.set()
        await it.running
        profile = await load_profile(it.store, QUEUE)
        assert 0.0 < profile.load_seconds < 30.0
        assert profile.seconds_each(time.time()) < 5.0
        assert profile.batches.total == pytest.approx(4.0, abs=0.01)


async def test_a_failed_input_has_left_the_queue_too_and_one_that_is_tried_again_has_not(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("dumbwaiter.blobs.presence.ANNOUNCE_EVERY", 0.05)
    code = "class Model:\n    def __call__(self, t: str) -> str:\n        raise ValueError(t)"
    async with kitchen(tmp_path, code, max_deliveries=3) as it:
        await it.failure("wrong")
        settler = it.consumer._settler
        await eventually(it.is_empty)
        assert settler.settled_count == 1
