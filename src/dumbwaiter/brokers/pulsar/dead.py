"""The dead letters of one queue: a topic, and messages in it that say which of the others are no more.

Anybody can read a topic without taking anything. What was redriven or purged is acknowledged too, so that the server
may delete it one day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import _pulsar
import msgspec

from dumbwaiter.brokers.pulsar.journal import Journal, messages_from
from dumbwaiter.brokers.pulsar.link import Link, start_answer
from dumbwaiter.brokers.pulsar.reading import event_time_of, id_of, position_at, properties_at
from dumbwaiter.brokers.pulsar.wire import (
    BEFORE,
    DEAD_AT,
    DETAIL,
    GONE,
    REASON,
    Copy,
    Position,
    attributes_of,
    count,
    gone,
    gone_of,
    number,
    position_of,
)
from dumbwaiter.brokers.served import readable_part
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BadInputError, DeadLetterNotFoundError
from dumbwaiter.message import DeadLetter, Message

_AT_ONCE = 50


class Buried(msgspec.Struct, frozen=True):
    """A dead letter as it is kept: its *message* with the *properties* and the *body* that it has there."""

    key: str
    message: Message
    properties: dict[str, str]
    body: bytes
    event_time: float | None


class DeadLetters:
    """Those of *queue*, in *topic*."""

    def __init__(self, queue: str, topic: str, link: Link) -> None:
        self.queue = queue
        self._topic = topic
        self._link = link
        self._journal = Journal(topic, link, self._read)
        self._positions: dict[str, Position] = {}
        self._spent: list[Position] = []
        self._taking = asyncio.Lock()

    def close(self) -> None:
        """Let go of what the client keeps."""
        self._journal.close()

    async def count(self) -> int:
        """How many there are."""
        await self._journal.catch_up()
        return len(self._positions)

    async def has(self, key: str) -> bool:
        """Whether *key* is there still."""
        await self._journal.catch_up()
        return key in self._positions

    async def page(self, limit: int, after: str | None) -> list[DeadLetter]:
        """The oldest *limit*, only those behind the key *after*. Raises DeadLetterNotFoundError if it is no key."""
        behind = None if after is None else position_of(after)
        if after is not None and behind is None:
            raise DeadLetterNotFoundError(self.queue, [after])
        await self._journal.catch_up()
        keys = [key for key, at in self._positions.items() if behind is None or at > behind][: max(0, limit)]
        return [_letter_of(self.queue, one) for one in await self._buried(keys)]

    async def take(self, keys: Sequence[str] | None, act: Callable[[list[Buried]], Awaitable[None]] | None) -> int:
        """Await *act* with those of *keys*, or all, some at a time, and remove them once it returns. How many."""
        async with self._taking:
            await self._journal.catch_up()
            chosen = [key for key in self._positions if keys is None or key in frozenset(keys)]
            self._spent.clear()
            for start in range(0, len(chosen), _AT_ONCE):
                await self._take_some(chosen[start : start + _AT_ONCE], act)
            if chosen:
                await self._journal.catch_up()
                await self._acknowledge(self._spent)
            return len(chosen)

    async def _take_some(self, keys: list[str], act: Callable[[list[Buried]], Awaitable[None]] | None) -> None:
        if act is not None:
            await act(await self._buried(keys))
        await self._link.publish([Copy(self._topic, gone(keys), {GONE: str(len(keys))})])

    async def _buried(self, keys: Sequence[str]) -> list[Buried]:
        """The letters of *keys*, which are in order, with what they hold."""
        missing = dict.fromkeys(keys)
        found: list[Buried] = []
        if missing:
            async for message in messages_from(self._link, self._topic, self._positions[keys[0]]):
                key = position_at(message).key
                if key in missing:
                    del missing[key]
                    found.append(_buried_of(key, message))
                if not missing:
                    break
        return found

    async def _acknowledge(self, positions: Sequence[Position]) -> None:
        consumer = await self._link.subscribe(self._topic, prefetch=0)
        try:
            for at in positions:
                start_answer(partial(consumer.acknowledge_async, _pulsar.MessageId(-1, at.ledger, at.entry, -1)))
        finally:
            start_answer(consumer.close_async)

    def _read(self, message: Any) -> None:
        at = position_at(message)
        if GONE not in properties_at(message):
            self._positions[at.key] = at
            return
        removed = [self._positions.pop(key) for key in gone_of(message.data()) if key in self._positions]
        self._spent += [at, *removed]


def _buried_of(key: str, message: Any) -> Buried:
    properties, body = properties_at(message), message.data()
    event_time = event_time_of(message)
    attributes = attributes_of(properties, event_time)
    try:
        buried = from_attributes(attributes, body, fallback_id=id_of(message))
    except BadInputError:
        buried = readable_part(attributes, body, properties.get("ce_id") or id_of(message))
    return Buried(key, buried, properties, body, event_time)


def _letter_of(queue: str, buried: Buried) -> DeadLetter:
    properties = buried.properties
    return DeadLetter(
        key=buried.key,
        message=buried.message,
        queue=queue,
        reason=properties.get(REASON, ""),
        detail=properties.get(DETAIL, ""),
        delivery_count=count(properties, BEFORE),
        dead_at=number(properties, DEAD_AT),
    )
