"""Closing the memory broker reaches also those that were only about to wait."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import BrokerClosedError
from dumbwaiter.message import Message

pytestmark = pytest.mark.anyio

TURNS = range(4)
"""How many turns of the event loop a call is ahead of the close."""


@pytest.mark.parametrize("turns", TURNS)
async def test_a_receive_that_meets_a_close_locks_nothing_and_does_not_wait(turns):
    url = f"memory://{secrets.token_hex(8)}"
    async with MemoryBroker(url) as other:
        await other.create_queue("q")
        closing = MemoryBroker(url)
        await closing.open()
        receive = asyncio.create_task(closing.receive("q", max_messages=1, max_wait=1000))
        for _ in range(turns):
            await asyncio.sleep(0)
        await other.send("q", [Message(id="m1")])
        await closing.close()
        with pytest.raises(BrokerClosedError, match="not open"):
            await asyncio.wait_for(receive, 5)
        assert [one.message.id for one in await other.receive("q", max_messages=1, max_wait=5)] == ["m1"]


@pytest.mark.parametrize("turns", TURNS)
async def test_an_inbox_that_is_closed_sends_its_reader_away(turns):
    async with MemoryBroker() as broker:
        inbox = await broker.open_inbox()
        receive = asyncio.create_task(inbox.receive(max_messages=1, max_wait=1000))
        for _ in range(turns):
            await asyncio.sleep(0)
        await inbox.close()
        with pytest.raises(BrokerClosedError, match="this inbox is closed"):
            await asyncio.wait_for(receive, 5)
