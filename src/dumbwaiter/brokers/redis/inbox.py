"""Replies: one stream for all inboxes of a broker object, read over one blocking connection.

The set of open inboxes is the proof that somebody reads: it lives OWNER_SECONDS unless its owner renews it. Reading
takes nothing away: what was read is deleted with a later read, so a lost connection loses no reply.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from redis.exceptions import ResponseError

from dumbwaiter.brokers.inboxes import LineInbox
from dumbwaiter.brokers.redis.connection import Argument, Pipeline, Wire, pack
from dumbwaiter.brokers.redis.errors import of_reply
from dumbwaiter.brokers.redis.keys import inbox_address, inbox_keys, read_fields
from dumbwaiter.brokers.redis.location import Location
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BadInputError, BrokerError, BrokerUnavailableError
from dumbwaiter.message import Message
from dumbwaiter.policies.backing_off import back_off
from dumbwaiter.tasks import end

OWNER_SECONDS = 60.0
RENEW_EVERY = 15.0
REPLY_SECONDS = 300.0
"""How long a stream of replies outlives its last one, for when its owner has died."""
AT_ONCE = 100
AFTER_READERS = 4
"""Turns of the event loop for those whose replies came, before more are asked for: that write takes a while."""
SWEEP_COUNT, SWEEP_NBYTES = 100, 1024 * 1024
"""What was read is deleted as soon as it is so much: each deletion is a write, which a careful server syncs to disk."""

_log = logging.getLogger(__name__)


class Mailbox:
    """All inboxes of the broker object *owner*."""

    def __init__(self, location: Location, pipeline: Pipeline, owner: str, *, require_open: Callable[[], None]) -> None:
        self._prefix, self._owner = location.prefix, owner
        self._keys = inbox_keys(location.prefix, owner)
        self._pipeline = pipeline
        self._require_open = require_open
        self._wire = Wire(location)
        self._inboxes: dict[int, RedisInbox] = {}
        self._count = 0
        self._forgotten: set[int] = set()
        self._last = "0-0"
        self._read_ids: list[bytes] = []
        self._read_nbytes = 0
        self._renew_at = 0.0
        self._reading: asyncio.Task[None] | None = None
        self.failure: BrokerUnavailableError | None = None

    async def open(self) -> RedisInbox:
        """A new inbox. Raises BrokerUnavailableError."""
        self._count += 1
        number = self._count
        await asyncio.gather(*(self._pipeline.ask(*command) for command in self._ownership([number])))
        inbox = self._inboxes[number] = RedisInbox(
            self, number, inbox_address(self._prefix, self._owner, number), require_open=self._require_open
        )
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read_all())
        return inbox

    async def forget(self, number: int) -> None:
        """Close the inbox *number*. When the server cannot be told now, it is told as soon as it is back."""
        if self._inboxes.pop(number, None) is None:
            return
        self._forgotten.add(number)
        await self._pipeline.ask("SREM", self._keys.open, number)
        self._forgotten.discard(number)

    async def close(self) -> None:
        """Close all inboxes. Raises BrokerUnavailableError; the server forgets them by itself then, a bit later."""
        inboxes = list(self._inboxes.values())
        self._inboxes.clear()
        for inbox in inboxes:
            inbox.dismiss()
        await end([self._reading])
        await self._wire.disconnect()
        if self._count:
            await self._pipeline.ask("DEL", *self._keys)

    def _ownership(self, numbers: Sequence[int]) -> list[tuple[Argument, ...]]:
        return [("SADD", self._keys.open, *numbers), ("PEXPIRE", self._keys.open, int(1000 * OWNER_SECONDS))]

    async def _read_all(self) -> None:
        failures = 0
        while True:
            try:
                if await self._wire.connect():
                    self._renew_at = 0.0  # a server that was started anew may have forgotten whose the inboxes are
                await self._read()
                for _ in range(AFTER_READERS):
                    await asyncio.sleep(0)
                failures, self.failure = 0, None
            except BrokerUnavailableError as error:
                failures, self.failure = failures + 1, error
                await asyncio.sleep(back_off(failures, first=0.05, longest=1.0))

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        commands: list[tuple[Argument, ...]] = []
        swept = self._read_ids if len(self._read_ids) >= SWEEP_COUNT or self._read_nbytes >= SWEEP_NBYTES else []
        if swept:
            commands.append(("XDEL", self._keys.replies, *swept))
        forgotten = tuple(self._forgotten)
        if forgotten:
            commands.append(("SREM", self._keys.open, *forgotten))
        renews = loop.time() >= self._renew_at and bool(self._inboxes)
        if renews:
            commands += self._ownership(list(self._inboxes))
            self._renew_at = loop.time() + RENEW_EVERY
        wait = max(0.001, min(self._renew_at - loop.time(), RENEW_EVERY)) if self._inboxes else RENEW_EVERY
        block = int(1000 * wait) or 1
        commands.append(("XREAD", "COUNT", AT_ONCE, "BLOCK", block, "STREAMS", self._keys.replies, self._last))
        answers = await self._wire.exchange(pack(commands), len(commands), wait=wait)
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise of_reply(answer, self._wire.where)
        if swept:
            self._read_ids, self._read_nbytes = [], 0
        self._forgotten.difference_update(forgotten)
        for _, entries in answers[-1] or ():
            self._sort(entries)

    def _sort(self, entries: list[tuple[bytes, list[bytes]]]) -> None:
        """Each reply into its inbox."""
        replies: dict[int, list[Message]] = {}
        for id_, fields in entries:
            self._read_ids.append(id_)
            self._last = id_.decode()
            self._read_nbytes += sum(map(len, fields))
            try:
                number, (attributes, body) = int(fields[1]), read_fields(fields[2:])
                replies.setdefault(number, []).append(from_attributes(attributes, body))
            except (BadInputError, ValueError, IndexError) as error:
                # Whoever may write to the server may write here too.
                _log.warning("reply %s to %s is dropped, for it is none: %s", self._last, self._owner, error)
        for number, messages in replies.items():
            if number in self._inboxes:
                self._inboxes[number].put(messages)


class RedisInbox(LineInbox):
    """Inbox *number* of a broker object's *mailbox*."""

    def __init__(self, mailbox: Mailbox, number: int, address: str, *, require_open: Callable[[], None]) -> None:
        super().__init__(address, require_open=require_open)
        self._mailbox = mailbox
        self._number = number

    async def close(self) -> None:
        self.dismiss()
        await self._mailbox.forget(self._number)

    def _fault_since(self, failures: int) -> BrokerError | None:  # noqa: ARG002 - it reconnects, and no reply is lost
        return self._mailbox.failure
