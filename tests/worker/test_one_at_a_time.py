"""Models that take one input at a time: when their answers leave, and how many messages their workers hold."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kitchen import QUEUE, kitchen

from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

BLOCKING = """
import time
from pathlib import Path

class Model:
    def __call__(self, text: str) -> str:
        if text.startswith("block"):
            while not Path({release!r}).exists():
                time.sleep(0.01)
        elif text.startswith("slow"):
            time.sleep(0.2)
        return text
"""


class Gate:
    """Inputs that block go on while it is open."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def code(self) -> str:
        return BLOCKING.format(release=str(self._file))

    def open(self) -> None:
        self._file.touch()

    def close(self) -> None:
        self._file.unlink()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "release")


async def test_a_slow_models_answer_leaves_before_the_next_input_has_run(tmp_path: Path, gate: Gate) -> None:
    async with kitchen(tmp_path, gate.code) as it:
        await it.output("slow once, so that it is known")
        first = asyncio.create_task(it.output("slow"))
        second = asyncio.create_task(it.output("block"))
        assert await first == "slow"
        assert not second.done()
        gate.open()
        assert await second == "block"


async def test_a_quick_models_answers_leave_although_the_next_input_takes_long(tmp_path: Path, gate: Gate) -> None:
    async with kitchen(tmp_path, gate.code) as it:
        await asyncio.gather(*(it.output("quick") for _ in range(100)))
        for _ in range(5):
            quick = [asyncio.create_task(it.output("quick")) for _ in range(20)]
            blocked = asyncio.create_task(it.output("block"))
            await asyncio.gather(*quick)
            assert not blocked.done()
            gate.open()
            await blocked
            gate.close()


async def test_a_slow_model_holds_one_message_beside_the_one_that_runs(tmp_path: Path, gate: Gate) -> None:
    async with kitchen(tmp_path, gate.code) as it:
        await it.output("slow once, so that it is known")
        for number in range(6):
            await it.send("block", f"blocked-{number}")

        async def two_are_locked() -> bool:
            return (await it.broker.stats(QUEUE)).locked == 2

        await eventually(two_are_locked, within=20.0, what="two messages in hand")
        await asyncio.sleep(0.3)  # it does not pull the rest a moment later
        stats = await it.broker.stats(QUEUE)
        assert (stats.locked, stats.ready) == (2, 4)
        gate.open()
        for number in range(6):
            assert (await it.result(f"blocked-{number}")).body == b"block"


async def test_a_worker_that_knows_nothing_yet_leaves_the_rest_to_others(tmp_path: Path, gate: Gate) -> None:
    async with kitchen(tmp_path, gate.code) as it:
        for number in range(6):
            await it.send("block", f"blocked-{number}")

        async def two_are_locked() -> bool:
            return (await it.broker.stats(QUEUE)).locked == 2

        await eventually(two_are_locked, within=20.0, what="two messages in hand")
        await asyncio.sleep(0.3)
        assert (await it.broker.stats(QUEUE)).locked == 2
        gate.open()
