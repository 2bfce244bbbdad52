"""Looking through a physical queue that nobody consumes: dead letters, and the register of delays."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

from aiormq.abc import AbstractChannel, DeliveredMessage

from dumbwaiter.brokers.rabbitmq.link import PATIENCE, Link
from dumbwaiter.errors import BrokerUnavailableError

_AT_ONCE = 100
_LOOK_EVERY = 0.02
_LATE = 1.0


class Content:
    """The *count* messages of a drawer while it is open."""

    def __init__(self, name: str, count: int, channel: AbstractChannel, link: Link) -> None:
        self.count = count
        self._name = name
        self._channel = channel
        self._link = link

    async def parts(self) -> AsyncIterator[list[DeliveredMessage]]:
        """All messages, some at a time, oldest first."""
        left = self.count
        while left > 0:
            part = await self._next(min(left, _AT_ONCE))
            if not part:
                return
            left -= len(part)
            yield part

    async def remove(self, messages: Sequence[DeliveredMessage]) -> None:
        """For good."""
        for place, message in enumerate(messages):
            tag, is_last = message.delivery_tag or 0, place == len(messages) - 1
            await self._link.run(partial(self._channel.basic_ack, tag, wait=is_last))

    async def _next(self, wanted: int) -> list[DeliveredMessage]:
        part: list[DeliveredMessage] = []
        complete = asyncio.Event()

        async def come(message: DeliveredMessage) -> None:  # the library wants a coroutine
            part.append(message)
            if len(part) == wanted:
                complete.set()

        channel, tag = self._channel, secrets.token_hex(8)
        await self._link.run(lambda: channel.basic_qos(prefetch_count=wanted))
        await self._link.run(lambda: channel.basic_consume(self._name, come, consumer_tag=tag), self._name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LATE):  # somebody else has taken some since they were counted
                await complete.wait()
        await self._link.run(lambda: channel.basic_cancel(tag))
        return part


class Drawer:
    """All messages of the physical queue *name*. Who looks holds them back from the counts and from other lookers,
    so one waits for the other; what was not removed is put back to its place.
    """

    def __init__(self, name: str, link: Link) -> None:
        self.name = name
        self._link = link
        self._alone = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Content]:
        """The content. Raises MissingQueueError, and BrokerUnavailableError, also when others look for too long."""
        async with self._alone:
            count = await self._when_nobody_looks()
            channel = await self._link.channel()
            try:
                yield Content(self.name, count, channel, self._link)
            finally:
                # With the channel all that it holds goes back.
                with contextlib.suppress(BrokerUnavailableError):
                    await self._link.run(channel.close)

    async def _when_nobody_looks(self) -> int:
        give_up_at = time.monotonic() + PATIENCE
        while True:
            count, lookers = await self._link.count(self.name, "drawers")
            if not lookers:
                return count
            if time.monotonic() > give_up_at:
                raise BrokerUnavailableError(
                    f"somebody else consumes {self.name!r} on {self._link.where}; "
                    "it must be free to be looked through: stop that consumer"
                )
            await asyncio.sleep(_LOOK_EVERY)
