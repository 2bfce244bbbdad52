"""Receiving from one queue.

Pulsar pushes, as many messages as a consumer has asked for; what it has pushed once is withheld from others, and a
request cannot be taken back but by closing the consumer. So there is a consumer for each lane that never has a queue of
its own, and asks for as much as the receivers in line want, a few at a time. What comes upon a request when the
receivers have left is published again, uncounted; consumers that hold nothing are closed after a while, and their
requests with them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from dumbwaiter.brokers.lines import Line
from dumbwaiter.brokers.pulsar.allotting import shares
from dumbwaiter.brokers.pulsar.batches import take_apart
from dumbwaiter.brokers.pulsar.errors import lost
from dumbwaiter.brokers.pulsar.holding import Held, LaneTap
from dumbwaiter.brokers.pulsar.link import Link
from dumbwaiter.brokers.pulsar.wire import Position
from dumbwaiter.errors import BrokerClosedError, BrokerError
from dumbwaiter.policies.lanes import order

LINGER = 0.02
"""Seconds after the last receiver has left in which the next one finds what came."""
IDLE = 1.0
"""Seconds after which consumers that hold nothing are closed: what is on its way to one then comes again, counted."""
LOOK = 0.05
"""Seconds that a receiver without patience waits: the server does not say that it has nothing."""
AT_ONCE = 16
"""For how many messages a lane asks before the first has come."""
_LOOK_EVERY = 0.025
"""Seconds. The client takes four times as long to connect again, so that no loss of a connection goes unnoticed."""


class Tap:
    """The receivers of *queue*, whose lanes are *topics*. *put_back* publishes messages again, uncounted."""

    def __init__(
        self, queue: str, topics: Sequence[str], link: Link, put_back: Callable[[list[Held]], Coroutine[Any, Any, None]]
    ) -> None:
        self.queue = queue
        self._topics = topics
        self._link = link
        self._put_back = put_back
        self._lanes: list[LaneTap] = []
        self._line: Line[Held] = Line(self._next_change, self._return)
        self._opening = asyncio.Lock()
        self._turn = 0
        self._receiving = self._wanted = 0
        self._linger: asyncio.TimerHandle | None = None
        self._retirement: asyncio.TimerHandle | None = None
        self._has_left = False
        self._watch: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def receive(self, max_messages: int, max_wait: float) -> list[Held]:
        """Up to *max_messages*; waits at most *max_wait* seconds for the first. Raises BrokerUnavailableError."""
        self._receiving += 1
        self._has_left = False
        self._stop_timers()
        try:
            until = time.monotonic() + max(max_wait, LOOK)
            lanes = await self._open()
            self._wanted += max_messages
            try:
                self._ask()
                return await self._take(max_messages, until, lanes)
            finally:
                self._wanted -= max_messages
        finally:
            self._receiving -= 1
            self._unless_received()

    async def close(self) -> list[Held]:
        """Send receivers away; what was here and nobody has received. The consumers are open still."""
        self._is_closed = True
        self._stop_timers()
        if self._watch is not None:
            self._watch.cancel()
        with self._line.lock:
            self._line.dismiss(self)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        here = [one for lane in self._lanes for one in lane.here]
        for lane in self._lanes:
            lane.here.clear()
        return here

    async def close_consumers(self) -> None:
        """Hand back what may still come; raises nothing."""
        await asyncio.gather(*(lane.close(self._link) for lane in self._lanes))

    # --- receivers ---

    async def _take(self, wanted: int, until: float, lanes: list[LaneTap]) -> list[Held]:
        def take() -> list[Held]:
            return [] if self._waits_for_more(wanted) else self._pick(wanted)

        wait = max(0.001, until - time.monotonic())
        items = await self._line.receive(self, take, wait, check_open=self._check_open)
        if not items:
            self._check_open()
            if any(lane.is_lost for lane in lanes):
                raise lost(self._link.where)
            items = self._pick(wanted)  # patience ended while it was looked for more
        return items

    def _waits_for_more(self, wanted: int) -> bool:
        here = sum(len(lane.here) for lane in self._lanes)
        now = time.monotonic()
        if not here:
            return True
        if here < wanted and any(lane.may_get_companions(now) for lane in self._lanes):
            return True
        # A message of a lane whose turn is later must not overtake those that are on their way.
        for place in order(self._turn):
            lane = self._lanes[place]
            if lane.here:
                return False
            if lane.may_get_more(now):
                return True
        return False

    def _pick(self, wanted: int) -> list[Held]:
        picked: list[Held] = []
        while len(picked) < wanted:
            lane = next((self._lanes[place] for place in order(self._turn) if self._lanes[place].here), None)
            if lane is None:
                break
            picked.append(lane.pick())
            self._turn += 1
        return picked

    def _return(self, items: list[Held]) -> None:
        for one in reversed(items):
            if not one.tap.is_lost:
                one.tap.here.appendleft(one)

    def _next_change(self) -> float | None:
        if not any(lane.here for lane in self._lanes):
            return None
        return min((at for lane in self._lanes if (at := lane.next_change) is not None), default=None)

    def _check_open(self) -> None:
        if self._is_closed:
            raise BrokerClosedError

    # --- consumers ---

    async def _open(self) -> list[LaneTap]:
        """The consumers of all lanes, made now if there are none, or if their connection is lost."""
        async with self._opening:
            self._check_open()
            self._lose_what_is_lost()
            lanes = self._lanes or [self._new_lane(place) for place in range(len(self._topics))]
            lanes = [self._new_lane(lane.lane) if lane.is_lost else lane for lane in lanes]
            if new := [lane for lane in lanes if lane not in self._lanes]:
                try:
                    await asyncio.gather(*(lane.open(self._link) for lane in new))
                    self._check_open()
                except BaseException:
                    for lane in new:
                        lane.lose()
                    raise
                self._lanes = lanes
                self._look_after()
            return self._lanes

    def _new_lane(self, place: int) -> LaneTap:
        return LaneTap(place, self._topics[place], come=self._came, batch_came=self._batch_came)

    def _ask(self) -> None:
        now = time.monotonic()
        warm = {lane.lane for lane in self._lanes if lane.is_warm(now)}
        for lane, share in zip(self._lanes, shares(self._wanted, warm, at_once=AT_ONCE), strict=False):
            missing = share - lane.asked - len(lane.here)
            if missing > 0 and not lane.is_lost:
                lane.ask(missing)

    def _came(self) -> None:
        with self._line.lock:
            self._line.changed()
        if self._receiving:
            self._ask()
        elif self._has_left:
            self._leave()
        else:
            self._unless_received()

    def _batch_came(self, lane: LaneTap, at: Position) -> None:
        self._start(self._take_apart(lane, at))

    async def _take_apart(self, lane: LaneTap, at: Position) -> None:
        is_done = False
        try:
            await take_apart(self._link, lane.topic, at)
            is_done = True
        except BrokerError:
            pass  # it comes again
        finally:
            lane.batch_is_apart(at, is_done=is_done)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _look_after(self) -> None:
        """Look whether the consumers are connected, every now and then."""
        self._lose_what_is_lost()
        for lane in self._lanes:
            lane.seen_at = time.monotonic()
        if self._watch is not None:
            self._watch.cancel()
        self._watch = None
        if not self._is_closed and not all(lane.is_lost for lane in self._lanes):
            self._watch = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look_after)

    def _lose_what_is_lost(self) -> None:
        """Whoever waits shall learn of it."""
        lost_ones = [lane for lane in self._lanes if not lane.is_lost and not lane.is_up]
        for lane in lost_ones:
            lane.lose()
        if lost_ones:
            with self._line.lock:
                self._line.dismiss(self)

    # --- when nobody receives ---

    def _stop_timers(self) -> None:
        for timer in (self._linger, self._retirement):
            if timer is not None:
                timer.cancel()
        self._linger = self._retirement = None

    def _unless_received(self) -> None:
        if not self._receiving and not self._is_closed and self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER, self._leave)

    def _leave(self) -> None:
        """What is here, and what comes from now on, is for others."""
        self._linger = None
        self._has_left = True
        here = [one for lane in self._lanes for one in lane.here]
        for lane in self._lanes:
            lane.here.clear()
        if here:
            self._start(self._put_back(here))
        if self._retirement is None and any(lane.asked for lane in self._lanes):
            self._retirement = asyncio.get_running_loop().call_later(IDLE, self._retire)

    def _retire(self) -> None:
        self._retirement = None
        self._start(self._close_idle())

    async def _close_idle(self) -> None:
        async with self._opening:
            if not self._receiving and not any(lane.unsettled for lane in self._lanes):
                lanes, self._lanes = self._lanes, []
                await asyncio.gather(*(lane.close(self._link) for lane in lanes))
