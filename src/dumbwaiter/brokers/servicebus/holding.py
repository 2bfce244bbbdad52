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
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from azure.servicebus import ServiceBusReceivedMessage

from dumbwaiter.brokers.contract import Claim
from dumbwaiter.brokers.lease_holding import LeaseHolding
from dumbwaiter.brokers.leases import Lease
from dumbwaiter.brokers.served import Received
from dumbwaiter.brokers.servicebus.desk import Order, Verb
from dumbwaiter.brokers.servicebus.entities import Entities
from dumbwaiter.brokers.servicebus.errors import UnaskedError
from dumbwaiter.brokers.servicebus.names import lane_named, name_of
from dumbwaiter.brokers.servicebus.tap import Tap
from dumbwaiter.brokers.servicebus.wire import LONGEST_REASON, Arrived, note_of, outgoing, read
from dumbwaiter.errors import BrokerError, BrokerUnavailableError
from dumbwaiter.message import Delivery

_SHORTEST_LOCK = 1.0


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


class Holding(LeaseHolding[Held]):
    """What one broker object holds."""

    def __init__(
        self,
        entities: Entities,
        prefix: str,
        *,
        lock_duration: float,
        deliveries_of: Callable[[str, list[Received]], Awaitable[list[Delivery]]],
    ) -> None:
        super().__init__(lock_duration=lock_duration, deliveries_of=deliveries_of)
        self._entities, self._prefix = entities, prefix

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
            made = _received(arrived, now + self._lock_duration)
            # By the service's clock; whoever runs with another one settles in vain at worst, for the service decides.
            own_lock = max(_SHORTEST_LOCK, arrived.locked_until - time.time())
            lease = self._hold(queue, made, Held(one, arrived), own_lock=own_lock, since=now)
            if lease is not None:
                received.append(made)
                leases[made.lock_token] = lease
        return await self._read(queue, received, leases)

    # --- settling ---

    async def _remove(self, leases: list[Lease[Held]]) -> list[Delivery]:
        return await self._settle(leases, "completed")

    async def _bury(self, leases: list[Lease[Held]], reason: str, detail: str) -> list[Delivery]:
        now = time.time()

        def notes(lease: Lease[Held]) -> tuple[str, str]:
            return reason[:LONGEST_REASON], note_of(detail, lease.delivery.delivery_count, now)

        return await self._settle(leases, "suspended", notes)

    def claim_of(self, delivery: Delivery) -> Claim | None:
        """As the contract says."""
        found, _ = self._leases.find([delivery])
        if not found or found[0].is_unsure:
            return None
        held = found[0].held
        until = min(found[0].delivery.locked_until, found[0].stands_until)
        return Claim(delivery.queue, f"{held.came.lane}.{held.arrived.token}", until)

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

    # --- how ---

    async def _hand_back(self, leases: list[Lease[Held]], delay: float, *, counted: bool) -> list[Delivery]:
        if delay > 0:
            return await self._replace(leases, time.time() + delay, counted=counted)
        if counted:
            return await self._settle(leases, "abandoned")
        by_tap: dict[int, list[Lease[Held]]] = {}
        for lease in leases:
            by_tap.setdefault(id(lease.held.came.tap), []).append(lease)
        # One that fails keeps no other from going back.
        outcomes = await asyncio.gather(*map(self._release, by_tap.values()), return_exceptions=True)
        lost: list[Delivery] = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
            lost += outcome
        return lost

    async def _release(self, leases: list[Lease[Held]]) -> list[Delivery]:
        """Hand back, uncounted, messages that came by one tap. Returns the deliveries that are lost."""
        with self._restoring(leases):
            left = await leases[0].held.came.tap.release([lease.held.came.message for lease in leases])
        gone = [lease for lease in leases if any(lease.held.came.message is one for one in left)]
        return await self._replace(gone, None, counted=False)

    async def _replace(self, leases: list[Lease[Held]], due: float | None, *, counted: bool) -> list[Delivery]:
        """Send copies of the messages of *leases*, and complete these; what cannot be read, Service Bus hands back.

        Returns the deliveries that are lost.
        """
        readable = [lease for lease in leases if self._is_read(lease)]
        with self._restoring(leases):
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
        others = [lease for lease in leases if lease not in readable]
        with self._restoring(others):
            lost = await self._settle(readable, "completed")
        return lost + await self._settle(others, "abandoned")

    async def _settle(
        self,
        leases: list[Lease[Held]],
        verb: Verb,
        notes: Callable[[Lease[Held]], tuple[str, str]] = lambda _: ("", ""),
    ) -> list[Delivery]:
        """Do *verb* with the messages of *leases*; those that nobody knows of are held again. Returns the lost ones."""
        lost: list[Delivery] = []
        error: BrokerError | None = None
        with self._restoring(leases, unsure=True):
            outcomes = await self._do(leases, verb, notes)
        for lease, outcome in outcomes:
            if isinstance(outcome, BrokerError):
                error = outcome
                lease.is_unsure = lease.is_unsure or not isinstance(outcome, UnaskedError)
                self._leases.hold(lease)
            # One that was under way when the connection broke may have been done then.
            elif not outcome and not lease.is_unsure:
                lost.append(lease.delivery)
        if error is not None:
            raise BrokerUnavailableError(str(error))
        return lost

    async def _keep_up(self, leases: list[Lease[Held]]) -> list[Lease[Held]]:
        asked_at = time.monotonic()
        gone: list[Lease[Held]] = []
        error: BrokerError | None = None
        for lease, outcome in await self._do(leases, "renew", lambda _: ("", "")):
            if isinstance(outcome, BrokerError):
                error = outcome
            elif outcome:
                self._leases.confirm([lease], asked_at)
            else:
                gone.append(lease)
        if error is not None:
            raise BrokerUnavailableError(str(error))
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


def _received(arrived: Arrived, until: float) -> Received:
    return Received(
        attributes=arrived.attributes,
        body=arrived.body,
        id=arrived.id,
        lock_token=str(arrived.token),
        locked_until=until,
        delivery_count=arrived.delivery_count + 1,
        fault=arrived.fault,
    )
