"""What this broker object holds, and how it is let go: removed, handed back, or moved by a copy confirmed first."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from dumbwaiter.brokers.connection_holding import ConnectionHolding
from dumbwaiter.brokers.leases import Lease
from dumbwaiter.brokers.rabbitmq.decoding import fault_of
from dumbwaiter.brokers.rabbitmq.errors import MissingQueueError
from dumbwaiter.brokers.rabbitmq.holding import Desk, Held
from dumbwaiter.brokers.rabbitmq.names import dead_name
from dumbwaiter.brokers.rabbitmq.publishing import Copy, Publisher
from dumbwaiter.brokers.rabbitmq.wire import again, attributes_of, dead, delivery_count_of, fits, new_key
from dumbwaiter.brokers.served import Received
from dumbwaiter.errors import BrokerError, QueueNotFoundError
from dumbwaiter.message import Delivery

NameOfDelay: TypeAlias = Callable[[str, int, float], Awaitable[str]]
"""The physical queue that keeps a message of a queue's lane for so many seconds."""
_Settle: TypeAlias = Callable[[Desk, Sequence[Held]], Awaitable[bool]]


class Settling(ConnectionHolding[Held]):
    """What one broker object holds."""

    def __init__(
        self,
        prefix: str,
        publisher: Publisher,
        name_of_delay: NameOfDelay,
        *,
        lock_duration: float,
        deliveries_of: Callable[[str, list[Received]], Awaitable[list[Delivery]]],
    ) -> None:
        super().__init__(lock_duration=lock_duration, deliveries_of=deliveries_of)
        self._prefix = prefix
        self._publisher = publisher
        self._name_of_delay = name_of_delay
        self._salt = secrets.token_hex(4)
        self._count = 0

    async def accept(self, queue: str, came: Sequence[Held]) -> list[Delivery]:
        """Hold what *came* from *queue*."""
        now, since = time.time(), time.monotonic()
        received: list[Received] = []
        leases: dict[str, Lease[Held]] = {}
        for held in came:
            one = self._received(held, now, since)
            if (lease := self._hold(queue, one, held, own_lock=None, since=since)) is not None:
                received.append(one)
                leases[one.lock_token] = lease
        try:
            return await self._read(queue, received, leases)
        except asyncio.CancelledError:
            self.give_back_later([lease.delivery for lease in leases.values()])
            raise

    def _received(self, held: Held, now: float, since: float) -> Received:
        properties, self._count = held.message.header.properties, self._count + 1
        return Received(
            attributes=attributes_of(properties, now=now),
            body=held.message.body,
            id=properties.message_id and str(properties.message_id),
            lock_token=f"{self._salt}.{self._count}",
            locked_until=since + self._lock_duration,
            delivery_count=delivery_count_of(properties, redelivered=bool(held.message.redelivered)),
            fault=fault_of(properties),
        )

    def _is_up(self, held: Held) -> bool:
        return not held.desk.is_lost

    async def _remove(self, leases: list[Lease[Held]]) -> list[Delivery]:
        return await self._finish(leases, Desk.acknowledge)

    async def _hand_back(self, leases: list[Lease[Held]], delay: float, *, counted: bool) -> list[Delivery]:
        if delay <= 0 and counted:
            await self._finish(leases, Desk.hand_back)  # a channel that is lost does the same
            return []
        with self._restoring(leases), _naming(leases):
            copied, others = await self._copies(leases, delay, counted=counted)
        with self._restoring([lease for lease, _ in copied]):
            await self._finish(others, Desk.hand_back)
        await self._move([lease for lease, _ in copied], [copy for _, copy in copied])
        return []

    async def _bury(self, leases: list[Lease[Held]], reason: str, detail: str) -> list[Delivery]:
        dead_at, copies = time.time(), []
        for lease in leases:
            delivery, message = lease.delivery, lease.held.message
            properties = again(
                message.header.properties, delivery.message.id, before=delivery.delivery_count, now=dead_at
            )
            dead(
                properties,
                key=new_key(dead_at, secrets.token_hex(6)),
                reason=reason,
                detail=detail,
                dead_at=dead_at,
                frame_max=self._publisher.frame_max,
            )
            copies.append(Copy(dead_name(self._prefix, delivery.queue), message.body, properties))
        await self._move(leases, copies)
        return []

    def _on_ended(self, leases: list[Lease[Held]]) -> None:
        self.spawn(self._finish(leases, Desk.hand_back))

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

    async def _finish(self, leases: Sequence[Lease[Held]], settle: _Settle) -> list[Delivery]:
        """*settle* all; the deliveries whose channel is lost meanwhile. Nobody's cancelling leaves some out."""
        lost: list[Delivery] = []

        async def each_desk() -> None:
            for desk, held in _by_desk(lease.held for lease in leases):
                if not await settle(desk, held):
                    for lease in leases:
                        if lease.held.desk is desk:
                            self._leases.hold(lease)
                            lost.append(lease.delivery)

        await asyncio.shield(self.spawn(each_desk()))
        return lost

    async def _copies(
        self, leases: Sequence[Lease[Held]], delay: float, *, counted: bool
    ) -> tuple[list[tuple[Lease[Held], Copy]], list[Lease[Held]]]:
        """Copies of them, each for the lane from which it came; and those of which there can be none: not read, or too
        long.
        """
        now, copies, others = time.time(), [], []
        for lease in leases:
            delivery, consumer, message = lease.delivery, lease.held.consumer, lease.held.message
            name = consumer.name
            if delay > 0:
                name = await self._name_of_delay(delivery.queue, consumer.lane, delay)
            id_ = delivery.message.id if self._is_read(lease) else str(message.header.properties.message_id or "")
            before = delivery.delivery_count - (not counted)
            properties = again(message.header.properties, id_, before=before, now=now)
            if fits(properties, self._publisher.frame_max):
                copies.append((lease, Copy(name, message.body, properties)))
            else:
                others.append(lease)
        return copies, others

    async def _move(self, leases: Sequence[Lease[Held]], copies: Sequence[Copy]) -> None:
        """Remove the messages here once *copies* are elsewhere. A channel that is lost in between leaves a message
        there twice; none is lost.
        """
        with self._restoring(leases), _naming(leases):
            await self._publisher.publish(list(copies))
        await self._finish(leases, Desk.acknowledge)


@contextlib.contextmanager
def _naming(leases: Sequence[Lease[Held]]) -> Iterator[None]:
    """A physical queue that is missing means that the queue is."""
    try:
        yield
    except MissingQueueError:
        raise QueueNotFoundError(leases[0].delivery.queue) from None


def _by_desk(held: Iterable[Held]) -> list[tuple[Desk, list[Held]]]:
    desks: defaultdict[Desk, list[Held]] = defaultdict(list)
    for one in held:
        desks[one.desk].append(one)
    return list(desks.items())
