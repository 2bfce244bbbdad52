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
from dumbwaiter.client.door import Cancellation, PredictionStatus
from dumbwaiter.errors import BrokerClosedError, BrokerUnavailableError, PredictionTimeoutError
from dumbwaiter.message import Message, Timings
from dumbwaiter.policies.polling import Pace

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
        assert [event.body async for event in door.follow("r1", 30.0)] == [b"0", b"1", b"2"]


async def test_following_ends_when_the_door_is_closed(store):
    await append(store, "r1", EVENTS[:1])
    async with door_to(store) as door:
        following = door.follow("r1", 30.0)
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


@pytest.mark.parametrize("verb", ["ask", "submit", "submit and keep"])
@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_large_request_lies_in_the_store_once_however_often_it_is_sent(store, monkeypatch, verb, comes_back):
    monkeypatch.setattr("dumbwaiter.asking.repeating._PACE", Pace(0.01, 0.01))
    async with door_to(store) as door:
        await door._broker.create_queue("echo")
        send, tries = door._broker.send, []

        async def away_at_first(queue, messages, *, delay=0.0):
            tries.append([message.data_ref for message in messages])
            if not comes_back or len(tries) < 4:
                raise BrokerUnavailableError("it is away")
            await send(queue, messages, delay=delay)

        monkeypatch.setattr(door._broker, "send", away_at_first)
        message = Message(id="r1", body=b"x" * 5000, content_type="text/plain")
        if verb == "ask":
            with pytest.raises(PredictionTimeoutError if comes_back else BrokerUnavailableError):
                await door.ask("echo", message, timeout=0.5)
        elif comes_back:
            assert (await door.submit("echo", message, keep=verb == "submit and keep", timeout=20.0)).id == "r1"
        else:
            with pytest.raises(BrokerUnavailableError, match="was tried"):
                await door.submit("echo", message, keep=verb == "submit and keep", timeout=0.5)
    (claim,) = await store.list("claims/")
    assert len(tries) >= 4
    assert tries == [[f"blob:{claim}"]] * len(tries)


async def test_without_a_timeout_a_request_is_submitted_once(store, monkeypatch):
    async with door_to(store) as door:
        tries = []

        async def away(queue, messages, *, delay=0.0):
            tries.append(queue)
            raise BrokerUnavailableError("it is away")

        monkeypatch.setattr(door._broker, "send", away)
        with pytest.raises(BrokerUnavailableError):
            await door.submit("echo", Message(id="r1"), keep=True)
    assert tries == ["echo"]


async def test_what_began_and_waits_again_has_the_same_status_as_at_a_gateway(store):
    async with door_to(store) as door:
        await door._broker.create_queue("echo")
        await door.submit("echo", Message(id="r1"), keep=True)
        assert await door.status("r1", "echo") == PredictionStatus(status="starting", queue_position=0)
        await append(store, "r1", EVENTS[:1])
        assert await door.status("r1", "echo") == PredictionStatus(status="processing")
