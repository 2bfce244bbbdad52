"""The seam for memory: no grant, no receive; and whatever becomes of the messages, all of a grant is given back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from kitchen import QUEUE, Kitchen, kitchen

from dumbwaiter.devices.admission import Admission, Grant
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

MODEL = """
import os, time

class Model:
    max_batch = 4

    def __call__(self, texts: list[str]) -> list[str]:
        if "exit" in texts:
            os._exit(3)
        if "slow" in texts:
            time.sleep(1.0)
        return [text.upper() for text in texts]
"""


class Counting(Admission):
    """Grants at most *at_once* messages, and only while *open* is set."""

    def __init__(self, at_once: int = 100) -> None:
        self.open = asyncio.Event()
        self.at_once = at_once
        self.out = 0
        self.sizes: list[int] = []

    async def acquire(self, want: int, *, polls: bool = False) -> Grant:
        await self.open.wait()
        size = min(want, self.at_once)
        self.out += size
        return Grant(size, self)

    def release(self, grant: Grant, count: int) -> None:
        self.out -= count
        if grant.outstanding == 0:
            self.sizes.append(grant.size)


async def test_without_a_grant_a_message_stays_in_the_queue_with_its_count_untouched(tmp_path: Path) -> None:
    admission = Counting()
    async with kitchen(tmp_path, MODEL, admission=admission) as it:
        asking = asyncio.create_task(it.output("soup"))
        await eventually(lambda: _ready(it, 1))
        admission.open.set()
        assert await asking == "SOUP"
        other = await it.broker.receive(QUEUE, max_messages=1, max_wait=0)
        assert not other


class Hasty(Counting):
    """Its grants are not for waiting."""

    async def acquire(self, want: int, *, polls: bool = False) -> Grant:
        await asyncio.sleep(0.05)
        self.sizes.append(want)
        return Grant(want, self, may_wait=False)


async def test_with_a_grant_that_is_not_for_waiting_the_queue_is_looked_at_and_no_more(tmp_path: Path) -> None:
    admission = Hasty()
    async with kitchen(tmp_path, MODEL, admission=admission) as it:
        await eventually(lambda: len(admission.sizes) > 5)
        assert await it.output("soup") == "SOUP"


async def test_no_more_is_received_than_was_granted(tmp_path: Path) -> None:
    admission = Counting(at_once=1)
    admission.open.set()
    async with kitchen(tmp_path, MODEL, admission=admission) as it:
        answers = await asyncio.gather(*(it.output(f"dish {number}") for number in range(12)))
        assert answers == [f"DISH {number}" for number in range(12)]
    assert set(admission.sizes) == {1}


async def test_every_grant_is_given_back_however_its_messages_end(tmp_path: Path) -> None:
    admission = Counting()
    admission.open.set()
    async with kitchen(tmp_path, MODEL, admission=admission, max_deliveries=2) as it:
        assert await it.output("good") == "GOOD"
        assert (await it.failure("late", deadline=time.time() - 1)).code == "deadline-exceeded"
        assert (await it.failure("no such blob", data_ref="blob:results/others")).code == "bad-input"
        await it.broker.send(QUEUE, [Message(body=b"\xff\xfe", content_type="text/plain")])
        assert (await it.failure("exit")).code == "runner-crashed"
        await it.broker.send(QUEUE, [Message(body=b"slow", content_type="text/plain") for _ in range(8)])
        await eventually(lambda: _locked(it), within=10)
    await eventually(lambda: admission.out == 0, what="every grant to come back")


async def _ready(it: Kitchen, count: int) -> bool:
    stats = await it.broker.stats(QUEUE)
    return stats.ready == count and stats.locked == 0


async def _locked(it: Kitchen) -> bool:
    return (await it.broker.stats(QUEUE)).locked > 0
