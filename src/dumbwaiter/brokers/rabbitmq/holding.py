"""What is held on a channel: acknowledged in as few frames as can be, and lost with the channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

from aiormq.abc import AbstractChannel, DeliveredMessage

from dumbwaiter.brokers.rabbitmq.errors import LIBRARY_ERRORS

_Write: TypeAlias = Callable[[int, bool, bool], Awaitable[None]]


class Consumer:
    """A subscription to *name*, the physical queue of a *lane*; the server lets *prefetch* of its messages be unsettled
    at a time.
    """

    __slots__ = ("_came", "lane", "name", "prefetch", "tag", "unsettled")

    def __init__(self, tag: str, lane: int, name: str, prefetch: int) -> None:
        self.tag = tag
        self.lane = lane
        self.name = name
        self.prefetch = prefetch
        self._came = asyncio.Event()
        self.unsettled = 0

    def take_note(self) -> None:
        """A message came."""
        self.unsettled += 1
        self._came.set()

    async def first(self, patience: float) -> None:
        """Wait for the first message, at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._came.wait()

    @property
    def is_live(self) -> bool:
        """Whether the server would give it another message."""
        return self.unsettled < self.prefetch


class Held:
    """A message that was delivered on *desk*'s channel and is not settled."""

    __slots__ = ("consumer", "desk", "message", "tag")

    def __init__(self, message: DeliveredMessage, tag: int, consumer: Consumer, desk: Desk) -> None:
        self.message = message
        self.tag = tag
        self.consumer = consumer
        self.desk = desk


class Desk:
    """The unsettled deliveries of one channel."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.is_broken = False
        self.prefetch = 0
        """What the next consumer on the channel is allowed."""
        self._unsettled: dict[int, Held] = {}
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[bool]] = set()

    @property
    def is_lost(self) -> bool:
        """Whether the channel is closed, or about to be: the server gives back what was held on it."""
        return self.is_broken or self.channel.is_closed

    def take_in(self, message: DeliveredMessage, consumer: Consumer) -> Held:
        """*message*, held from now on."""
        tag = message.delivery_tag
        assert tag is not None  # noqa: S101 - it was delivered
        held = Held(message, tag, consumer, self)
        consumer.take_note()
        self._unsettled[tag] = held
        return held

    async def acknowledge(self, held: Collection[Held]) -> bool:
        """Remove the messages for good; False if the channel was lost, and they come again."""
        return await self._settle(
            held, lambda tag, multiple, wait: self.channel.basic_ack(tag, multiple=multiple, wait=wait)
        )

    async def hand_back(self, held: Collection[Held]) -> bool:
        """Put the messages back to their place, this delivery counted; False if the channel was lost, which does the
        same.
        """
        return await self._settle(
            held, lambda tag, multiple, wait: self.channel.basic_nack(tag, multiple=multiple, requeue=True, wait=wait)
        )

    async def _settle(self, held: Collection[Held], write: _Write) -> bool:
        # Whoever is cancelled meanwhile must not leave some frames unwritten: nobody would know of them any more.
        task = asyncio.create_task(self._write_all(held, write))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _write_all(self, held: Collection[Held], write: _Write) -> bool:
        # One at a time: a frame for all tags up to one must not overtake another verdict on one of them.
        async with self._writing:
            frames = self._frames({one.tag for one in held if one.tag in self._unsettled})
            try:
                for place, (tag, multiple) in enumerate(frames):
                    await write(tag, multiple, place == len(frames) - 1)
            except (*LIBRARY_ERRORS, asyncio.CancelledError):  # so the library ends what waits for a lost connection
                return False
        return not self.is_lost

    def _frames(self, tags: set[int]) -> list[tuple[int, bool]]:
        """What to write for *tags*: one frame for those that nothing older is unsettled before, and one for each other.

        RabbitMQ gives out tags in ascending order, and so they lie here.
        """
        together = 0
        for tag in self._unsettled:
            if tag not in tags:
                break
            together = tag
        for tag in tags:
            self._unsettled.pop(tag).consumer.unsettled -= 1
        apart = [(tag, False) for tag in sorted(tags) if tag > together]
        return [(together, True), *apart] if together else apart
