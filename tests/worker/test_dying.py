"""A consumer that dies between any two steps: the next one ends the request, and everybody hears the same answer.

Dying is acted by a step that never returns, and a consumer that is cancelled in it: nothing further happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kitchen import QUEUE, kitchen

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs.local import LocalBlobStore
from dumbwaiter.blobs.results import load_result
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import BlobNotFoundError
from dumbwaiter.message import WEBHOOKS_QUEUE, Delivery, Message
from dumbwaiter.notification import read
from dumbwaiter.testing import eventually
from dumbwaiter.worker.consumer import Consumer

pytestmark = pytest.mark.anyio

STEPS = [
    "before events",
    "after events",
    "before saved",
    "after saved",
    "before told",
    "after told",
    "before notified",
    "after notified",
    "before completed",
    "after completed",
]
MODEL = """
import os

class Model:
    def __call__(self, text: str) -> str:
        if text == "bad":
            raise ValueError("I do not like it")
        return f"{os.getpid()} {text}"
"""


class Fate:
    """Lets whoever takes *step* stand still for ever, once."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.reached = asyncio.Event()

    async def at(self, step: str) -> None:
        if step == self.step and not self.reached.is_set():
            self.reached.set()
            await asyncio.Event().wait()


class MortalStore(LocalBlobStore):
    def __init__(self, folder: Path, fate: Fate) -> None:
        super().__init__(f"file://{folder}", folder)
        self.fate = fate

    async def put(self, key: str, data: bytes, *, durable: bool = True) -> None:
        step = "events" if key.startswith("events/") else ""
        await self.fate.at(f"before {step}")
        await super().put(key, data, durable=durable)
        await self.fate.at(f"after {step}")

    async def create(self, key: str, data: bytes) -> None:
        await self.fate.at("before saved")
        await super().create(key, data)
        await self.fate.at("after saved")


class MortalBroker(MemoryBroker):
    fate: Fate

    async def send(self, queue: str, messages: Sequence[Message], *, delay: float = 0.0) -> None:
        step = "notified" if queue == WEBHOOKS_QUEUE else ""
        await self.fate.at(f"before {step}")
        await super().send(queue, messages, delay=delay)
        await self.fate.at(f"after {step}")

    async def reply(self, address: str, messages: Sequence[Message]) -> None:
        await self.fate.at("before told")
        await super().reply(address, messages)
        await self.fate.at("after told")

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        await self.fate.at("before completed")
        await super().complete(deliveries)
        await self.fate.at("after completed")

    async def dead_letter(self, deliveries: Sequence[Delivery], **why: Any) -> None:
        await self.fate.at("before completed")
        await super().dead_letter(deliveries, **why)
        await self.fate.at("after completed")


@pytest.mark.parametrize("text", ["soup", "bad"])
@pytest.mark.parametrize("step", STEPS)
async def test_whoever_dies_at_a_step_leaves_it_to_the_next(tmp_path: Path, step: str, text: str) -> None:
    fate = Fate(step)
    store = MortalStore(tmp_path / "blobs", fate)
    broker = MortalBroker("memory:", lock_duration=0.5)
    broker.fate = fate
    async with kitchen(tmp_path, MODEL, broker=broker, store=store, max_deliveries=1) as it:
        inbox = await it.broker.open_inbox()
        extensions = {"keep": "true", "webhook": "https://hooks.example/"}
        await it.send(text, "one", reply_to=inbox.address, extensions=extensions)
        await asyncio.wait_for(fate.reached.wait(), 20)
        it.running.cancel()
        await asyncio.gather(it.running, return_exceptions=True)
        before = await _stored(store)

        stop = asyncio.Event()
        spec, options = it.consumer._spec, it.consumer._options
        heir = asyncio.create_task(Consumer(broker, store, spec, options).run(stop))
        await eventually(it.is_empty, within=20)
        stop.set()
        await heir

        stands = await load_result(store, "one")
        assert before is None or before.id == stands.id, "an answer that was saved never changes"
        answers = await inbox.receive(max_messages=10, max_wait=5)
        assert {answer.id for answer in answers} == {stands.id}
        notifications = await broker.receive(WEBHOOKS_QUEUE, max_messages=10, max_wait=5)
        assert {read(one.message).id for one in notifications} == {"one"}
        assert len(notifications) == 1, "the broker drops doubles of one message id"
        letters = await broker.dead_letters(QUEUE)
        if text == "bad":
            assert failure_of(stands) is not None
            assert [letter.message.id for letter in letters] == ["one"]
        else:
            assert letters == []


async def _stored(store: LocalBlobStore) -> Message | None:
    try:
        return await load_result(store, "one")
    except BlobNotFoundError:
        return None
