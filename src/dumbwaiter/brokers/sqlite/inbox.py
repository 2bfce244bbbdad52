"""Replies to this process: rows in the file, read as soon as their sender's wake-up arrives."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dumbwaiter.brokers.contract import Inbox
from dumbwaiter.brokers.sqlite.rows import decode_leniently
from dumbwaiter.brokers.sqlite.waiting import SAFETY_POLL_SECONDS
from dumbwaiter.errors import BrokerClosedError

if TYPE_CHECKING:
    from dumbwaiter.brokers.sqlite.broker import SqliteBroker
    from dumbwaiter.message import Message


class SqliteInbox(Inbox):
    """An inbox of *broker*. Only this process reads it, so that reading needs no lock; deleting follows later."""

    def __init__(self, broker: SqliteBroker, address: str) -> None:
        self.address = address
        self._broker = broker
        self._taken = 0
        self._sleepers: set[asyncio.Future[None]] = set()
        self._is_closed = False

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        give_up_at = time.monotonic() + max_wait
        while True:
            if self._is_closed:
                raise BrokerClosedError("this inbox is closed")
            messages = self._take(max(max_messages, 0))
            patience = give_up_at - time.monotonic()
            if messages or patience <= 0 or max_messages < 1:
                return messages
            await self._sleep(min(patience, SAFETY_POLL_SECONDS))

    def _take(self, limit: int) -> list[Message]:
        rows = self._broker.reader.replies(self.address, self._taken, limit)
        if not rows:
            return []
        self._taken = rows[-1][0]
        self._broker.forget_replies(self.address, self._taken)
        return [decode_leniently(headers, body, None) for _, headers, body in rows]

    async def _sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[None] = loop.create_future()
        self._sleepers.add(sleeper)
        timer = loop.call_later(seconds, _wake, sleeper)
        try:
            await sleeper
        finally:
            timer.cancel()
            self._sleepers.discard(sleeper)

    def wake(self) -> None:
        """Look again: a reply may have come, or the inbox was closed."""
        for sleeper in self._sleepers:
            _wake(sleeper)

    def shut(self) -> None:
        """Everything that waits, and every later receive, raises BrokerClosedError."""
        self._is_closed = True
        self.wake()

    async def close(self) -> None:
        if not self._is_closed:
            self.shut()
            await self._broker.close_inbox(self)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
