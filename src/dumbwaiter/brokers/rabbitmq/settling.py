"""What this broker object holds, and how it is let go: removed, handed back, or moved by a copy confirmed first."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from dumbwaiter.brokers.leases import Lease, Leases
from dumbwaiter.brokers.rabbitmq.errors import MissingQueueError
from dumbwaiter.brokers.rabbitmq.holding import Desk, Held
from dumbwaiter.brokers.rabbitmq.names import dead_name
from dumbwaiter.brokers.rabbitmq.publishing import Copy, Publisher
from dumbwaiter.brokers.rabbitmq.wire import again, dead, delivery_count_of, fits, new_key
from dumbwaiter.errors import BrokerError, LockLostError, QueueNotFoundError
from dumbwaiter.message import Delivery

NameOfDelay: TypeAlias = Callable[[str, int, float], Awaitable[str]]
"""The physical queue that keeps a message of a queue's lane for so many seconds."""
_Settle: TypeAlias = Callable[[Desk, Sequence[Held]], Awaitable[bool]]


class Settling:
    """The deliveries that are held, by their tokens."""

    def __init__(self, prefix: str, publisher: Publisher, name_of_delay: NameOfDelay) -> None:
        self._prefix = prefix
        self._publisher = publisher
        self._name_of_delay = name_of_delay
        self._leases: Leases[Held] = Leases(ended=self._lapsed)
        self._tasks: set[asyncio.Task[Any]] = set()

    def hold(self, delivery: Delivery, held: Held) -> None:
        """*delivery* is held from now on."""
        self._leases.hold(Lease(delivery, held, own_lock=None, alive_at=time.monotonic()))

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        """Remove the messages for good."""
        leases, lost = self._take(deliveries, for_good=True)
        await self._finish(leases, Desk.acknowledge, lost)
        _raise_if(lost)

    async def abandon(self, deliveries: Sequence[Delivery], delay: float, *, counted: bool) -> None:
        """Hand the messages back: by the server at their old places, where nothing else is wanted."""
        leases, lost = self._take(deliveries, for_good=False)
        if delay <= 0 and counted:
            await self._finish(leases, Desk.hand_back, [])  # a channel that is lost does the same
        else:
            copied, others = await self._copies(leases, delay, counted=counted)
            with self._restoring([lease for lease, _ in copied]):
                await self._finish(others, Desk.hand_back, [])
            await self._move([lease for lease, _ in copied], self._publisher.publish([copy for _, copy in copied]))
        _raise_if(lost)

    async def dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None:
        """Move the messages to the dead letters."""
        leases, lost = self._take(deliveries, for_good=True)
        dead_at, copies = time.time(), []
        for lease in leases:
            delivery, message = lease.delivery, lease.held.message
            properties = again(
                message.header.properties, delivery.message.id, before=delivery.delivery_count, now=dead_at
            )
            key = new_key(dead_at, secrets.token_hex(6))
            dead(
                properties,
                key=key,
                reason=reason,
                detail=detail,
                dead_at=dead_at,
                frame_max=self._publisher.frame_max,
            )
            copies.append(Copy(dead_name(self._prefix, delivery.queue), message.body, properties))
        await self._move(leases, self._publisher.publish(copies))
        _raise_if(lost)

    def renew(self, deliveries: Sequence[Delivery], locked_until: float) -> list[Delivery]:
        """The deliveries, locked until then."""
        leases, lost = self._leases.find(deliveries)
        lost += [lease.delivery for lease in leases if lease.held.desk.is_lost]
        renewed = [self._leases.renew(lease, locked_until) for lease in leases if not lease.held.desk.is_lost]
        standing = [one for one in renewed if one is not None]
        if lost:
            raise LockLostError(lost, standing)
        return standing

    async def close(self, here: Iterable[Held]) -> None:
        """Hand back all that is held, and *here* too, uncounted; raises nothing."""
        await self.put_back_uncounted([*(lease.held for lease in self._leases.release()), *here])
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def put_back_uncounted(self, held: Sequence[Held]) -> None:
        """At the end of their lanes; at their old places, but counted, where nothing can be published, or not that."""
        now, copies, moved = time.time(), [], set()
        standing = [one for one in held if not one.desk.is_lost]
        for one in standing:
            properties = one.message.header.properties
            before = delivery_count_of(properties, redelivered=bool(one.message.redelivered)) - 1
            copied = again(properties, properties.message_id or "", before=before, now=now)
            if fits(copied, self._publisher.frame_max):
                copies.append(Copy(one.consumer.name, one.message.body, copied))
                moved.add(one)
        try:
            await self._publisher.publish(copies)
        except (BrokerError, MissingQueueError):
            moved = set()
        for desk, group in _by_desk(moved):
            await desk.acknowledge(group)
        for desk, group in _by_desk(one for one in standing if one not in moved):
            await desk.hand_back(group)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work*, which nobody waits for but close()."""
        self._keep(asyncio.create_task(work))

    def _take(self, deliveries: Sequence[Delivery], *, for_good: bool) -> tuple[list[Lease[Held]], list[Delivery]]:
        """As Leases.take(), but what was held on a channel that is lost is lost."""
        leases, lost = self._leases.take(deliveries, for_good=for_good)
        standing = []
        for lease in leases:
            if lease.held.desk.is_lost:
                self._leases.hold(lease)  # it was not settled
                lost.append(lease.delivery)
            else:
                standing.append(lease)
        return standing, lost

    async def _finish(self, leases: Sequence[Lease[Held]], settle: _Settle, lost: list[Delivery]) -> None:
        """*settle* all; those whose channel is lost meanwhile are *lost* too. Nobody's cancelling leaves some out."""

        async def each_desk() -> None:
            for desk, held in _by_desk(lease.held for lease in leases):
                if not await settle(desk, held):
                    for lease in leases:
                        if lease.held.desk is desk:
                            self._leases.hold(lease)
                            lost.append(lease.delivery)

        await asyncio.shield(self._keep(asyncio.create_task(each_desk())))

    async def _copies(
        self, leases: Sequence[Lease[Held]], delay: float, *, counted: bool
    ) -> tuple[list[tuple[Lease[Held], Copy]], list[Lease[Held]]]:
        """Copies of them, each for the lane from which it came; and those whose properties are too long for one."""
        now, copies, others = time.time(), [], []
        with self._restoring(leases):
            for lease in leases:
                delivery, consumer, message = lease.delivery, lease.held.consumer, lease.held.message
                name = consumer.name
                if delay > 0:
                    name = await self._name_of_delay(delivery.queue, consumer.lane, delay)
                before = delivery.delivery_count - (not counted)
                properties = again(message.header.properties, delivery.message.id, before=before, now=now)
                if fits(properties, self._publisher.frame_max):
                    copies.append((lease, Copy(name, message.body, properties)))
                else:
                    others.append(lease)
        return copies, others

    async def _move(self, leases: Sequence[Lease[Held]], publish: Coroutine[Any, Any, None]) -> None:
        """Remove the messages here once *publish* has put their copies elsewhere. A channel that is lost in between
        leaves a message there twice; none is lost.
        """
        with self._restoring(leases):
            await publish
        await self._finish(leases, Desk.acknowledge, [])

    @contextlib.contextmanager
    def _restoring(self, leases: Sequence[Lease[Held]]) -> Iterator[None]:
        """Hold *leases*, which were taken, again when what follows fails."""
        try:
            yield
        except BaseException as error:
            for lease in leases:
                self._hold_again(lease)
            if isinstance(error, MissingQueueError):
                raise QueueNotFoundError(leases[0].delivery.queue) from None
            raise

    def _hold_again(self, lease: Lease[Held]) -> None:
        if lease.is_valid(time.monotonic()):
            self._leases.hold(lease)
        else:
            self._lapsed([lease])

    def _lapsed(self, leases: Sequence[Lease[Held]]) -> None:
        """Their locks ran out: others shall have them."""
        self.start(self._hand_back([lease.held for lease in leases]))

    async def _hand_back(self, held: Sequence[Held]) -> None:
        for desk, group in _by_desk(held):
            await desk.hand_back(group)

    def _keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _by_desk(held: Iterable[Held]) -> list[tuple[Desk, list[Held]]]:
    desks: defaultdict[Desk, list[Held]] = defaultdict(list)
    for one in held:
        desks[one.desk].append(one)
    return list(desks.items())


def _raise_if(lost: Sequence[Delivery]) -> None:
    if lost:
        raise LockLostError(lost)
