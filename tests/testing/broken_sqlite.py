"""Adapters over a file that break what only a file can promise, or what it is tempting to leave to SQLite."""

from __future__ import annotations

import asyncio
import contextlib

from breaking import Breaks
from msgspec.structs import replace

from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.brokers.sqlite import SqliteBroker
from dumbwaiter.errors import LockLostError

breaks = Breaks()

SURVIVE = "test_confirmed_messages_survive_kill_9_and_restart"


@breaks(SURVIVE)
class ConfirmsBeforeItWrites(SqliteBroker):
    async def send(self, queue, messages, *, delay=0.0):
        self._check_open()
        super_send = super().send
        self.writing = [*getattr(self, "writing", ()), asyncio.create_task(_later(super_send, queue, messages, delay))]

    async def close(self):
        await asyncio.gather(*getattr(self, "writing", ()), return_exceptions=True)
        await super().close()


async def _later(send, queue, messages, delay):
    await asyncio.sleep(0.01)
    await send(queue, messages, delay=delay)


@breaks(SURVIVE)
class ClaimsToBeDurable(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, durable=True)

    def __init__(self, url, *, lock_duration):
        super().__init__("memory://claims-to-be-durable", lock_duration=lock_duration)


@breaks("test_messages_locked_by_a_killed_process_come_back")
class LocksOutliveTheirHolder(SqliteBroker):
    def __init__(self, url, *, lock_duration):
        super().__init__(url, lock_duration=3600.0)


@breaks("test_a_stale_token_does_not_complete_the_next_holders_copy")
class RefusesStaleTokensInSilence(SqliteBroker):
    async def complete(self, deliveries):
        with contextlib.suppress(LockLostError):
            await super().complete(deliveries)


@breaks("test_a_message_arrives_unchanged_with_a_non_utf8_body_and_all_attributes")
class StoresBodiesAsText(SqliteBroker):
    async def send(self, queue, messages, *, delay=0.0):
        text = [replace(message, body=message.body.decode("utf-8", "ignore").encode()) for message in messages]
        await super().send(queue, text, delay=delay)


@breaks("test_a_receivers_close_hands_back_at_once_what_it_held")
class ForgetsWhatItHoldsWhenClosed(SqliteBroker):
    async def close(self):
        self._first_token = self._last_token = 0
        await super().close()


@breaks("test_a_message_wakes_a_receiver_that_waits")
class PollsOnceAMinute(SqliteBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        deliveries = await super().receive(queue, max_messages=max_messages, max_wait=0.0)
        if not deliveries and max_wait:
            await asyncio.sleep(min(max_wait, 60.0))
            deliveries = await super().receive(queue, max_messages=max_messages, max_wait=0.0)
        return deliveries
