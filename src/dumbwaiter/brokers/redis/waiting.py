"""Waiting for messages: one blocking connection of a broker object serves all its receivers that wait.

The connection blocks on the lanes and the bell of all queues that are waited for, in a consumer group of its own that
only wakes: each new entry wakes one broker, which then receives with the same script as everybody. A wake-up is a hint
and never a message. So one that is lost with its broker costs LOOK_EVERY seconds and nothing else, and one that finds
nobody waiting any more is passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from dumbwaiter.brokers.redis.connection import Pipeline, Wire, pack
from dumbwaiter.brokers.redis.errors import NoGroupError, of_reply
from dumbwaiter.brokers.redis.keys import WAKE_GROUP, QueueKeys
from dumbwaiter.brokers.redis.location import Location
from dumbwaiter.brokers.served import Received
from dumbwaiter.errors import BrokerError
from dumbwaiter.tasks import end

LOOK_EVERY = 1.0
"""Seconds after which a receiver that waits looks again by itself, for locks and delays that nobody announced."""
UNBLOCK_EVERY = 0.02
"""Seconds between tries to make the connection block anew: it may not have blocked yet when it was told to stop."""


class Taken(NamedTuple):
    """What a receive found; when nothing, the seconds until the next lock or delay ends, None if there is none."""

    received: list[Received]
    next_event: float | None = None


class _Waiter:
    __slots__ = ("future", "is_over", "is_served", "max_messages")

    def __init__(self, max_messages: int) -> None:
        self.max_messages = max_messages
        self.future: asyncio.Future[list[Received]] = asyncio.get_running_loop().create_future()
        self.is_served = self.is_over = False

    def expire(self) -> None:
        self.is_over = True
        if not self.is_served and not self.future.done():
            self.future.set_result([])


class Waiting:
    """The receivers of one broker object that wait.

    *take* receives up to so many messages of a queue, told whether a wake-up led to it; *give_back* hands such back
    uncounted; *ring* wakes another broker that waits for the queue; *keys_of* gives its keys. None of them may be slow.
    """

    def __init__(
        self,
        location: Location,
        pipeline: Pipeline,
        *,
        take: Callable[[str, int, bool], Awaitable[Taken]],
        give_back: Callable[[str, list[Received]], object],
        ring: Callable[[str], object],
        keys_of: Callable[[str], QueueKeys],
    ) -> None:
        self._wire = Wire(location)
        self._pipeline = pipeline
        self._take, self._give_back, self._ring, self._keys_of = take, give_back, ring, keys_of
        self._lines: dict[str, deque[_Waiter]] = {}
        self._looks: dict[str, float] = {}
        self._armed: frozenset[str] = frozenset()
        self._armed_until = 0.0
        self._client_id: Any = None
        self._watching: asyncio.Task[None] | None = None
        self._unblocking: asyncio.Task[None] | None = None

    def has_line(self, queue: str) -> bool:
        """Whether somebody waits for *queue* already."""
        return queue in self._lines

    async def receive(
        self, queue: str, max_messages: int, max_wait: float, *, next_event: float | None
    ) -> list[Received]:
        """Wait in line for *queue*; an empty list after *max_wait* seconds. *next_event* is as in Taken.

        Raises what *take* raises, and BrokerUnavailableError when the connection that waits is lost.
        """
        waiter = _Waiter(max_messages)
        if queue not in self._lines:
            self._lines[queue] = deque()
            self._look_in(queue, next_event)
        self._lines[queue].append(waiter)
        self._watch()
        patience = asyncio.get_running_loop().call_later(max_wait, waiter.expire)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            # It may have been served in this very turn of the loop.
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._give_back(queue, waiter.future.result())
            raise
        finally:
            patience.cancel()
            self._leave(queue, waiter)

    def dismiss(self, error: Exception) -> None:
        """Whoever waits gets *error*."""
        for queue in list(self._lines):
            self._fail(queue, error)

    async def close(self) -> None:
        """Stop watching; nobody waits any more by then."""
        await end([self._watching, self._unblocking])
        await self._wire.disconnect()

    # --- the line ---

    def _leave(self, queue: str, waiter: _Waiter) -> None:
        line = self._lines.get(queue)
        if line is not None:
            with contextlib.suppress(ValueError):
                line.remove(waiter)
            if not line:
                del self._lines[queue]

    def _fail(self, queue: str, error: Exception) -> None:
        for waiter in self._lines.pop(queue, ()):
            if not waiter.future.done():
                waiter.future.set_exception(error)

    def _look_in(self, queue: str, seconds: float | None) -> None:
        self._looks[queue] = time.monotonic() + (LOOK_EVERY if seconds is None else min(seconds, LOOK_EVERY))

    async def _serve(self, queue: str, *, was_woken: bool) -> None:
        """Give the first in line what there is, and so on."""
        if queue not in self._lines and was_woken:
            self._ring(queue)
        while line := self._lines.get(queue):
            waiter = line[0]
            waiter.is_served = True
            try:
                taken = await self._take(queue, waiter.max_messages, was_woken)
            except BrokerError as error:
                self._fail(queue, error)
                return
            waiter.is_served = False
            if not taken.received:
                self._look_in(queue, taken.next_event)
                if waiter.is_over:
                    waiter.expire()
                return
            if waiter.future.done():
                self._give_back(queue, taken.received)
            else:
                self._leave(queue, waiter)
                waiter.future.set_result(taken.received)

    # --- the connection ---

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch_all())
        elif self._is_outdated() and self._unblocking is None:
            self._unblocking = asyncio.get_running_loop().create_task(self._unblock())

    def _is_outdated(self) -> bool:
        """Whether it blocks on too few queues, or for longer than until the next look that is due."""
        if not self._armed:
            return False
        return not self._armed >= self._lines.keys() or self._next_look() < self._armed_until

    def _next_look(self) -> float:
        return min(self._looks[queue] for queue in self._lines)

    async def _watch_all(self) -> None:
        try:
            while self._lines:
                if await self._wire.connect():
                    (self._client_id,) = await self._wire.exchange(pack([("CLIENT", "ID")]), 1)
                woken = await self._block() if self._lines else set()
                now = time.monotonic()
                for queue in [*woken, *(queue for queue in self._lines if queue not in woken)]:
                    if queue in woken or self._looks.get(queue, 0.0) <= now:
                        await self._serve(queue, was_woken=queue in woken)
        except Exception as error:
            self.dismiss(error)
        finally:
            self._armed = frozenset()

    async def _block(self) -> set[str]:
        """Wait for the first wake-up, or until the next look is due. Returns the queues that were woken."""
        queues = list(self._lines)
        for queue in self._looks.keys() - self._lines.keys():
            del self._looks[queue]
        self._armed_until = self._next_look()
        pause = max(0.001, self._armed_until - time.monotonic())
        streams = {stream: queue for queue in queues for stream in self._keys_of(queue)[:4]}
        command = ("XREADGROUP", "GROUP", WAKE_GROUP, "w", "COUNT", 1, "BLOCK", math.ceil(1000 * pause), "NOACK")
        packed = pack([(*command, "STREAMS", *streams, *[">"] * len(streams))])
        self._armed = frozenset(queues)
        try:
            (woken,) = await self._wire.exchange(packed, 1, wait=pause)
        finally:
            self._armed = frozenset()
        if isinstance(woken, ResponseError):
            return await self._not_all_there(woken, queues)
        return {streams[stream.decode()] for stream, _ in woken or ()}

    async def _not_all_there(self, error: ResponseError, queues: Sequence[str]) -> set[str]:
        ours = of_reply(error, self._wire.where)
        if not isinstance(ours, NoGroupError):
            raise ours
        await asyncio.sleep(UNBLOCK_EVERY)
        return set(queues)  # each one's receive will tell whether it is the one that is gone

    async def _unblock(self) -> None:
        """Have the connection block anew. Without the right to make it do so, it does by itself when its time is up."""
        try:
            while self._lines and self._is_outdated():
                if isinstance(self._client_id, int):
                    await self._pipeline.ask("CLIENT", "UNBLOCK", self._client_id)
                await asyncio.sleep(UNBLOCK_EVERY)
        except BrokerError:
            pass
        finally:
            self._unblocking = None
