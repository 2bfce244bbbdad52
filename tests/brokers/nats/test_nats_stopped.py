"""A worker that was stopped for longer than its lock settles nothing: NATS itself would take it from anybody."""

from __future__ import annotations

import secrets
import signal

import pytest
from stopping import holding

from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import LockLostError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

LOCK = 2.0


@pytest.fixture
async def broker(nats_server):
    async with open_broker(nats_server.url, lock_duration=LOCK) as broker:
        yield broker


@pytest.fixture
async def queue(broker):
    queue = f"stopped-{secrets.token_hex(4)}"
    await broker.create_queue(queue)
    return queue


async def take(broker, queue):
    (delivery,) = await broker.receive(queue, max_messages=1, max_wait=LOCK + 10.0)
    return delivery


@pytest.mark.parametrize("verb", ["complete", "abandon", "renew"])
async def test_a_holder_that_was_stopped_settles_nothing(nats_server, broker, queue, verb):
    async with holding(nats_server.url, queue, LOCK) as holder:
        await broker.send(queue, [Message(id="one")])
        assert await holder.hears() == "took"
        holder.process.send_signal(signal.SIGSTOP)
        again = await take(broker, queue)
        assert (again.message.id, again.delivery_count) == ("one", 2)
        holder.process.send_signal(signal.SIGCONT)
        assert await holder.told(verb) == "LockLostError"
        stats = await broker.stats(queue)
        assert (stats.ready, stats.locked) == (0, 1)
        await broker.complete(await broker.renew_lock([again]))
        assert (await broker.stats(queue)).locked == 0


async def test_what_came_while_a_receiver_was_stopped_is_not_its_own(nats_server, broker, queue):
    """It lay unread in its socket until the server gave it to somebody else."""
    async with holding(nats_server.url, queue, LOCK) as holder:
        holder.process.send_signal(signal.SIGSTOP)
        await broker.send(queue, [Message(id="one")])
        again = await take(broker, queue)
        assert again.message.id == "one"
        holder.process.send_signal(signal.SIGCONT)
        await broker.complete(await broker.renew_lock([again]))
        await broker.send(queue, [Message(id="two")])
        assert await holder.hears() == "took"  # not "one", which would have been first
        assert await holder.told("complete") == "done"
        stats = await broker.stats(queue)
        assert (stats.ready, stats.locked) == (0, 0)


async def test_a_holder_that_only_works_for_long_keeps_its_lock(nats_server, broker, queue):
    async with holding(nats_server.url, queue, LOCK) as holder:
        await broker.send(queue, [Message(id="one")])
        assert await holder.hears() == "took"
        for _ in range(3):
            assert await broker.receive(queue, max_messages=1, max_wait=LOCK / 2) == []
            assert await holder.told("renew") == "done"
        assert await holder.told("complete") == "done"


async def test_a_hand_back_that_took_longer_than_the_servers_lock_settles_nothing(
    nats_server, broker, queue, monkeypatch
):
    """Its copy was confirmed so late that the message is with the next holder by then."""
    async with open_broker(nats_server.url, lock_duration=LOCK) as slow:
        await broker.send(queue, [Message(id="one")])
        held, new = await take(slow, queue), []
        publish = slow._holding._publish

        async def slowly(questions):
            new.append(await take(broker, queue))
            await publish(questions)

        monkeypatch.setattr(slow._holding, "_publish", slowly)
        with pytest.raises(LockLostError):
            await slow.abandon([held], counted=False)
        assert [one.message.id for one in await broker.renew_lock(new)] == ["one"]

        async def is_still_the_next_holders():
            return (await broker.stats(queue)).locked == 1

        # The server may count what it gives and takes back at this moment twice.
        await eventually(is_still_the_next_holders)
