"""Waiting for messages: one blocking connection of a broker object serves all its receivers that wait.

The connection blocks on the lanes and the bell of all queues that are waited for, in a consumer group of its own that
only wakes: each new entry wakes one broker, which then receives with the same script as everybody. A wake-up is a hint
and never a message. So one that is lost with its broker costs LOOK_EVERY seconds and nothing else, and one that finds
nobody waiting any more is passed on.

Where one queue alone is waited for, the call of that script lies at the server behind the command that blocks: it runs
the moment that one ends, and the message comes with the wake-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from dumbwaiter.brokers.redis.connection import Argument, Pipeline, Wire, pack
from dumbwaiter.brokers.redis.errors import NoGroupError, of_reply
from dumbwaiter.brokers.redis.keys import WAKE_GROUP, QueueKeys
from dumbwaiter.brokers.redis.location import Location
from dumbwaiter.brokers.redis.taking import Taken
from dumbwaiter.brokers.served import Received
from dumbwaiter.errors import BrokerError
from dumbwaiter.tasks import end

LOOK_EVERY = 1.0
"""Seconds after which a receiver that waits looks again by itself, for locks and delays that nobody announced."""
AFTER_OTHERS = 6
"""Turns of the event loop for others before the connection blocks: whoever asks for the next message has often an
answer under way that somebody waits for, and each write takes a while.
"""
UNBLOCK_EVERY = 0.02
"""Seconds between tries to make the connection block anew: it may not have blocked yet when it was told to stop."""


class _Waiter:
    __slots__ = ("future", "is_over", "is_served", "max_messages")

    def __init__(self, max_messages: int) -> None:
        self.max_messages = max_messages
        self.future: asyncio.Future[Sequence[Received]] = asyncio.get_running_loop().create_future()
        self.is_served = self.is_over = False

    def expire(self) -> None:
        self.is_over = True
        if not self.is_served and not self.future.done():
            self.future.set_result([])


class Waiting:
    """The receivers of one broker object that wait.

    *take* receives up to so many messages of a queue, told whether a wake-up led to it; *order* is the command that
    does so, and *read* reads its answer, given when it was sent; *give_back* hands messages back uncounted; *ring*
    wakes another broker that waits for the queue; *keys_of* gives its keys. None of them may be slow.
    """

    def __init__(
        self,
        location: Location,
        pipeline: Pipeline,
        *,
        take: Callable[[str, int, bool], Awaitable[Taken]],
        order: Callable[[str, int], Sequence[Argument]],
        read: Callable[[str, Any, float], Taken],
        give_back: Callable[[str, Sequence[Received]], object],
        ring: Callable[[str], object],
        keys_of: Callable[[str], QueueKeys],
    ) -> None:
        self._wire = Wire(location)
        self._pipeline = pipeline
        self._take, self._give_back, self._ring, self._keys_of = take, give_back, ring, keys_of
        self._order, self._read = order, read
        self._lines: dict[str, deque[_Waiter]] = {}
        self._looks: dict[str, float] = {}
        self._quiet: dict[str, float] = {}
        self._armed: frozenset[str] = frozenset()
        self._armed_until = 0.0
        self._client_id: Any = None
        self._watching: asyncio.Task[None] | None = None
        self._unblocking: asyncio.Task[None] | None = None

    def is_quiet(self, queue: str) -> bool:
        """Whether a look now is for nothing: somebody waits for *queue* already, or the last look has left nothing
        there, and whatever came since has woken or will wake somebody.
        """
        return queue in self._lines or time.monotonic() < self._quiet.get(queue, 0.0)

    def note(self, queue: str, taken: Taken) -> None:
        """*taken* is what a look has found."""
        self._look_in(queue, taken.next_event)
        self._quiet[queue] = self._looks[queue] if taken.is_all else 0.0

    async def receive(self, queue: str, max_messages: int, max_wait: float) -> Sequence[Received]:
        """Wait in line for *queue*, after a look has found it empty; an empty list after *max_wait* seconds.

        Raises what *take* raises, and BrokerUnavailableError when the connection that waits is lost.
        """
        waiter = _Waiter(max_messages)
        if queue not in self._lines:
            self._lines[queue] = deque()
            self._looks[queue] = self._quiet.get(queue, 0.0)
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
        """Stop watching; nobody waits any more by then.

        What the server would still receive for us it receives first, so that it can be handed back.
        """
        if self._watching is not None and self._armed:
            self._unblock_soon()
            await asyncio.wait([self._watching], timeout=LOOK_EVERY)
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
                self._unblock_soon()

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
                if waiter.is_over:
                    waiter.expire()
                return
            self._hand_out(queue, taken.received)

    def _hand_out(self, queue: str, received: Sequence[Received]) -> None:
        """To those in line, to each at most what it has asked for; the rest goes back."""
        for waiter in list(self._lines.get(queue, ())):
            if received and not waiter.future.done():
                part, received = received[: waiter.max_messages], received[waiter.max_messages :]
                self._leave(queue, waiter)
                waiter.future.set_result(part)
        if received:
            self._give_back(queue, received)

    # --- the connection ---

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch_all())
        else:
            self._unblock_soon()

    def _is_outdated(self) -> bool:
        """Whether it blocks for nobody, on too few queues, or for longer than until the next look that is due."""
        if not self._armed:
            return False
        return not self._lines or not self._armed >= self._lines.keys() or self._next_look() < self._armed_until

    def _next_look(self) -> float:
        return min(self._looks[queue] for queue in self._lines)

    async def _watch_all(self) -> None:
        try:
            for _ in range(AFTER_OTHERS):
                await asyncio.sleep(0)
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
        """Wait for the first wake-up, or until the next look is due. Returns the queues to look into for a wake-up."""
        queues = list(self._lines)
        for queue in self._looks.keys() - self._lines.keys():
            del self._looks[queue]
        self._armed_until = self._next_look()
        pause = max(0.001, self._armed_until - time.monotonic())
        streams = {stream: queue for queue in queues for stream in self._keys_of(queue)[:4]}
        block = ("XREADGROUP", "GROUP", WAKE_GROUP, "w", "COUNT", 1, "BLOCK", math.ceil(1000 * pause), "NOACK")
        commands: list[Sequence[Argument]] = [(*block, "STREAMS", *streams, *[">"] * len(streams))]
        if len(queues) == 1:
            commands.append(self._order(queues[0], self._lines[queues[0]][0].max_messages))
        self._armed, asked_at = frozenset(queues), time.monotonic()
        try:
            answers = await self._wire.exchange(pack(commands), len(commands), wait=pause)
        finally:
            self._armed = frozenset()
        is_done = len(queues) == 1 and self._take_in(queues[0], answers.pop(), asked_at)
        if isinstance(answers[0], ResponseError):
            return await self._not_all_there(answers[0], queues)
        return set() if is_done else {streams[stream.decode()] for stream, _ in answers[0] or ()}

    def _take_in(self, queue: str, answer: Any, asked_at: float) -> bool:
        """Hand out what the order behind the wake-up has brought; whether a wake-up leads to nothing further."""
        if isinstance(
            answer, ResponseError
        ):  # a server that was started anew does not know the script; take() tells it
            return False
        try:
            taken = self._read(queue, answer, asked_at)
        except BrokerError as error:
            self._fail(queue, error)
            return True
        self.note(queue, taken)
        self._hand_out(queue, taken.received)
        return queue not in self._lines

    async def _not_all_there(self, error: ResponseError, queues: Sequence[str]) -> set[str]:
        ours = of_reply(error, self._wire.where)
        if not isinstance(ours, NoGroupError):
            raise ours
        await asyncio.sleep(UNBLOCK_EVERY)
        return set(queues)  # each one's receive will tell whether it is the one that is gone

    def _unblock_soon(self) -> None:
        if self._is_outdated() and self._unblocking is None:
            self._unblocking = asyncio.get_running_loop().create_task(self._unblock())

    async def _unblock(self) -> None:
        """Have the connection block anew. Without the right to make it do so, it does by itself when its time is up."""
        try:
            while self._is_outdated():
                if isinstance(self._client_id, int):
                    await self._pipeline.ask("CLIENT", "UNBLOCK", self._client_id)
                await asyncio.sleep(UNBLOCK_EVERY)
        except BrokerError:
            pass
        finally:
            self._unblocking = None
