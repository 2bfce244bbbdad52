"""A worker that was stopped for longer than its lock settles nothing: the server takes an id from anybody."""

from __future__ import annotations

import asyncio
import secrets
import signal

import pytest
from stopping import holding

from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.message import Message

pytestmark = pytest.mark.anyio

LOCK = 2.0


@pytest.mark.parametrize("verb", ["complete", "abandon", "renew"])
async def test_a_holder_that_was_stopped_settles_nothing(server, verb):
    url = f"{server.url}?prefix=t{secrets.token_hex(6)}"
    async with open_broker(url, lock_duration=60.0) as broker:
        await broker.create_queue("q")
        async with holding(url, "q", LOCK) as holder:
            await broker.send("q", [Message(id="one")])
            assert await holder.hears() == "took"
            holder.process.send_signal(signal.SIGSTOP)
            # The server lends it for as long as the connection lives, which it would give up after a minute.
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(30.0):
                while not (new := await _received(broker)):
                    pass
            assert [one.message.id for one in new] == ["one"]
            await asyncio.sleep(LOCK)  # by now its lock has ended for sure
            holder.process.send_signal(signal.SIGCONT)
            assert await holder.told(verb) == "LockLostError"
            assert await broker.receive("q", max_messages=1, max_wait=1.0) == []
            await broker.complete(await broker.renew_lock(new))


async def _received(broker):
    try:
        return await broker.receive("q", max_messages=1, max_wait=5.0)
    except BrokerUnavailableError:
        await asyncio.sleep(0.1)
        return []
