"""Ends of patience, of which hardly any is ever reached: one timer of the event loop for all of them.

A timer for each request costs more than to send it: it is made, and cancelled a moment later.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable

MOST_SILENCED = 64
"""So many silenced alarms may lie about; beyond that no more than there are others."""


class Alarm:
    """Rings once, unless it is silenced before."""

    __slots__ = ("ring",)

    def __init__(self, ring: Callable[[], object]) -> None:
        self.ring: Callable[[], object] | None = ring


class Alarms:
    """Alarms of one event loop."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._silenced = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, at: float, ring: Callable[[], object]) -> Alarm:
        """Call *ring* at *at* (time.monotonic)."""
        alarm = Alarm(ring)
        heapq.heappush(self._heap, (at, next(self._numbers), alarm))
        if at < self._rings_at:
            self._arm(at)
        return alarm

    def silence(self, alarm: Alarm) -> None:
        """*alarm* will not ring. Twice, or afterwards, is no error."""
        if alarm.ring is None:
            return
        alarm.ring = None
        self._silenced += 1
        if self._silenced > MOST_SILENCED and self._silenced * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].ring is not None]
            heapq.heapify(self._heap)
            self._silenced = 0

    def close(self) -> None:
        """None of them will ring any more."""
        self._heap.clear()
        self._silenced = 0
        self._disarm()

    def _arm(self, at: float) -> None:
        self._disarm()
        self._rings_at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - time.monotonic()), self._ring)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = None, math.inf

    def _ring(self) -> None:
        self._disarm()
        now = time.monotonic()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].ring is None):
            alarm = heapq.heappop(self._heap)[2]
            ring, alarm.ring = alarm.ring, None
            if ring is None:
                self._silenced -= 1
            else:
                ring()
        if self._heap:
            self._arm(self._heap[0][0])
