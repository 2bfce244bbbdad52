"""A worker declares its model's queue once the class was found, not before: of a typo no queue is left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kitchen import QUEUE, SHOUT, Kitchen, kitchen

from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

MISTYPED = SHOUT.replace("class Model", "class Modle")
BROKEN = """
    import a_package_that_nobody_has

    class Model:
        def __call__(self, text: str) -> str:
            return text
"""
PICKY = """
    class Model:
        def __init__(self):
            raise RuntimeError("no weights in this house")

        def __call__(self, text: str) -> str:
            return text
"""


@pytest.mark.parametrize("code", [MISTYPED, BROKEN])
async def test_of_a_class_that_is_not_there_no_queue_is_left(tmp_path: Path, code: str) -> None:
    async with kitchen(tmp_path, code, wait_ready=False) as it:
        await eventually(lambda: "failing" in it.states)
        assert await it.broker.queues() == []


async def test_a_class_that_cannot_be_constructed_has_its_queue_where_requests_wait(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PICKY, wait_ready=False) as it:
        await eventually(lambda: "failing" in it.states)
        await eventually(lambda: _has_queue(it))


async def test_the_queue_is_there_while_a_model_still_loads(tmp_path: Path) -> None:
    code = """
        import time

        class Model:
            def __init__(self):
                time.sleep(600)

            def __call__(self, text: str) -> str:
                return text
    """
    async with kitchen(tmp_path, code, wait_ready=False) as it:
        await eventually(lambda: _has_queue(it))
        assert set(it.states) == {"loading"}


async def test_what_waited_in_a_queue_that_was_there_is_answered_once_the_typo_is_mended(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with kitchen(tmp_path, MISTYPED, broker=broker, wait_ready=False) as it:
        await it.broker.create_queue(QUEUE)
        await it.broker.send(QUEUE, [Message(body=b"soup", content_type="text/plain")])
        await eventually(lambda: "failing" in it.states)
        assert (await it.broker.stats(QUEUE)).ready == 1


class SlowToDeclare(MemoryBroker):
    """Its queues come to be when *gate* is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def create_queue(self, queue: str) -> None:
        self.asked.set()
        await self.gate.wait()
        await super().create_queue(queue)


async def test_a_model_is_told_to_be_ready_only_when_it_can_be_asked(tmp_path: Path) -> None:
    broker = SlowToDeclare()
    async with kitchen(tmp_path, SHOUT, broker=broker, wait_ready=False) as it:
        await broker.asked.wait()
        await eventually(lambda: it.consumer._keeper.ready)
        assert "ready" not in it.states
        broker.gate.set()
        await eventually(lambda: "ready" in it.states)
        assert await it.output("soup") == "SOUP"


async def _has_queue(it: Kitchen) -> bool:
    return QUEUE in await it.broker.queues()
