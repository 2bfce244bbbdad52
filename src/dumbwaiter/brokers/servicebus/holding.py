"""Deliveries of one broker object: held, renewed, settled and handed back.

Service Bus refuses a lock token that is stale; LockDuration of the queue says how long its lock lasts, and leases.py
keeps ours above it. What Service Bus cannot do to a message, a delay before it comes back, is done by a copy: it is
sent, and then the original is completed. A crash between the two leaves both, which is a message delivered twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec
from azure.servicebus import ServiceBusReceivedMessage

from dumbwaiter.brokers.contract import Claim
from dumbwaiter.brokers.leases import Lease, Leases
from dumbwaiter.brokers.served import Received
from dumbwaiter.brokers.servicebus.desk import Order, Verb
from dumbwaiter.brokers.servicebus.entities import Entities
from dumbwaiter.brokers.servicebus.names import lane_named, name_of
from dumbwaiter.brokers.servicebus.tap import Tap
from dumbwaiter.brokers.servicebus.wire import LONGEST_REASON, Arrived, note_of, outgoing, read
from dumbwaiter.errors import BrokerError, BrokerUnavailableError, LockLostError
from dumbwaiter.message import Delivery, Message

_SHORTEST_LOCK = 1.0
_UNREAD = Message(id="unread")


class Came(msgspec.Struct, frozen=True):
    """A *message* that was received, from this *lane* of a queue, which is the entity *name*, by *tap*."""

    message: ServiceBusReceivedMessage
    lane: int
    name: str
    tap: Tap


class Held(msgspec.Struct):
    """How a delivery is settled. *is_copied*: its copy has been sent already, and only completing it failed."""

    came: Came
    arrived: Arrived
    is_copied: bool = False


class Holding:
    """What one broker object holds. *deliveries_of* reads envelopes, and dead-letters those that cannot be read."""

    def __init__(
        self,
        entities: Entities,
        prefix: str,
        *,
        lock_duration: float,
        deliveries_of: Callable[[str, list[Received]], Awaitable[list[Delivery]]],
    ) -> None:
        self._entities, self._prefix = entities, prefix
        self._lock_duration = lock_duration
        self._deliveries_of = deliveries_of
        self._leases: Leases[Held] = Leases(ended=self._on_ended, beat=self._on_beat)
        self._beside: set[asyncio.Task[Any]] = set()

    # --- taking over ---

    async def accept(self, queue: str, came: Sequence[Came]) -> list[Delivery]:
        """Hold what *came* from *queue*."""
        received: list[Received] = []
        leases: dict[str, Lease[Held]] = {}
        now = time.monotonic()
        for one in came:
            arrived = read(one.message)
            if arrived.token is None:
                continue
            token = str(arrived.token)
            until = now + self._lock_duration
            delivery = Delivery(
                message=_UNREAD,
                queue=queue,
                lock_token=token,
                locked_until=until,
                delivery_count=arrived.delivery_count + 1,
            )
            # By the service's clock; whoever runs with another one settles in vain at worst, for the service decides.
            own_lock = max(_SHORTEST_LOCK, arrived.locked_until - time.time())
            lease = leases[token] = Lease(delivery, Held(one, arrived), own_lock=own_lock, alive_at=now)
            self._leases.hold(lease)
            received.append(_received(arrived, delivery))
        try:
            deliveries = await self._deliveries_of(queue, received)
        except BrokerError:
            self.spawn(self.abandon([lease.delivery for lease in leases.values()], 0.0, counted=False))
            raise
        for delivery in deliveries:
            leases[delivery.lock_token].delivery = delivery
        return deliveries

    # --- settling ---

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        """As the contract says."""
        leases, lost = self._leases.take(deliveries, for_good=True)
        lost += await self._settle(leases, "completed")
        if lost:
            raise LockLostError(lost)

    async def dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None:
        """As the contract says."""
        leases, lost = self._leases.take(deliveries, for_good=True)
        now = time.time()

        def notes(lease: Lease[Held]) -> tuple[str, str]:
            return reason[:LONGEST_REASON], note_of(detail, lease.delivery.delivery_count, now)

        lost += await self._settle(leases, "suspended", notes)
        if lost:
            raise LockLostError(lost)

    async def abandon(self, deliveries: Sequence[Delivery], delay: float, *, counted: bool) -> None:
        """As the contract says."""
        leases, lost = self._leases.take(deliveries, for_good=False)
        lost += await self._hand_back(leases, delay, counted=counted)
        if lost:
            raise LockLostError(lost)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """As the contract says."""
        leases, lost = self._leases.find(deliveries)
        asked_at = time.monotonic()
        gone = await self._renew(leases)
        renewed: dict[str, Delivery] = {}
        for lease in leases:
            delivery = None if lease in gone else self._leases.renew(lease, asked_at + self._lock_duration)
            if delivery is None:
                lost.append(lease.delivery)
            else:
                renewed[delivery.lock_token] = delivery
        kept = [renewed[delivery.lock_token] for delivery in deliveries if delivery.lock_token in renewed]
        if lost:
            raise LockLostError(lost, kept)
        return kept

    def claim_of(self, delivery: Delivery) -> Claim | None:
        """As the contract says."""
        found, _ = self._leases.find([delivery])
        if not found or found[0].is_unsure:
            return None
        held = found[0].held
        return Claim(delivery.queue, f"{held.came.lane}.{held.arrived.token}", found[0].delivery.locked_until)

    async def take_back(self, claims: Sequence[Claim]) -> int:
        """As the contract says. Service Bus tells by the token whether that lock still stands."""
        by_name: dict[str, list[Order]] = {}
        for claim in claims:
            lane, _, token = claim.token.partition(".")
            with contextlib.suppress(ValueError):  # somebody else wrote it
                order = Order("abandoned", uuid.UUID(token))
                by_name.setdefault(name_of(self._prefix, claim.queue, lane_named(lane)), []).append(order)
        outcomes = await asyncio.gather(*(self._entities.desk(name).do(some) for name, some in by_name.items()))
        flat = [outcome for some in outcomes for outcome in some]
        for outcome in flat:
            if isinstance(outcome, BrokerError):
                raise BrokerUnavailableError(str(outcome))
        return sum(outcome is True for outcome in flat)

    async def release(self, came: Sequence[Came]) -> None:
        """Hand back at once what nobody holds, uncounted where that is possible."""
        for tap in {id(one.tap): one.tap for one in came}.values():
            ours = [one for one in came if one.tap is tap]
            left = await tap.release([one.message for one in ours])
            for one in ours:
                if any(one.message is message for message in left) and (token := read(one.message).token):
                    await self._entities.desk(one.name).do([Order("abandoned", token)])

    def give_back_later(self, deliveries: list[Delivery]) -> None:
        """Hand *deliveries* back, which came for nobody, while others go on."""
        self.spawn(self.abandon(deliveries, 0.0, counted=False))

    async def close(self) -> None:
        """Hand back what is held, uncounted, as far as Service Bus can be reached."""
        if self._beside:
            await asyncio.wait(self._beside)
        with contextlib.suppress(BrokerError):  # their locks run out
            await self._hand_back(self._leases.release(), 0.0, counted=False)
        self._leases.lose()

    # --- how ---

    async def _hand_back(self, leases: list[Lease[Held]], delay: float, *, counted: bool) -> list[Delivery]:
        """Hand the messages of *leases* back. Returns the deliveries that are lost."""
        if delay > 0:
            copied = [lease for lease in leases if lease.delivery.message is not _UNREAD]
            lost = await self._replace(copied, time.time() + delay, counted=counted)
            return lost + await self._settle([lease for lease in leases if lease not in copied], "abandoned")
        if counted:
            return await self._settle(leases, "abandoned")
        lost = []
        for tap in {id(lease.held.came.tap): lease.held.came.tap for lease in leases}.values():
            ours = [lease for lease in leases if lease.held.came.tap is tap]
            with _restoring(self._leases, ours):
                left = await tap.release([lease.held.came.message for lease in ours])
            gone = [lease for lease in ours if any(lease.held.came.message is one for one in left)]
            lost += await self._replace(gone, None, counted=False)
        return lost

    async def _replace(self, leases: list[Lease[Held]], due: float | None, *, counted: bool) -> list[Delivery]:
        """Send copies of the messages of *leases*, and complete these. Returns the deliveries that are lost."""
        readable = [lease for lease in leases if lease.delivery.message is not _UNREAD]
        with _restoring(self._leases, readable):
            for name in {lease.held.came.name for lease in readable}:
                missing = [one for one in readable if one.held.came.name == name and not one.held.is_copied]
                copies = [
                    outgoing(
                        one.delivery.message, count=one.delivery.delivery_count - (not counted), due=due, is_copy=True
                    )
                    for one in missing
                ]
                if copies:
                    await self._entities.send(missing[0].delivery.queue, name, copies)
                for one in missing:
                    one.held.is_copied = True
        lost = await self._settle(readable, "completed")
        return lost + await self._settle([lease for lease in leases if lease not in readable], "abandoned")

    async def _settle(
        self,
        leases: list[Lease[Held]],
        verb: Verb,
        notes: Callable[[Lease[Held]], tuple[str, str]] = lambda _: ("", ""),
    ) -> list[Delivery]:
        """Do *verb* with the messages of *leases*; those that nobody knows of are held again. Returns the lost ones."""
        lost: list[Delivery] = []
        error: BrokerError | None = None
        for lease, outcome in await self._do(leases, verb, notes):
            if isinstance(outcome, BrokerError):
                error = outcome
                lease.is_unsure = True
                self._leases.hold(lease)
            # One that was under way when the connection broke may have been done then.
            elif not outcome and not lease.is_unsure:
                lost.append(lease.delivery)
        if error is not None:
            raise BrokerUnavailableError(str(error))
        return lost

    async def _renew(self, leases: list[Lease[Held]]) -> list[Lease[Held]]:
        """Have the service lock the messages of *leases* anew. Returns the leases that are lost."""
        asked_at = time.monotonic()
        gone: list[Lease[Held]] = []
        for lease, outcome in await self._do(leases, "renew", lambda _: ("", "")):
            if isinstance(outcome, BrokerError):
                raise BrokerUnavailableError(str(outcome))
            if outcome:
                self._leases.confirm([lease], asked_at)
            else:
                gone.append(lease)
        return gone

    async def _do(
        self, leases: Sequence[Lease[Held]], verb: Verb, notes: Callable[[Lease[Held]], tuple[str, str]]
    ) -> list[tuple[Lease[Held], bool | BrokerError]]:
        by_name: dict[str, list[Lease[Held]]] = {}
        for lease in leases:
            by_name.setdefault(lease.held.came.name, []).append(lease)

        async def ask(name: str, ours: list[Lease[Held]]) -> list[tuple[Lease[Held], bool | BrokerError]]:
            orders = [Order(verb, token, *notes(one)) for one in ours if (token := one.held.arrived.token) is not None]
            return list(zip(ours, await self._entities.desk(name).do(orders), strict=True))

        outcomes = await asyncio.gather(*(ask(name, ours) for name, ours in by_name.items()))
        return [one for some in outcomes for one in some]

    # --- beside ---

    def _on_ended(self, leases: list[Lease[Held]]) -> None:
        self.spawn(self._settle(leases, "abandoned"))

    def _on_beat(self, leases: list[Lease[Held]]) -> None:
        self.spawn(self._renew(leases))

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Let *work* run on, whoever leaves; close() waits for it. Locks that it cannot hand back run out."""

        async def quietly() -> None:
            with contextlib.suppress(BrokerError):
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)


@contextlib.contextmanager
def _restoring(leases: Leases[Held], taken: list[Lease[Held]]) -> Any:
    """Hold what was *taken* again when what follows fails."""
    try:
        yield
    except BaseException:
        for lease in taken:
            leases.hold(lease)
        raise


def _received(arrived: Arrived, delivery: Delivery) -> Received:
    return Received(
        attributes=arrived.attributes,
        body=arrived.body,
        id=arrived.id,
        lock_token=delivery.lock_token,
        locked_until=delivery.locked_until,
        delivery_count=delivery.delivery_count,
        fault=arrived.fault,
    )
