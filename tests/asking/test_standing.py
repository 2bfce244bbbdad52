"""Where a kept request without a result stands, as all who tell of it see it."""

from __future__ import annotations

import time

import pytest

from dumbwaiter.asking import standing_of
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.events import Event, append, event_id, new_attempt
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import BrokerUnavailableError, QueueNotFoundError
from dumbwaiter.message import Message

pytestmark = pytest.mark.anyio


@pytest.fixture
async def broker():
    async with MemoryBroker(lock_duration=60.0) as broker:
        await broker.create_queue("echo")
        await broker.send("echo", [Message(id="first"), Message(id="second")])
        yield broker


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/blobs")


async def begin(store, id_):
    start = Event(id=event_id(new_attempt(1, time.time()), 1), event="start", data=b"{}")
    await append(store, id_, [start])


async def test_what_waits_has_its_place_and_what_began_has_none(broker, store):
    assert await standing_of(broker, store, "second", "echo") == (False, 1)
    await begin(store, "second")
    assert await standing_of(broker, store, "second", "echo") == (True, None)


async def test_what_began_and_waits_again_has_begun(broker, store):
    (delivery,) = await broker.receive("echo", max_messages=1, max_wait=1.0)
    await begin(store, "first")
    await broker.abandon([delivery])
    assert await standing_of(broker, store, "first", "echo") == (True, None)


async def test_without_a_model_or_a_broker_that_knows_places_only_the_store_tells(broker, store, monkeypatch):
    assert await standing_of(broker, store, "first", None) == (False, None)
    assert await standing_of(broker, None, "first", None) == (False, None)
    monkeypatch.setattr(broker, "capabilities", Blind())
    assert await standing_of(broker, store, "first", "echo") == (False, None)


class Blind:
    queue_position = False


async def test_without_a_store_what_does_not_wait_has_begun(broker):
    assert await standing_of(broker, None, "second", "echo") == (False, 1)
    await broker.receive("echo", max_messages=2, max_wait=1.0)
    assert await standing_of(broker, None, "second", "echo") == (True, None)


@pytest.mark.parametrize("error", [BrokerUnavailableError("down"), QueueNotFoundError("echo")])
async def test_a_broker_that_cannot_tell_the_place_costs_the_place_alone(broker, store, monkeypatch, error):
    async def cannot_tell(queue, id_):
        raise error

    monkeypatch.setattr(broker, "position", cannot_tell)
    assert await standing_of(broker, store, "second", "echo") == (False, None)
    with pytest.raises(type(error)):
        await standing_of(broker, None, "second", "echo")
