"""Locks of any length above a product whose own lock has a length that it chose, or that its connection has.

Whoever receives holds a lease for each delivery, by its token. A lease ends when nobody renews it in time; then its
message is handed back while the product's own lock still stands. Where that lock is shorter, signs of life keep it up
meanwhile; one that the product has not confirmed in time ends the lease too, for somebody else may hold the message by
then. So a holder that was stopped, or cut off, for longer than that settles nothing any more.

All of it belongs to one event loop. Times are those of time.monotonic().
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from dumbwaiter.message import Delivery

H = TypeVar("H")

_REMEMBERED = 10_000
_SPARE = 0.1
"""This part of the product's own lock is left for a settlement's way to the product."""


class Lease(Generic[H]):
    """A delivery that is held: *delivery* with the latest *locked_until*, and *held*, what it takes to settle it.

    *own_lock* is how long the product's lock lasts from a sign of life on, None where it cannot end before the lease
    does, or only with the connection; *alive_at* when the last one that was confirmed was sent. *is_unsure*: a
    settlement was under way when the connection failed, so that nobody knows whether the message is still there.
    """

    __slots__ = ("alive_at", "delivery", "held", "is_unsure", "own_lock")

    def __init__(self, delivery: Delivery, held: H, *, own_lock: float | None, alive_at: float) -> None:
        self.delivery = delivery
        self.held = held
        self.own_lock = own_lock
        self.alive_at = alive_at
        self.is_unsure = False

    @property
    def stands_until(self) -> float:
        """When the product's own lock may be over; a little early, so that a settlement still comes in time."""
        return math.inf if self.own_lock is None else self.alive_at + self.own_lock * (1 - _SPARE)

    def is_valid(self, now: float) -> bool:
        """Whether this holder may still settle the message."""
        return now < min(self.delivery.locked_until, self.stands_until)


class Leases(Generic[H]):
    """The leases of one broker object.

    *ended* is called with those whose lock ran out while the product's own still stands: hand them back, the delivery
    counted. *beat* is called every third of the shortest own lock with all that are held: send a sign of life for each
    and call confirm() once the product has it. Both return at once.
    """

    def __init__(
        self,
        *,
        ended: Callable[[list[Lease[H]]], object],
        beat: Callable[[list[Lease[H]]], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ended = ended
        self._beat = beat
        self._clock = clock
        self._leases: dict[str, Lease[H]] = {}
        self._ends: list[tuple[float, str]] = []
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._ticker: asyncio.TimerHandle | None = None
        self._tick_length = math.inf

    def __len__(self) -> int:
        return len(self._leases)

    def hold(self, lease: Lease[H]) -> None:
        """*lease* is held from now on, or again: it was taken and could not be settled. One that is over is lost."""
        token = lease.delivery.lock_token
        self._settled.pop(token, None)
        if not lease.is_valid(self._clock()):
            return
        self._leases[token] = lease
        self._watch(lease)

    def take(self, deliveries: Sequence[Delivery], *, for_good: bool) -> tuple[list[Lease[H]], list[Delivery]]:
        """The leases of *deliveries*, to settle them now, and the deliveries that are lost.

        Those that were settled *for_good* already, completed or dead-lettered, are in neither. What is taken ends no
        more; hold() it again if the settlement fails.
        """
        taken, lost = self._find(deliveries)
        for lease in taken:
            self._forget(lease)
            if for_good:
                self._settled[lease.delivery.lock_token] = None
        while len(self._settled) > _REMEMBERED:
            self._settled.popitem(last=False)
        return taken, lost

    def find(self, deliveries: Sequence[Delivery]) -> tuple[list[Lease[H]], list[Delivery]]:
        """The leases of *deliveries*, to renew them, and the deliveries that are lost, among them those settled."""
        found, lost = self._find(deliveries)
        settled = [delivery for delivery in deliveries if delivery.lock_token in self._settled]
        return found, lost + settled

    def renew(self, lease: Lease[H], locked_until: float) -> Delivery | None:
        """The delivery, locked until then; None if the lease has ended meanwhile."""
        if self._leases.get(lease.delivery.lock_token) is not lease or not lease.is_valid(self._clock()):
            return None
        old = lease.delivery
        lease.delivery = Delivery(
            message=old.message,
            queue=old.queue,
            lock_token=old.lock_token,
            locked_until=max(locked_until, old.locked_until),
            delivery_count=old.delivery_count,
        )
        self._watch(lease)
        return lease.delivery

    def confirm(self, leases: Iterable[Lease[H]], alive_at: float) -> None:
        """The product has a sign of life of *leases* that was sent at *alive_at*."""
        for lease in leases:
            lease.alive_at = max(lease.alive_at, alive_at)

    def release(self) -> list[Lease[H]]:
        """Hold nothing any more; the leases that were valid still, oldest first."""
        now = self._clock()
        valid = [lease for lease in self._leases.values() if lease.is_valid(now)]
        self.lose()
        return valid

    def lose(self) -> None:
        """All leases are lost: the product may give their messages to others."""
        self._leases.clear()
        self._ends.clear()
        for timer in (self._alarm, self._ticker):
            if timer is not None:
                timer.cancel()
        self._alarm = self._ticker = None
        self._alarm_at = self._tick_length = math.inf

    def _find(self, deliveries: Sequence[Delivery]) -> tuple[list[Lease[H]], list[Delivery]]:
        now = self._clock()
        found: dict[str, Lease[H]] = {}
        lost: list[Delivery] = []
        for delivery in deliveries:
            lease = self._leases.get(delivery.lock_token)
            if lease is not None and lease.is_valid(now):
                found[delivery.lock_token] = lease
            elif delivery.lock_token not in self._settled:
                lost.append(delivery)
        return list(found.values()), lost

    def _forget(self, lease: Lease[H]) -> None:
        del self._leases[lease.delivery.lock_token]
        if not self._leases:
            self.lose()  # stops the timers

    def _watch(self, lease: Lease[H]) -> None:
        ends_at = lease.delivery.locked_until
        heapq.heappush(self._ends, (ends_at, lease.delivery.lock_token))
        if ends_at < self._alarm_at:
            self._set_alarm(ends_at)
        if lease.own_lock is not None and lease.own_lock / 3 < self._tick_length:
            self._tick_length = lease.own_lock / 3
            if self._ticker is not None:
                self._ticker.cancel()
            self._ticker = asyncio.get_running_loop().call_later(self._tick_length, self._tick)

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = when
        self._alarm = asyncio.get_running_loop().call_later(max(0.0, when - self._clock()), self._ring)

    def _ring(self) -> None:
        """End what is over. A lease that was renewed meanwhile stands in the heap a second time, further behind."""
        now = self._clock()
        over: list[Lease[H]] = []
        while self._ends and self._ends[0][0] <= now:
            _, token = heapq.heappop(self._ends)
            lease = self._leases.get(token)
            if lease is not None and lease.delivery.locked_until <= now:
                del self._leases[token]
                over.append(lease)
        self._alarm, self._alarm_at = None, math.inf
        if self._ends:
            self._set_alarm(self._ends[0][0])
        if not self._leases:
            self.lose()
        # What the product may have taken back already is no longer ours to hand back.
        standing = [lease for lease in over if now < lease.stands_until]
        if standing:
            self._ended(standing)

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(self._tick_length, self._tick)
        now = self._clock()
        valid = [lease for lease in self._leases.values() if lease.is_valid(now)]
        if valid and self._beat is not None:
            self._beat(valid)
