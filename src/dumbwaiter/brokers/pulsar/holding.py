"""Consumers that take just as much as is asked for, and what is held of theirs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import _pulsar

from dumbwaiter.brokers.pulsar.errors import Result
from dumbwaiter.brokers.pulsar.link import Link, start_answer
from dumbwaiter.brokers.pulsar.reading import position_at
from dumbwaiter.brokers.pulsar.wire import Position, batch_size

WARM = 0.02
"""Seconds for which a lane that has just had a message is expected to have another."""
_STILL_WARM = 0.1
"""Seconds after which nothing is expected of it any more."""
COMPANIONS = 0.001
"""Seconds for which one that came is held, as others may have been sent with it."""
LONGEST_STALL = 20.0
"""Seconds after which a server may have given up on a process that was stopped, which does not know that yet."""


class Held:
    """A *message* that *tap* has received and that is not settled."""

    __slots__ = ("message", "tap")

    def __init__(self, message: Any, tap: LaneTap) -> None:
        self.message = message
        self.tap = tap


class LaneTap:
    """A consumer of *lane*'s *topic* without a queue of its own: it gets as many messages as it was asked for.

    *come* is called in the event loop when some have come, which lie in *here* then; *batch_came* when it was a batch
    of several, which is neither here nor settled: call batch_is_apart() in the end.
    """

    def __init__(
        self, lane: int, topic: str, *, come: Callable[[], None], batch_came: Callable[[LaneTap, Position], None]
    ) -> None:
        self.lane = lane
        self.topic = topic
        self.here: deque[Held] = deque()
        self.asked = 0
        """How many messages it may still get."""
        self.unsettled = 0
        self.seen_at = time.monotonic()
        """When this process looked last whether it is up."""
        self.is_lost = False
        self._come = come
        self._batch_came = batch_came
        self._batches: dict[Position, int] = {}
        self._loop = asyncio.get_running_loop()
        self._consumer: Any = None
        self._arrivals: deque[tuple[Any, Any]] = deque()
        self._is_scheduled = False
        self._came_at = self._warm_until = 0.0
        self._is_alone = False

    async def open(self, link: Link) -> None:
        """Subscribe. Raises BrokerUnavailableError."""
        self._consumer = await link.subscribe(self.topic, prefetch=0)

    @property
    def is_up(self) -> bool:
        """Whether the server still lends what is held here."""
        if self.is_lost or self._consumer is None or time.monotonic() > self.seen_at + LONGEST_STALL:
            return False
        return bool(self._consumer.is_connected())

    def is_warm(self, now: float) -> bool:
        """Whether it had a message lately."""
        return now < self._came_at + _STILL_WARM

    def may_get_more(self, now: float) -> bool:
        """Whether it had a message a moment ago, and has asked for another."""
        return self.asked > 0 and now < self._warm_until

    def may_get_companions(self, now: float) -> bool:
        """Whether one came just now, and others may have been sent with it: not where the last ones came alone."""
        return self.asked > 0 and not self._is_alone and now < self._came_at + COMPANIONS

    def pick(self) -> Held:
        """The oldest that is here."""
        if len(self.here) == 1 and time.monotonic() >= self._came_at + COMPANIONS:
            self._is_alone = True
        return self.here.popleft()

    @property
    def next_change(self) -> float | None:
        """When may_get_companions() or may_get_more() may change, if they hold now."""
        now = time.monotonic()
        times = [at for at in (self._came_at + COMPANIONS, self._warm_until) if at > now]
        return min(times) if self.asked and times else None

    def ask(self, count: int) -> None:
        """Let so many more come."""
        now = time.monotonic()
        if self.is_warm(now):
            self._warm_until = now + WARM
        for _ in range(count):
            self.asked += 1
            self._consumer.receive_async(self._arrive)

    def acknowledge(self, held: list[Held]) -> None:
        """Remove the messages for good. The client sends this within 0.1 s, and nobody confirms it."""
        self.unsettled -= len(held)
        for one in held:
            self._consumer.acknowledge_async(one.message, _told)

    def hand_back(self, held: list[Held]) -> None:
        """The server gives them to others, this delivery counted."""
        self.unsettled -= len(held)
        for one in held:
            self._consumer.negative_acknowledge(one.message)

    def batch_is_apart(self, at: Position, *, is_done: bool) -> None:
        """Remove it for good if *is_done*, or have it come again."""
        dropped = self._batches.pop(at, 0)
        self.unsettled -= 1
        if not self.is_up:
            return
        # The server has counted all of it as asked for, and would keep so many others back.
        for _ in range(dropped):
            self._consumer.receive_async(self._arrive)
        message_id = _pulsar.MessageId(-1, at.ledger, at.entry, -1)
        if is_done:
            self._consumer.acknowledge_async(message_id, _told)
        else:
            self._consumer.negative_acknowledge(message_id)

    def lose(self) -> None:
        """The server gives to others what was held here."""
        self.is_lost = True
        self.here.clear()
        self.asked = 0
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            start_answer(consumer.close_async)

    async def close(self, link: Link) -> None:
        """Hand back at once what is held here, counted; raises nothing."""
        if self.is_lost or self._consumer is None:
            return
        self.is_lost = True
        self.here.clear()
        consumer, self._consumer = self._consumer, None
        with contextlib.suppress(Exception):
            await link.answer(consumer.close_async)

    # --- in a thread of the client's ---

    def _arrive(self, result: Any, message: Any) -> None:
        self._arrivals.append((result, message))
        if not self._is_scheduled:
            self._is_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._take_in)

    # --- in the event loop again ---

    def _take_in(self) -> None:
        self._is_scheduled = False
        while self._arrivals:
            result, message = self._arrivals.popleft()
            self.asked = max(0, self.asked - 1)
            if result == Result.Ok and not self.is_lost:
                size = _batch_size_of(message)
                if size > 1:
                    self._take_in_batch(message, size)
                else:
                    self.unsettled += 1
                    self.here.append(Held(message, self))
        if len(self.here) > 1:
            self._is_alone = False
        self._came_at = time.monotonic()
        self._warm_until = self._came_at + WARM
        self._come()

    def _take_in_batch(self, message: Any, size: int) -> None:
        at = position_at(message)
        left = self._batches.get(at)
        if left is None:
            left = size
            self.unsettled += 1
            self._batch_came(self, at)
        self._batches[at] = left - 1


def _batch_size_of(message: Any) -> int:
    message_id = message.message_id()
    return batch_size(message_id.serialize()) if message_id.batch_index() >= 0 else 1


def _told(_result: Any) -> None:
    """The client says at once that it will see to it."""
