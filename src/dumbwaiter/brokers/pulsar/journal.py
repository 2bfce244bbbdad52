"""A topic that is read from its beginning: whoever looks again reads what has come since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from dumbwaiter.brokers.pulsar.errors import Result, lost
from dumbwaiter.brokers.pulsar.link import Link, start_answer
from dumbwaiter.brokers.pulsar.reading import position_at
from dumbwaiter.brokers.pulsar.wire import Position

_PATIENCE = 2.0
"""Seconds that a message may take of which the server says that it is there."""


async def messages_from(link: Link, topic: str, first: Position) -> AsyncIterator[Any]:
    """The messages of *topic* from *first* on, until its present end."""
    reader = await link.reader(topic, first, from_it=True)
    try:
        while await _has_more(link, reader, topic):
            yield await link.ask(reader.read_next_async, topic)
    finally:
        start_answer(reader.close_async)


async def _has_more(link: Link, reader: Any, topic: str, *, may_be_empty: bool = False) -> bool:
    result, value = await link.answer(reader.has_message_available_async)
    if result == Result.Ok:
        return bool(value)
    # So pulsar-lite says that a topic has never had a message.
    if result == Result.UnknownError and may_be_empty and reader.is_connected():
        return False
    raise link.error(result, topic)


class Journal:
    """*topic*, each message of which goes to *take* once, in order."""

    def __init__(self, topic: str, link: Link, take: Callable[[Any], None]) -> None:
        self.topic = topic
        self._link = link
        self._take = take
        self._reader: Any = None
        self._last: Position | None = None
        self._reading = asyncio.Lock()

    @property
    def is_connected(self) -> bool:
        """Whether its reader is connected to the server now."""
        return self._reader is not None and bool(self._reader.is_connected())

    async def catch_up(self) -> None:
        """Read what is there. Raises BrokerUnavailableError."""
        async with self._reading:
            for is_last in (False, False, True):
                try:
                    await self._read()
                    break
                except TimeoutError:
                    # The server says that there is more, and does not send it: it does to a new reader.
                    self.close()
                    if is_last:
                        raise lost(self._link.where) from None
                except BaseException:
                    # What was under way when this was cancelled may have been read, and would be passed over.
                    self.close()
                    raise
            if not self.is_connected:
                raise lost(self._link.where)

    async def _read(self) -> None:
        if not self.is_connected:
            await self._open()
        while await _has_more(self._link, self._reader, self.topic, may_be_empty=self._last is None):
            async with asyncio.timeout(_PATIENCE):
                message = await self._link.ask(self._reader.read_next_async, self.topic)
            self._last = position_at(message)
            self._take(message)

    async def _open(self) -> None:
        self.close()
        self._reader = await self._link.reader(self.topic, self._last)

    def close(self) -> None:
        """Let go of the reader; the next look makes another."""
        reader, self._reader = self._reader, None
        if reader is not None:
            start_answer(reader.close_async)


class Register:
    """The names of all queues: one message for each, and no two topics of a queue without it."""

    def __init__(self, topic: str, link: Link) -> None:
        self._names: set[str] = set()
        self._journal = Journal(topic, link, self._take)
        self._link = link

    @property
    def is_connected(self) -> bool:
        """Whether the server can be asked now."""
        return self._journal.is_connected

    @property
    def topic(self) -> str:
        """Where it is kept."""
        return self._journal.topic

    async def names(self) -> set[str]:
        """All of them, as they are known now. Raises BrokerUnavailableError."""
        await self._journal.catch_up()
        return self._names

    async def has(self, queue: str) -> bool:
        """Whether there is *queue*; one that was known once is not asked for again, for none is ever deleted."""
        return queue in self._names or queue in await self.names()

    async def require_up(self) -> None:
        """Raises BrokerUnavailableError unless the connection stands, or can be made again."""
        if not self._journal.is_connected:
            await self._link.probe()
            await self._journal.catch_up()

    def close(self) -> None:
        """Let go of what the client keeps."""
        self._journal.close()

    def _take(self, message: Any) -> None:
        self._names.add(message.data().decode(errors="replace"))
