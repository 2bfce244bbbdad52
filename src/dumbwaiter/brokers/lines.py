"""Waiting in line: receivers are served in the order in which they came, and one that is cancelled loses nothing."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class _Waiter(Generic[T]):
    """A receiver in line. *take* locks what it asked for; *items* is what it was served."""

    __slots__ = ("alarm", "alarm_at", "done", "items", "loop", "owner", "take")

    def __init__(self, owner: object, take: Callable[[], list[T]]) -> None:
        self.owner = owner
        self.take = take
        self.items: list[T] = []
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.alarm: asyncio.TimerHandle | None = None
        self.alarm_at = math.inf

    def wake(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def set_alarm(self, when: float, callback: Callable[[], object]) -> None:
        self.silence()
        if not self.done.done():
            self.alarm = self.loop.call_later(max(0.0, when - time.monotonic()), callback)

    def silence(self) -> None:
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None


class Line(Generic[T]):
    """The receivers that wait for one queue or inbox. Its lock guards them and what they wait for.

    Messages that come in one turn of an event loop are handed out together in the next one: larger batches, one
    wake-up. Locks and delays that end while somebody waits ring an alarm at the first in line.
    """

    def __init__(self, next_event: Callable[[], float | None], give_back: Callable[[list[T]], object]) -> None:
        self.lock = threading.Lock()
        self._next_event = next_event
        self._give_back = give_back
        self._waiters: OrderedDict[_Waiter[T], None] = OrderedDict()
        self._serving = False

    async def receive(
        self, owner: object, take: Callable[[], list[T]], max_wait: float, *, check_open: Callable[[], None]
    ) -> list[T]:
        """What *take* finds, after those who came earlier; waits for it at most *max_wait* seconds."""
        await asyncio.sleep(0)  # a loop that always finds something must not starve others; and sends gather
        with self.lock:
            check_open()  # whoever closed the owner since has sent away only those who waited already
            self._serve()
            items = take()
            if items or max_wait <= 0:
                return items
            waiter = _Waiter(owner, take)
            self._waiters[waiter] = None
            self._arm()
        patience = waiter.loop.call_later(max_wait, waiter.wake)
        cancelled = True
        try:
            await waiter.done
            cancelled = False
        finally:
            patience.cancel()
            waiter.silence()
            with self.lock:
                self._waiters.pop(waiter, None)
                if cancelled:
                    self._give_back(waiter.items)
                if cancelled or not waiter.items:
                    self.changed()
        return waiter.items

    def changed(self) -> None:
        """Something may be ready now, or at an earlier time than was known. Call it with the lock held."""
        while self._waiters and not self._serving:
            head = next(iter(self._waiters))
            self._serving = self._run_at(head, partial(head.loop.call_soon, self._serve_later))

    def dismiss(self, owner: object) -> None:
        """Send *owner*'s receivers away empty-handed. Call it with the lock held."""
        for waiter in [waiter for waiter in self._waiters if waiter.owner is owner]:
            del self._waiters[waiter]
            self._run_at(waiter, waiter.wake)

    def _serve_later(self) -> None:
        with self.lock:
            self._serve()

    def _serve(self) -> None:
        self._serving = False
        while self._waiters:
            waiter = next(iter(self._waiters))
            waiter.items = waiter.take()
            if not waiter.items:
                break
            del self._waiters[waiter]
            if not self._run_at(waiter, waiter.wake):
                self._give_back(waiter.items)
        self._arm()

    def _arm(self) -> None:
        """Have the first in line look again when the next lock or delay ends."""
        while self._waiters and (when := self._next_event()) is not None:
            head = next(iter(self._waiters))
            if when >= head.alarm_at:
                return
            head.alarm_at = when
            if self._run_at(head, partial(head.set_alarm, when, partial(self._ring, head))):
                return

    def _ring(self, head: _Waiter[T]) -> None:
        with self.lock:
            head.alarm_at = math.inf
            self._serve()

    def _run_at(self, waiter: _Waiter[T], callback: Callable[[], object]) -> bool:
        """Run *callback* in the waiter's event loop; False if that loop is closed: then nobody waits there."""
        if waiter.loop is asyncio.get_running_loop():
            callback()
            return True
        try:
            waiter.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            self._waiters.pop(waiter, None)
            return False
        return True
