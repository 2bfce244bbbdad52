"""Following a kept request straight over the broker."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from dumbwaiter.answers import succeeded
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.events import Event, append, event_id
from dumbwaiter.blobs.results import save_result
from dumbwaiter.client.broker_door import BrokerDoor
from dumbwaiter.client.door import Cancellation
from dumbwaiter.errors import BrokerClosedError, BrokerUnavailableError
from dumbwaiter.message import Message, Timings

pytestmark = pytest.mark.anyio

EVENTS = [Event(id=event_id("01000000000ab", n), event="output", data=b"%d" % n) for n in range(3)]


class WorkerBetween:
    """*store*, where a worker writes its last events and its result when a reader has looked once, whichever way."""

    def __init__(self, store):
        self._store = store
        self._has_written = False

    def __getattr__(self, name):
        verb = getattr(self._store, name)
        if name not in {"get", "exists", "list"}:
            return verb

        async def then_write(key):
            try:
                return await verb(key)
            finally:
                if not self._has_written:
                    self._has_written = True
                    await append(self._store, "r1", EVENTS[1:])
                    answer = succeeded(Message(id="r1"), body=b"soup", content_type=None, timings=Timings())
                    await save_result(self._store, "r1", answer, threshold=64)

        return then_write


@pytest.fixture
def store(tmp_path):
    return open_store(f"file:{tmp_path}/blobs")


def door_to(store):
    return BrokerDoor(f"memory://{secrets.token_hex(8)}", store, claim_threshold=1000)


async def test_no_event_is_lost_when_events_and_result_are_written_between_two_looks(store):
    await append(store, "r1", EVENTS[:1])
    async with door_to(WorkerBetween(store)) as door:
        assert [event.body async for event in door.follow("r1")] == [b"0", b"1", b"2"]


async def test_following_ends_when_the_door_is_closed(store):
    await append(store, "r1", EVENTS[:1])
    async with door_to(store) as door:
        following = door.follow("r1")
        await anext(following)
        waiting = asyncio.create_task(anext(following))
        await asyncio.sleep(0)
    with pytest.raises(BrokerClosedError):
        await asyncio.wait_for(waiting, 20)


async def test_a_broker_that_is_away_keeps_nobody_from_cancelling(store, monkeypatch):
    async with door_to(store) as door:

        async def away():
            raise BrokerUnavailableError("it is away")

        monkeypatch.setattr(door._broker, "queues", away)
        assert await door.cancel("r1") is Cancellation.UNKNOWN
        assert (await door.status("r1", None)).status == "canceled"
