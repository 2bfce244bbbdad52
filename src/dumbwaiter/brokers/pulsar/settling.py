"""What this broker object holds, and how it is let go: removed, handed back, or moved by a copy confirmed first."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from dumbwaiter.brokers.leases import Lease, Leases
from dumbwaiter.brokers.pulsar.errors import LARGEST_BODY
from dumbwaiter.brokers.pulsar.holding import Held, LaneTap
from dumbwaiter.brokers.pulsar.link import Link
from dumbwaiter.brokers.pulsar.names import Names
from dumbwaiter.brokers.pulsar.reading import event_time_of, id_of, properties_at
from dumbwaiter.brokers.pulsar.wire import Copy, again, dead, delayed, delivery_count_of, nbytes_of, smaller
from dumbwaiter.errors import BrokerError, LockLostError, MessageTooLargeError
from dumbwaiter.message import Delivery

_PAUSE = 1.0
"""Seconds at least for which one rests that is too large for a copy."""
_Otherwise: TypeAlias = Callable[[Lease[Held], Copy], "Copy | None"]


class Settling:
    """The deliveries that are held, by their tokens."""

    def __init__(self, names: Names, link: Link) -> None:
        self._names = names
        self._link = link
        self._leases: Leases[Held] = Leases(ended=self._lapsed)
        self._tasks: set[asyncio.Task[Any]] = set()

    def hold(self, delivery: Delivery, held: Held) -> None:
        """*delivery* is held from now on."""
        self._leases.hold(Lease(delivery, held, own_lock=None, alive_at=time.monotonic()))

    def complete(self, deliveries: Sequence[Delivery]) -> None:
        """Remove the messages for good."""
        leases, gone = self._take(deliveries, for_good=True)
        _each_tap(leases, LaneTap.acknowledge)
        _raise_if(gone)

    async def abandon(self, deliveries: Sequence[Delivery], delay: float, *, counted: bool) -> None:
        """Hand the messages back: by the server, where nothing else is wanted."""
        leases, gone = self._take(deliveries, for_good=False)
        if delay <= 0 and counted:
            _each_tap(leases, LaneTap.hand_back)
        else:
            copies = [self._again(lease, delay, counted=counted) for lease in leases]
            await self._move(leases, copies, otherwise=lambda lease, _: self._let_lapse(lease, delay))
        _raise_if(gone)

    async def dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None:
        """Move the messages to the dead letters."""
        leases, gone = self._take(deliveries, for_good=True)
        dead_at, copies = time.time(), []
        for lease in leases:
            delivery, message = lease.delivery, lease.held.message
            properties = again(
                properties_at(message),
                delivery.message.id,
                before=delivery.delivery_count,
                event_time=event_time_of(message),
            )
            properties = dead(properties, reason=reason, detail=detail, dead_at=dead_at)
            copies.append(Copy(self._names.dead(delivery.queue), message.data(), properties))
        await self._move(leases, copies, otherwise=_with_less)
        _raise_if(gone)

    def renew(self, deliveries: Sequence[Delivery], locked_until: float) -> list[Delivery]:
        """The deliveries, locked until then."""
        leases, gone = self._leases.find(deliveries)
        gone += [lease.delivery for lease in leases if not lease.held.tap.is_up]
        standing = []
        for lease in leases:
            if lease.held.tap.is_up:
                renewed = self._leases.renew(lease, locked_until)
                if renewed is None:  # it has ended since
                    gone.append(lease.delivery)
                else:
                    standing.append(renewed)
        if gone:
            raise LockLostError(gone, standing)
        return standing

    async def close(self, here: Iterable[Held]) -> None:
        """Hand back all that is held, and *here* too, uncounted; raises nothing."""
        # Not to its lane, where what this broker object has asked for could get it once more, and that would count.
        await self.put_back([*(lease.held for lease in self._leases.release()), *here], is_closing=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def put_back(self, held: Sequence[Held], *, is_closing: bool = False) -> None:
        """Uncounted, at the end of their lanes (*is_closing*: once anybody receives); counted, where nothing can be
        published, or not that.
        """
        standing = [one for one in held if one.tap.is_up]
        copies = []
        for one in standing:
            message = one.message
            properties = properties_at(message)
            before = delivery_count_of(properties, message.redelivery_count()) - 1
            copied = again(properties, id_of(message), before=before, event_time=event_time_of(message))
            topic = one.tap.topic
            if is_closing:
                topic, copied = self._names.later(topic), delayed(copied, due=0.0, lane=one.tap.lane)
            copies.append(Copy(topic, message.data(), copied))
        try:
            staying = await self._link.publish_what_fits(copies)
        except BrokerError:
            staying = set(range(len(copies)))
        for place, one in enumerate(standing):
            if one.tap.is_up:
                (LaneTap.hand_back if place in staying else LaneTap.acknowledge)(one.tap, [one])

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work*, which nobody waits for but close()."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, deliveries: Sequence[Delivery], *, for_good: bool) -> tuple[list[Lease[Held]], list[Delivery]]:
        """As Leases.take(), but what a lost connection held is lost."""
        leases, gone = self._leases.take(deliveries, for_good=for_good)
        standing = []
        for lease in leases:
            if lease.held.tap.is_up:
                standing.append(lease)
            else:
                self._leases.hold(lease)  # it was not settled
                gone.append(lease.delivery)
        return standing, gone

    def _again(self, lease: Lease[Held], delay: float, *, counted: bool) -> Copy:
        """A copy for the lane from which it came, or for later."""
        delivery, held = lease.delivery, lease.held
        message = held.message
        before = delivery.delivery_count - (not counted)
        properties = again(
            properties_at(message), delivery.message.id, before=before, event_time=event_time_of(message)
        )
        if delay <= 0:
            return Copy(held.tap.topic, message.data(), properties)
        due = time.time() + delay
        properties = delayed(properties, due=due, lane=held.tap.lane)
        return Copy(self._names.delayed(delivery.queue), message.data(), properties, due)

    async def _move(self, leases: Sequence[Lease[Held]], copies: Sequence[Copy], *, otherwise: _Otherwise) -> None:
        """Remove the messages here once *copies* are elsewhere. What is lost in between leaves a message there twice;
        none is lost. Nobody's cancelling leaves some out.

        Of one that is too large *otherwise* gives another copy, or sees to the message itself and gives None. Where it
        raises MessageTooLargeError, that one is held again, and the error is raised when the others have moved.
        """
        task = asyncio.create_task(self._publish_and_remove(list(zip(leases, copies, strict=True)), otherwise))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await asyncio.shield(task)

    async def _publish_and_remove(self, left: list[tuple[Lease[Held], Copy]], otherwise: _Otherwise) -> None:
        fault: MessageTooLargeError | None = None
        while left:
            try:
                too_large = await self._link.publish_what_fits([copy for _, copy in left])
            except BaseException:
                for lease, _ in left:
                    self._hold_again(lease)
                raise
            moved = [lease for place, (lease, _) in enumerate(left) if place not in too_large]
            _each_tap([lease for lease in moved if lease.held.tap.is_up], LaneTap.acknowledge)
            refused, left = [left[place] for place in sorted(too_large)], []
            for lease, copy in refused:
                try:
                    other = otherwise(lease, copy)
                except MessageTooLargeError as error:
                    fault = error
                    self._hold_again(lease)
                else:
                    left += [] if other is None else [(lease, other)]
        if fault is not None:
            raise fault

    def _let_lapse(self, lease: Lease[Held], delay: float) -> None:
        """Have it handed back, counted, after *delay*: the server does that itself, and needs no copy for it."""
        now = time.monotonic()
        token, until = f"{lease.delivery.lock_token}.lapsing", now + max(delay, _PAUSE)
        delivery = msgspec.structs.replace(lease.delivery, lock_token=token, locked_until=until)
        self._leases.hold(Lease(delivery, lease.held, own_lock=None, alive_at=now))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen here, for whoever started it may be gone

    def _hold_again(self, lease: Lease[Held]) -> None:
        if lease.is_valid(time.monotonic()):
            self._leases.hold(lease)
        else:
            self._lapsed([lease])

    def _lapsed(self, leases: Sequence[Lease[Held]]) -> None:
        """Their locks ran out: others shall have them."""
        _each_tap([lease for lease in leases if lease.held.tap.is_up], LaneTap.hand_back)


def _with_less(lease: Lease[Held], copy: Copy) -> Copy:
    """The dead letter *copy* with less of its note. Raises MessageTooLargeError where nothing is left of that."""
    less = smaller(copy, properties_at(lease.held.message))
    if less is None:
        raise MessageTooLargeError(nbytes_of(copy), LARGEST_BODY)
    return less


def _each_tap(leases: Sequence[Lease[Held]], settle: Callable[[LaneTap, list[Held]], None]) -> None:
    for tap, held in _by_tap(lease.held for lease in leases):
        settle(tap, held)


def _by_tap(held: Iterable[Held]) -> list[tuple[LaneTap, list[Held]]]:
    taps: defaultdict[LaneTap, list[Held]] = defaultdict(list)
    for one in held:
        taps[one.tap].append(one)
    return list(taps.items())


def _raise_if(gone: Sequence[Delivery]) -> None:
    if gone:
        raise LockLostError(gone)
