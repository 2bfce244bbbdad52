"""Receiving from one queue: what is there is fetched, and what is not there yet is waited for.

RabbitMQ pushes, and the number of unsettled messages that it allows a consumer is fixed for that consumer's life. So a
receiver that finds messages there starts a consumer for just so many, and stops it when they have come. One that finds
none waits with a *bell* on each lane, which is a consumer for a single message: what comes wakes the first in line,
who then fetches what came with it. Bells stay up for LINGER after the last receiver left, so that one who comes again
at once costs no command; what they bring meanwhile is handed back, uncounted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage

from dumbwaiter.brokers.lines import Line
from dumbwaiter.brokers.rabbitmq.allotting import allotment
from dumbwaiter.brokers.rabbitmq.errors import MissingQueueError
from dumbwaiter.brokers.rabbitmq.holding import Consumer, Desk, Held
from dumbwaiter.brokers.rabbitmq.link import Link
from dumbwaiter.errors import BrokerClosedError, BrokerError, BrokerUnavailableError, QueueNotFoundError
from dumbwaiter.policies.lanes import HIGH, LOW, NORMAL, order

LINGER = 0.02
_LATE = 0.1
"""Seconds to wait for a message that was counted: another node of a cluster may hand it over a moment later."""


class Tap:
    """The receivers of *queue*, whose lanes are the physical queues *lanes*.

    *hand_back* puts messages back uncounted.
    """

    def __init__(
        self, queue: str, lanes: list[str], link: Link, hand_back: Callable[[list[Held]], Awaitable[None]]
    ) -> None:
        self.queue = queue
        self._lanes = lanes
        self._link = link
        self._hand_back = hand_back
        self._here: deque[Held] = deque()
        self._line: Line[Held] = Line(lambda: None, lambda items: self._here.extendleft(reversed(items)))
        self._desk: Desk | None = None
        self._bells: dict[int, Consumer] = {}
        self._commands = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._turn = 0
        self._receiving = self._waiting = 0
        self._linger: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def receive(self, max_messages: int, max_wait: float) -> list[Held]:
        """Up to *max_messages*; waits at most *max_wait* seconds for the first."""
        self._receiving += 1
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        try:
            return await self._receive(max_messages, time.monotonic() + max_wait)
        except MissingQueueError:
            raise QueueNotFoundError(self.queue) from None
        except BrokerUnavailableError:
            self._check_open()
            raise
        finally:
            self._receiving -= 1
            self._unless_received()

    async def close(self) -> list[Held]:
        """Send receivers away; what was here and nobody has received."""
        self._is_closed = True
        with self._line.lock:
            self._line.dismiss(self)
        if self._linger is not None:
            self._linger.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._desk is not None and not self._desk.is_lost:
            with contextlib.suppress(BrokerError, MissingQueueError):
                await self._take_down(self._desk, list(self._bells.values()))
        here = list(self._here)
        self._here.clear()
        return here

    # --- receivers ---

    async def _receive(self, wanted: int, until: float) -> list[Held]:
        desk = await self._open_desk()
        items = await self._take(wanted, 0.0, desk)
        if not items:
            await self._fetch(wanted, desk)
            items = await self._take(wanted, 0.0, desk)
        if not items and until > time.monotonic():
            self._waiting += 1
            try:
                await self._own(self._put_up_bells(desk))
                items = await self._take(wanted, until - time.monotonic(), desk)
            finally:
                self._waiting -= 1
        return items if not items or len(items) == wanted else await self._with_more(items, wanted, desk)

    async def _with_more(self, items: list[Held], wanted: int, desk: Desk) -> list[Held]:
        """*items* and what came with them."""
        try:
            await self._fetch(wanted - len(items), desk)
            return items + await self._take(wanted - len(items), 0.0, desk)
        except BaseException:
            with self._line.lock:
                self._here.extendleft(reversed(items))
                self._line.changed()
            raise

    async def _take(self, wanted: int, max_wait: float, desk: Desk) -> list[Held]:
        def take() -> list[Held]:
            return [self._here.popleft() for _ in range(min(wanted, len(self._here)))]

        items = await self._line.receive(self, take, max_wait, check_open=self._check_open)
        if not items:
            self._check_open()
            if desk.is_lost:
                raise BrokerUnavailableError(f"the connection to {self._link.where} was lost; look whether it runs")
        return items

    def _check_open(self) -> None:
        if self._is_closed:
            raise BrokerClosedError

    def _rings(self, lane: int) -> bool:
        bell = self._bells.get(lane)
        return bell is not None and bell.is_live

    def _unless_received(self) -> None:
        """Let go of what is up and what is here if nobody receives, and nobody comes for a while."""
        if not self._receiving and not self._is_closed and self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER, self._leave)

    def _leave(self) -> None:
        self._linger = None
        if self._bells or self._here:
            self._start(self._leave_all())

    async def _leave_all(self) -> None:
        desk = self._desk
        if desk is not None:
            async with self._commands:
                if self._receiving:  # somebody has come after all, and counts on the bells
                    return
                await self._take_down(desk, list(self._bells.values()))
        if self._here and not self._receiving:
            here = list(self._here)
            self._here.clear()
            await self._hand_back(here)

    # --- what the server pushes ---

    async def _open_desk(self) -> Desk:
        """A channel of this queue's own. Not that of counts and declarations: an error there would close it."""
        if self._desk is not None and not self._desk.is_lost:
            return self._desk
        async with self._commands:
            if self._desk is None or self._desk.is_lost:
                self._check_open()
                channel = await self._link.channel()
                self._desk = desk = Desk(channel)
                self._bells.clear()
                self._here.clear()  # those were lost with their channel
                channel.closing.add_done_callback(lambda _: self._lost(desk))
            return self._desk

    def _lost(self, desk: Desk) -> None:
        if desk is self._desk and not self._is_closed:
            self._bells.clear()
            self._here.clear()
            with self._line.lock:
                self._line.dismiss(self)

    async def _fetch(self, wanted: int, desk: Desk) -> None:
        """Have up to *wanted* messages that are ready pushed; return when they are here."""
        # What came to a lane whose bell can ring is on its way already.
        unwatched = [lane for lane in range(len(self._lanes)) if not self._rings(lane)]
        counts = await asyncio.gather(*(self._link.count(self._lanes[lane], f"looks {lane}") for lane in unwatched))
        ready = [0] * len(self._lanes)
        for lane, (count, _) in zip(unwatched, counts, strict=True):
            ready[lane] = count
        shares = allotment(order(self._turn), ready, wanted)
        self._turn += bool(shares)
        for lane, share in shares:
            arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._start(self._burst(desk, lane, share, arrived))
            await arrived

    async def _burst(self, desk: Desk, lane: int, share: int, arrived: asyncio.Future[None]) -> None:
        """Tell *arrived* when the messages are here, of which never come more than *share*; stop the consumer then."""
        try:
            async with self._commands:
                consumer = await self._consume(desk, lane, share)
                # The server answers this behind what it has pushed.
                await self._command(desk, lambda: desk.channel.basic_qos(prefetch_count=share))
                await consumer.first(_LATE)
                if not arrived.done():
                    arrived.set_result(None)
                await self._cancel(desk, consumer)
        except (BrokerUnavailableError, MissingQueueError) as error:
            if not arrived.done():
                arrived.set_exception(error)
        finally:
            arrived.cancel()

    async def _put_up_bells(self, desk: Desk) -> None:
        """One that can ring on each lane."""
        async with self._commands:
            for lane in (NORMAL, HIGH, LOW):
                bell = self._bells.get(lane)
                if bell is not None and bell.is_live:
                    continue
                if bell is not None:
                    await self._take_down(desk, [bell])
                if not self._waiting or desk.is_lost:
                    return
                self._bells[lane] = await self._consume(desk, lane, 1)
                self._unless_received()

    async def _take_down(self, desk: Desk, bells: list[Consumer]) -> None:
        for bell in bells:
            if self._bells.get(bell.lane) is bell:
                del self._bells[bell.lane]
            await self._cancel(desk, bell)

    async def _consume(self, desk: Desk, lane: int, prefetch: int) -> Consumer:
        consumer = Consumer(f"{self.queue}-{next(self._numbers)}", lane, self._lanes[lane], prefetch)
        channel: AbstractChannel = desk.channel

        async def come(message: DeliveredMessage) -> None:  # the library wants a coroutine
            self._here.append(desk.take_in(message, consumer))
            with self._line.lock:
                self._line.changed()
            self._unless_received()
            if self._waiting > 1 and not consumer.is_live and self._bells.get(lane) is consumer:
                self._start(self._own(self._put_up_bells(desk)))

        if desk.prefetch != prefetch:  # the same as last time need not be said again
            await self._command(desk, lambda: channel.basic_qos(prefetch_count=prefetch))
            desk.prefetch = prefetch
        await self._command(desk, lambda: channel.basic_consume(consumer.name, come, consumer_tag=consumer.tag))
        return consumer

    async def _cancel(self, desk: Desk, consumer: Consumer) -> None:
        """Until this is answered the server may push; behind that it never does."""
        if not desk.is_lost:
            await self._command(desk, lambda: desk.channel.basic_cancel(consumer.tag))

    async def _command(self, desk: Desk, command: Callable[[], Awaitable[object]]) -> None:
        try:
            await self._link.run(command, self.queue)
        except (BrokerUnavailableError, MissingQueueError):
            # The library closes a channel whose server is late, and does not say so before the server has.
            desk.is_broken = True
            self._lost(desk)
            raise

    # --- tasks ---

    async def _own(self, work: Coroutine[Any, Any, None]) -> None:
        """Await *work*, which goes on when whoever waits for it is cancelled."""
        await asyncio.shield(self._start(work))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a lost connection, which the receivers learn by themselves
