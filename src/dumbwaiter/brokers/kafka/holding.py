"""Deliveries of one broker object: made of what the ledger gave, and settled by it.

The ledger alone says who holds what; a token that it does not know any more settles nothing, whoever brings it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeAlias

import msgspec

from dumbwaiter.brokers.kafka.events import Abandon, Bury, Complete, Renew
from dumbwaiter.brokers.kafka.ledger import Taken
from dumbwaiter.brokers.kafka.link import Link
from dumbwaiter.brokers.kafka.names import DEAD
from dumbwaiter.brokers.kafka.reader import Reader
from dumbwaiter.brokers.kafka.replica import Replica, places_of
from dumbwaiter.brokers.kafka.wire import Found, Record, burial_of, smaller_burials
from dumbwaiter.brokers.served import Received
from dumbwaiter.errors import BrokerError, LockLostError, MessageTooLargeError
from dumbwaiter.message import Delivery

_EARLY = 0.02
"""A message that is due within so many seconds is served at once."""

_MANY = 10_000

Settlement: TypeAlias = Complete | Abandon | Bury | Renew


class Holding:
    """What one broker object holds. *replica_of* opens a queue's ledger; *deliveries_of* reads envelopes."""

    def __init__(
        self,
        link: Link,
        reader: Reader,
        *,
        lock_duration: float,
        replica_of: Callable[[str], Awaitable[Replica]],
        deliveries_of: Callable[[str, list[Received]], Awaitable[list[Delivery]]],
    ) -> None:
        self._link = link
        self._reader = reader
        self._lock_duration = lock_duration
        self._replica_of = replica_of
        self._deliveries_of = deliveries_of
        self._held: dict[str, dict[str, None]] = {}
        self._beside: set[asyncio.Task[Any]] = set()

    # --- taking over ---

    async def accept(self, replica: Replica, taken: list[Taken], locked_until: float) -> list[Delivery]:
        """Deliveries of what a Take got. What is not due yet goes back, and what is gone is done."""
        held = self._held.setdefault(replica.queue, {})
        held.update(dict.fromkeys(one.token for one in taken))
        if len(held) > _MANY:
            for token in [token for token in held if not replica.known.is_held(token)]:
                del held[token]
        try:
            found = await self._reader.read(places_of(replica, [one.position for one in taken]))
        except BaseException:
            self.spawn(self._abandon(replica, [one.token for one in taken], 0.0, counted=False))
            raise
        pairs = list(zip(taken, found, strict=True))
        due = [(one, read) for one, read in pairs if read is not None and _is_due(read)]
        received = [self._received(replica, one, read, locked_until) for one, read in due]
        self._send_on(replica, pairs)
        try:
            return await self._deliveries_of(replica.queue, received)
        except asyncio.CancelledError:
            self.spawn(self._abandon(replica, [one.token for one, _ in due], 0.0, counted=False))
            raise
        # Otherwise they stay locked: what can be neither read nor buried would come again at once, before all others.

    def _received(self, replica: Replica, one: Taken, read: Found, locked_until: float) -> Received:
        lane, partition, offset = one.position
        return Received(
            attributes=read.attributes,
            body=read.body,
            id=f"{replica.topics[lane]}.{partition}.{offset}",
            lock_token=one.token,
            locked_until=locked_until,
            delivery_count=one.count,
            fault=read.fault,
        )

    def _send_on(self, replica: Replica, pairs: list[tuple[Taken, Found | None]]) -> None:
        gone = [one.token for one, read in pairs if read is None]
        if gone:
            self.spawn(self._call(replica, Complete(replica.new_op(), gone)))
        for one, read in pairs:
            if read is not None and not _is_due(read):
                self.spawn(self._abandon(replica, [one.token], read.due - time.time(), counted=False))

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Hand *deliveries* back, which came for nobody, while others go on."""
        self.spawn(self.abandon(deliveries, 0.0, counted=False))

    def give_back_stray(self, replica: Replica, taken: list[Taken]) -> None:
        """Hand back what was taken for somebody who left."""
        self.spawn(self._abandon(replica, [one.token for one in taken], 0.0, counted=False))

    # --- settling ---

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        """As the contract says."""
        await self._settle(deliveries, lambda replica, ours: Complete(replica.new_op(), _tokens(ours)))

    async def abandon(self, deliveries: Sequence[Delivery], delay: float, *, counted: bool) -> None:
        """As the contract says."""

        def event(replica: Replica, ours: Sequence[Delivery]) -> Settlement:
            return Abandon(replica.new_op(), _tokens(ours), round(delay * 1000), counted)

        await self._settle(deliveries, event)

    async def dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None:
        """As the contract says. A copy whose burial the ledger refuses is nobody's, and goes with the next trim."""
        now = time.time()
        graves: dict[tuple[str, str], int] = {}
        for replica, ours in await self._by_queue(deliveries):
            records = [
                Record(
                    replica.topics[DEAD],
                    one.message.body,
                    burial_of(one.message, reason=reason, detail=detail, count=one.delivery_count, now=now),
                    partition=0,
                )
                for one in ours
            ]
            places = await self._write_graves(records)
            graves.update(zip(map(_name, ours), [offset for _, offset in places], strict=True))

        def event(replica: Replica, ours: Sequence[Delivery]) -> Settlement:
            return Bury(replica.new_op(), [(one.lock_token, graves[_name(one)]) for one in ours])

        await self._settle(deliveries, event)

    async def _write_graves(self, records: list[Record]) -> list[tuple[int, int]]:
        try:
            return await self._link.write(records)
        except MessageTooLargeError:
            # Those of the others that were written are nobody's.
            return [await self._write_grave(record) for record in records]

    async def _write_grave(self, record: Record) -> tuple[int, int]:
        *first, last = (record, *smaller_burials(record))
        for smaller in first:
            with contextlib.suppress(MessageTooLargeError):
                return (await self._link.write([smaller]))[0]
        return (await self._link.write([last]))[0]

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """As the contract says."""
        lost: set[tuple[str, str]] = set()
        asked_at = time.monotonic()
        length = max(1, round(self._lock_duration * 1000))
        for replica, ours in await self._by_queue(deliveries):
            gone = await self._call(replica, Renew(replica.new_op(), _tokens(ours), length), settles=False)
            lost.update((replica.queue, token) for token in gone)
        until = asked_at + self._lock_duration
        renewed = [
            msgspec.structs.replace(one, locked_until=max(until, one.locked_until))
            for one in deliveries
            if _name(one) not in lost
        ]
        if lost:
            raise LockLostError([one for one in deliveries if _name(one) in lost], renewed)
        return renewed

    async def close(self) -> None:
        """Hand back what is held, uncounted, as far as the brokers can be reached."""
        if self._beside:
            await asyncio.wait(self._beside)
        for queue, tokens in self._held.items():
            if tokens:
                with contextlib.suppress(BrokerError):  # their locks run out
                    replica = await self._replica_of(queue)
                    await self._abandon(replica, list(tokens), 0.0, counted=False)

    async def _settle(
        self, deliveries: Sequence[Delivery], event: Callable[[Replica, Sequence[Delivery]], Settlement]
    ) -> None:
        lost: set[tuple[str, str]] = set()
        for replica, ours in await self._by_queue(deliveries):
            gone = await self._call(replica, event(replica, ours))
            lost.update((replica.queue, token) for token in gone)
        if lost:
            raise LockLostError([one for one in deliveries if _name(one) in lost])

    async def _by_queue(self, deliveries: Sequence[Delivery]) -> list[tuple[Replica, list[Delivery]]]:
        by_queue: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            by_queue.setdefault(delivery.queue, []).append(delivery)
        return [(await self._replica_of(queue), ours) for queue, ours in by_queue.items()]

    async def _abandon(self, replica: Replica, tokens: list[str], delay: float, *, counted: bool) -> None:
        await self._call(replica, Abandon(replica.new_op(), tokens, round(delay * 1000), counted))

    async def _call(self, replica: Replica, event: Settlement, *, settles: bool = True) -> list[str]:
        """The tokens of *event* that are lost."""
        lost = await replica.settle(event)
        held = self._held.get(replica.queue, {})
        tokens = [token for token, _ in event.graves] if isinstance(event, Bury) else event.tokens
        for token in tokens if settles else lost:
            held.pop(token, None)
        return lost

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Let *work* run on, whoever leaves; close() waits for it. Locks that it cannot hand back run out."""

        async def quietly() -> None:
            with contextlib.suppress(BrokerError):
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)


def _is_due(read: Found) -> bool:
    return read.due <= time.time() + _EARLY


def _name(delivery: Delivery) -> tuple[str, str]:
    """A token is one of its queue: two queues may have the same."""
    return delivery.queue, delivery.lock_token


def _tokens(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.lock_token for delivery in deliveries]
