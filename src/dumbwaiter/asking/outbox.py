"""Sending in groups: while one ``send`` to a queue is on its way, the next messages for it gather behind it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from dumbwaiter.errors import BrokerClosedError, MessageTooLargeError, QueueNotFoundError
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from dumbwaiter.asking.claims import Claims
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.message import Message

MAX_SEND = 256
"""At most this many messages in one send, so that a flood does not become one endless transaction."""


class Entry(NamedTuple):
    """A message on its way out and whom to tell."""

    message: Message
    future: asyncio.Future[Any]
    confirms: bool
    """True: *future* is done when the broker has confirmed; False: only errors of the send reach it."""
    owns_body: bool = True
    """Whether the body that *message* claims goes with it when it is never sent."""


class Outbox:
    """Groups what is sent to one queue. It holds the bodies of its entries in *claims*, where they own them.

    *on_unsent* is called with each message that was not sent, or not for certain.
    """

    def __init__(self, broker: Broker, claims: Claims, *, on_unsent: Callable[[Message], object]) -> None:
        self._broker = broker
        self._claims = claims
        self._on_unsent = on_unsent
        self._entries: defaultdict[str, list[Entry]] = defaultdict(list)
        self._senders: dict[str, asyncio.Task[None]] = {}

    def put(self, queue: str, entry: Entry) -> None:
        """Send *entry* with the next ``send``; what comes of it is told to its future."""
        self._entries[queue].append(entry)
        if entry.owns_body:
            self._claims.hold(entry.message)
        if queue not in self._senders:
            self._senders[queue] = asyncio.get_running_loop().create_task(self._send(queue))

    async def close(self) -> None:
        """Send nothing more; whoever still waits gets BrokerClosedError."""
        await end(self._senders.values())
        for entry in (e for entries in self._entries.values() for e in entries):
            fail(entry.future, BrokerClosedError("closed before this message was sent"))
            self._let_go(entry, sent=False)
        self._entries.clear()

    async def _send(self, queue: str) -> None:
        batch: list[Entry] = []
        try:
            while entries := self._entries.pop(queue, None):
                batch = entries[:MAX_SEND]
                if len(entries) > MAX_SEND:
                    self._entries[queue] = entries[MAX_SEND:]
                await self._send_batch(queue, [entry for entry in batch if self._is_wanted(entry)])
        except asyncio.CancelledError:
            self._fail_all(batch, BrokerClosedError("closed while sending"))
            raise
        finally:
            del self._senders[queue]

    def _is_wanted(self, entry: Entry) -> bool:
        # Whoever gave up before the message left wants no answer, so the model need not run.
        if entry.future.done():
            self._let_go(entry, sent=False)
            self._on_unsent(entry.message)
        return not entry.future.done()

    async def _send_batch(self, queue: str, batch: list[Entry]) -> None:
        sent = True  # unless we are told that it was not: an error may come after the message has arrived
        try:
            await self._broker.send(queue, [entry.message for entry in batch])
        except (MessageTooLargeError, QueueNotFoundError) as error:
            if isinstance(error, MessageTooLargeError) and len(batch) > 1:
                for entry in batch:  # nothing was sent yet; only the one that is too large shall suffer
                    await self._send_batch(queue, [entry])
                return
            sent = False
            self._fail_all(batch, error)
        except Exception as error:  # whatever it is, it belongs to those who asked
            self._fail_all(batch, error)
        for entry in batch:
            if entry.confirms and not entry.future.done():
                entry.future.set_result(None)
            self._let_go(entry, sent=sent)

    def _let_go(self, entry: Entry, *, sent: bool) -> None:
        if entry.owns_body:
            self._claims.let_go(entry.message, sent=sent)

    def _fail_all(self, batch: list[Entry], error: Exception) -> None:
        for entry in batch:
            fail(entry.future, error)
            self._on_unsent(entry.message)


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Whoever waits for *future* gets *error*, unless it is done."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever has stopped waiting need not be told, and asyncio shall not complain of that
