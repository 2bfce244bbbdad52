"""Replies to this process: rows in the file, read as soon as their sender's wake-up arrives."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from dumbwaiter.brokers.contract import Inbox
from dumbwaiter.brokers.sqlite import operations as ops
from dumbwaiter.brokers.sqlite.rows import decode_leniently
from dumbwaiter.brokers.sqlite.waiting import SAFETY_POLL_SECONDS
from dumbwaiter.errors import BrokerClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dumbwaiter.brokers.sqlite.looking import Reader
    from dumbwaiter.message import Message

#: Replies that were taken are deleted along with the next commit, or in one of their own after so long.
_FORGET_SECONDS = 0.2


class SqliteInbox(Inbox):
    """One of *inboxes*. Only this process reads it, so that reading needs no lock; deleting follows later."""

    def __init__(self, inboxes: Inboxes, address: str) -> None:
        self.address = address
        self._inboxes = inboxes
        self._taken = 0
        self._sleepers: set[asyncio.Future[bool]] = set()
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
            if not await self._sleep(min(patience, SAFETY_POLL_SECONDS)):
                self._inboxes.slept_through()

    def _take(self, limit: int) -> list[Message]:
        rows = self._inboxes.reader.replies(self.address, self._taken, limit)
        if not rows:
            return []
        self._taken = rows[-1][0]
        self._inboxes.forget_replies(self.address, self._taken)
        return [decode_leniently(headers, body, None) for _, headers, body in rows]

    async def _sleep(self, seconds: float) -> bool:
        """Whether something woke it before its time."""
        loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[bool] = loop.create_future()
        self._sleepers.add(sleeper)
        timer = loop.call_later(seconds, _end, sleeper, False)
        try:
            return await sleeper
        finally:
            timer.cancel()
            self._sleepers.discard(sleeper)

    def wake(self) -> None:
        """Look again: a reply may have come, or the inbox was closed."""
        for sleeper in self._sleepers:
            _end(sleeper, True)

    def shut(self) -> None:
        """Everything that waits, and every later receive, raises BrokerClosedError."""
        self._is_closed = True
        self.wake()

    async def close(self) -> None:
        if not self._is_closed:
            self.shut()
            await self._inboxes.close_one(self.address)


def _end(sleeper: asyncio.Future[bool], was_woken: bool) -> None:
    if not sleeper.done():
        sleeper.set_result(was_woken)


class Inboxes:
    """All inboxes of one broker. *submit* hands an operation to the writer; *run* also waits for its result.

    *slept_through* is called when a receive had to look by itself, because nothing woke it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        submit: Callable[[ops.Operation], None],
        run: Callable[[ops.Operation], Awaitable[Any]],
        reader: Reader,
        slept_through: Callable[[], None],
    ) -> None:
        self.reader = reader
        self.slept_through = slept_through
        self._loop = loop
        self._submit = submit
        self._run = run
        self._open: dict[str, SqliteInbox] = {}
        self._taken: dict[str, int] = {}

    async def open(self, address: str) -> SqliteInbox:
        """A new inbox; it is known before its address is, so that no wake-up is lost."""
        inbox = self._open[address] = SqliteInbox(self, address)
        try:
            await self._run(ops.OpenInbox(address))
        except BaseException:
            self._open.pop(address, None)
            raise
        return inbox

    def register_again(self) -> None:
        """Whoever could not see this process may have taken it for dead, and its inboxes with it."""
        for address in self._open:
            self._submit(ops.OpenInbox(address))

    def wake(self) -> None:
        """Whoever waits at an inbox looks again."""
        for inbox in self._open.values():
            inbox.wake()

    async def close_one(self, address: str) -> None:
        """Forget an inbox, for SqliteInbox.close()."""
        if self._open.pop(address, None) is not None:
            self._taken.pop(address, None)
            await self._run(ops.CloseInbox(address))

    def close(self) -> None:
        """The broker closes: everything that waits raises BrokerClosedError."""
        for address, inbox in self._open.items():
            inbox.shut()
            self._submit(ops.CloseInbox(address))
        self._open.clear()
        self._taken.clear()

    def forget_replies(self, address: str, seq: int) -> None:
        """Delete the replies of *address* up to *seq* along with the next commit, for SqliteInbox."""
        if not self._taken:
            self._loop.call_later(_FORGET_SECONDS, self.flush)
        self._taken[address] = seq

    def flush(self) -> None:
        """A commit is under way: let it delete what was taken."""
        for address, seq in self._taken.items():
            self._submit(ops.ForgetReplies(address, seq))
        self._taken.clear()
