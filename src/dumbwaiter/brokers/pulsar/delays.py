"""Delayed messages: a topic of their own for each queue, from which whoever receives moves what is due.

They ask the server to keep them back. One that does not (pulsar-lite) hands them out at once, and then they are held
here. Either way nothing is due for a queue from which nobody receives, and a holder's end hands over to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from typing import Any

from dumbwaiter.brokers.pulsar.link import Link, start_answer
from dumbwaiter.brokers.pulsar.names import Names
from dumbwaiter.brokers.pulsar.reading import event_time_of, id_of, properties_at
from dumbwaiter.brokers.pulsar.wire import BEFORE, Copy, again, bare_copy, count, due_of
from dumbwaiter.errors import BrokerError

_PREFETCH = 100
_AT_ONCE = 100
_LOOK_EVERY = 0.5
"""Seconds between two looks whether the connection stands, and before another try."""


class Mover:
    """Moves what is due among the delayed messages of *queue* to its lanes, from start() until close()."""

    def __init__(self, queue: str, names: Names, link: Link) -> None:
        self._queue = queue
        self._names = names
        self._link = link
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._held: list[tuple[float, int, Any]] = []
        self._numbers = itertools.count()
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End; what was held here goes to the next."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            consumer: Any = None
            try:
                consumer = await self._link.subscribe(
                    self._names.delayed(self._queue), prefetch=_PREFETCH, listener=self._arrive
                )
                await self._move_while_connected(consumer)
            except BrokerError:
                await asyncio.sleep(_LOOK_EVERY)
            finally:
                self._held.clear()
                if consumer is not None:
                    start_answer(consumer.close_async)

    async def _move_while_connected(self, consumer: Any) -> None:
        while consumer.is_connected():
            now = time.time()
            due: list[Any] = []
            while self._held and self._held[0][0] <= now and len(due) < _AT_ONCE:
                due.append(heapq.heappop(self._held)[2])
            if due:
                copies = [self._copy(message) for message in due]
                too_large = await self._link.publish_what_fits(copies)
                await self._link.publish([bare_copy(copies[i], properties_at(due[i])) for i in too_large])
                for message in due:
                    consumer.acknowledge_async(message, _told)
                continue
            self._changed.clear()
            until_next = self._held[0][0] - now if self._held else _LOOK_EVERY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_LOOK_EVERY, until_next)):
                    await self._changed.wait()

    def _copy(self, message: Any) -> Copy:
        properties = properties_at(message)
        _, lane = due_of(properties)
        copied = again(properties, id_of(message), before=count(properties, BEFORE), event_time=event_time_of(message))
        return Copy(self._names.lane(self._queue, lane), message.data(), copied)

    def _arrive(self, _consumer: Any, message: Any) -> None:
        """In a thread of the client's."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._take_in, message)

    def _take_in(self, message: Any) -> None:
        due, _ = due_of(properties_at(message))
        heapq.heappush(self._held, (due, next(self._numbers), message))
        self._changed.set()


def _told(_result: Any) -> None:
    """The client says at once that it will see to it."""
