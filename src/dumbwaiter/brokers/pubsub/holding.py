"""Deliveries of one broker object: held, renewed, settled and handed back.

Pub/Sub refuses the ack ids of deliveries whose lock is over, but not always at once. So one is used only while the lock
that it came with surely stands: what is asked for later is refused here. Of a message that was handed back without an
answer no copy is made until Pub/Sub says that it is still ours.

What Pub/Sub cannot do to a message is done by a copy: it is published, and then the original is acknowledged. A crash
between the two leaves both, which is a message delivered twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from dumbwaiter.brokers.contract import Claim
from dumbwaiter.brokers.lease_holding import LeaseHolding
from dumbwaiter.brokers.leases import Lease
from dumbwaiter.brokers.polling import Came
from dumbwaiter.brokers.pubsub.names import DEAD
from dumbwaiter.brokers.pubsub.settling import Settling
from dumbwaiter.brokers.pubsub.topics import MOST_ATTEMPTS, Topics, visibility_of
from dumbwaiter.brokers.pubsub.wire import (
    LARGEST,
    LONGEST_DELAY,
    Arrived,
    Note,
    again,
    burial_of,
    fallback_id,
    nbytes_of,
    outgoing,
)
from dumbwaiter.brokers.served import Received
from dumbwaiter.errors import QueueNotFoundError
from dumbwaiter.message import Delivery
from dumbwaiter.policies.lanes import LANES

_EARLY = 0.5
"""A message that is due within so many seconds is served at once."""


class Held(msgspec.Struct, gc=False):
    """How a delivery is settled: in which *lane* of its queue, and by which *ack_id*.

    *is_miscounted*: Pub/Sub's own count of its deliveries does not say how often it was served. *is_copied*: its copy
    has been published already, and only the acknowledgement failed. *may_be_back*: Pub/Sub was told to hand it back,
    and nobody knows whether it did.
    """

    lane: int
    ack_id: str
    is_miscounted: bool = False
    is_copied: bool = False
    may_be_back: bool = False


class Holding(LeaseHolding[Held]):
    """What one broker object holds."""

    def __init__(
        self,
        topics: Topics,
        settling: Settling,
        *,
        lock_duration: float,
        deliveries_of: Callable[[str, list[Received]], Awaitable[list[Delivery]]],
    ) -> None:
        super().__init__(lock_duration=lock_duration, deliveries_of=deliveries_of)
        self._topics = topics
        self._settling = settling
        self._visibility = visibility_of(lock_duration)
        # A lock that is longer than Pub/Sub's own longest is kept up by signs of life.
        self._own_lock = None if lock_duration < self._visibility else float(self._visibility)
        self._owner = secrets.token_hex(6)
        self._count = 0

    # --- taking over ---

    async def accept(self, queue: str, came: Sequence[Came[Arrived]]) -> list[Delivery]:
        """Hold what *came* from *queue*. What is not due yet goes back for that long."""
        now = time.time()
        early = [one for one in came if one.one.due > now + _EARLY]
        if early:
            self.spawn(self._put_off(queue, early))
            came = [one for one in came if one.one.due <= now + _EARLY]
        received: list[Received] = []
        leases: dict[str, Lease[Held]] = {}
        for (arrived, lane, since), own_lock in await self._locked(queue, came):
            one = self._received(queue, lane, arrived, since)
            held = Held(lane, arrived.ack_id, is_miscounted=bool(arrived.due))
            lease = self._hold(queue, one, held, own_lock=own_lock, since=since)
            if lease is not None:
                received.append(one)
                leases[one.lock_token] = lease
        return await self._read(queue, received, leases)

    async def _locked(self, queue: str, came: Sequence[Came[Arrived]]) -> list[tuple[Came[Arrived], float | None]]:
        """*came*, each with how long Pub/Sub's own lock lasts where that is less than ours.

        A subscription's ack deadline that is longer is cut at once; a shorter one is made longer by the first sign of
        life, and most messages are completed by then.
        """
        locked: list[tuple[Came[Arrived], float | None]] = []
        for lane in {one.lane for one in came}:
            ours = [one for one in came if one.lane == lane]
            deadline = await self._topics.ack_deadline(queue, lane)
            if deadline <= self._visibility:
                own_lock = self._own_lock if deadline == self._visibility else float(deadline)
                locked += [(one, own_lock) for one in ours]
                continue
            since = time.monotonic()
            lost = await self._settling.lock(queue, lane, [one.one.ack_id for one in ours], self._visibility)
            locked += [(Came(one.one, lane, since), self._own_lock) for one in ours if one.one.ack_id not in lost]
        return locked

    def _received(self, queue: str, lane: int, arrived: Arrived, since: float) -> Received:
        self._count += 1
        return Received(
            attributes=arrived.attributes,
            body=arrived.body,
            id=fallback_id(self._topics.id(queue, lane), arrived),
            lock_token=f"{self._owner}.{self._count:x}",
            locked_until=since + self._lock_duration,
            delivery_count=arrived.delivery_count,
            fault=arrived.fault,
        )

    async def _put_off(self, queue: str, early: Sequence[Came[Arrived]]) -> None:
        """Have Pub/Sub keep messages from everybody until they are due, or for as long as it does that."""
        now = time.time()
        by_wait: dict[tuple[int, int], list[Arrived]] = {}
        for arrived, lane, _ in early:
            # Soon Pub/Sub would take it for one that cannot be served; a copy starts anew.
            is_worn = arrived.attempt > MOST_ATTEMPTS // 2
            seconds = 0 if is_worn else max(1, min(math.ceil(arrived.due - now), LONGEST_DELAY))
            by_wait.setdefault((lane, seconds), []).append(arrived)
        for (lane, seconds), ours in by_wait.items():
            ack_ids = [arrived.ack_id for arrived in ours]
            if seconds:
                await self._settling.lock(queue, lane, ack_ids, seconds)
            else:
                await self._publish_again(queue, lane, ours, [arrived.count for arrived in ours])
                await self._settling.acknowledge(queue, lane, ack_ids)

    async def _publish_again(self, queue: str, lane: int, came: Sequence[Arrived], counts: Sequence[int]) -> None:
        topic = self._topics.id(queue, lane)
        copies = [again(one, topic=topic, count=count) for one, count in zip(came, counts, strict=True)]
        await self._topics.publish(queue, lane, copies)

    # --- settling ---

    async def _remove(self, leases: list[Lease[Held]]) -> list[Delivery]:
        return await self._acknowledge(leases)

    async def _bury(self, leases: list[Lease[Held]], reason: str, detail: str) -> list[Delivery]:
        def burial(lease: Lease[Held]) -> Any:
            note = Note(reason=reason, detail=detail, count=lease.delivery.delivery_count)
            return burial_of(lease.delivery.message, note)

        with self._restoring(leases):
            gone = await self._lock([lease for lease in leases if lease.held.may_be_back], self._visibility)
            ours = [lease for lease in leases if lease not in gone]
            await self._copy(ours, burial, to=lambda _: DEAD)
        return [lease.delivery for lease in gone] + await self._acknowledge(ours)

    async def _keep_up(self, leases: list[Lease[Held]]) -> list[Lease[Held]]:
        asked_at = time.monotonic()
        gone = await self._lock(leases, self._visibility)
        kept = [lease for lease in leases if lease not in gone]
        for lease in kept:
            lease.own_lock = self._own_lock
        self._leases.confirm(kept, asked_at)
        return gone

    # --- for whoever knows that a holder is dead ---

    def claim_of(self, delivery: Delivery) -> Claim | None:
        """As the contract says."""
        found, _ = self._leases.find([delivery])
        if not found or found[0].is_unsure:
            return None
        held = found[0].held
        held_until = min(found[0].delivery.locked_until, found[0].stands_until)
        return Claim(delivery.queue, f"{held.lane} {held.ack_id}", held_until)

    async def take_back(self, claims: Sequence[Claim]) -> int:
        """As the contract says."""
        by_lane: dict[tuple[str, int], list[str]] = {}
        for claim in claims:
            number, _, ack_id = claim.token.partition(" ")
            if ack_id and number in map(str, range(LANES)):
                by_lane.setdefault((claim.queue, int(number)), []).append(ack_id)
        count = 0
        for (queue, lane), ack_ids in by_lane.items():
            with contextlib.suppress(QueueNotFoundError):
                count += len(ack_ids) - len(await self._settling.lock(queue, lane, ack_ids, 0))
        return count

    # --- handing back ---

    async def release(self, queue: str, lane: int, came: Sequence[Arrived]) -> None:
        """Hand back at once what nobody holds, uncounted: it may come to one that waits no more again and again."""
        whole = [one for one in came if not one.fault]
        await self._publish_again(queue, lane, whole, [one.delivery_count - 1 for one in whole])
        await self._settling.acknowledge(queue, lane, [one.ack_id for one in whole])
        await self._settling.lock(queue, lane, [one.ack_id for one in came if one.fault], 0)

    async def _hand_back(self, leases: list[Lease[Held]], delay: float, *, counted: bool) -> list[Delivery]:
        plain = [lease for lease in leases if self._is_plain(lease, delay, counted=counted)]
        copied = [lease for lease in leases if not self._is_plain(lease, delay, counted=counted)]
        due = time.time() + delay if delay > 0 else 0.0

        def copy(lease: Lease[Held]) -> Any:
            return outgoing(lease.delivery.message, count=lease.delivery.delivery_count - (not counted), due=due)

        with self._restoring(plain):
            with self._restoring(copied):
                await self._copy(copied, copy, to=lambda lease: lease.held.lane)
            lost = await self._acknowledge(copied)
            for lease in plain:
                lease.held.may_be_back = True
            gone = await self._lock(plain, min(math.ceil(delay), LONGEST_DELAY))
        return lost + [lease.delivery for lease in gone]

    def _is_plain(self, lease: Lease[Held], delay: float, *, counted: bool) -> bool:
        """Whether Pub/Sub can hand it back itself; or must, for there may be nothing to copy, or no room for a copy."""
        held, delivery = lease.held, lease.delivery
        if lease.is_unsure or held.may_be_back or not self._is_read(lease):
            return True
        if counted and delay <= LONGEST_DELAY and not held.is_miscounted and not held.is_copied:
            return True
        return nbytes_of(outgoing(delivery.message, count=delivery.delivery_count, due=1.0)) > LARGEST

    async def _copy(
        self, leases: list[Lease[Held]], copy: Callable[[Lease[Held]], Any], *, to: Callable[[Lease[Held]], int]
    ) -> None:
        """Publish copies of those of *leases* that have none yet."""
        by_part: dict[tuple[str, int], list[Lease[Held]]] = {}
        for lease in leases:
            if not lease.held.is_copied:
                by_part.setdefault((lease.delivery.queue, to(lease)), []).append(lease)
        for (queue, part), ours in by_part.items():
            await self._topics.publish(queue, part, list(map(copy, ours)))
            for lease in ours:
                lease.held.is_copied = True

    async def _acknowledge(self, leases: list[Lease[Held]]) -> list[Delivery]:
        """Remove the messages of *leases* for good. Returns the deliveries that are lost."""
        was_unsure = {id(lease) for lease in leases if lease.is_unsure}
        with self._restoring(leases, unsure=True):
            gone = await self._of_each(leases, self._settling.acknowledge)
        # While the lock stands nobody else has the message: one that is unknown was acknowledged by the try before.
        return [lease.delivery for lease in gone if id(lease) not in was_unsure]

    async def _lock(self, leases: Sequence[Lease[Held]], seconds: int) -> list[Lease[Held]]:
        """Lock the messages of *leases* for so many seconds from now. Returns the leases that are lost."""

        async def lock(queue: str, lane: int, ack_ids: Sequence[str]) -> frozenset[str]:
            return await self._settling.lock(queue, lane, ack_ids, seconds)

        return await self._of_each(leases, lock)

    async def _of_each(
        self,
        leases: Sequence[Lease[Held]],
        settle: Callable[[str, int, Sequence[str]], Coroutine[Any, Any, frozenset[str]]],
    ) -> list[Lease[Held]]:
        """*settle* all *leases*, lane by lane. Returns those that are lost."""
        by_lane: dict[tuple[str, int], list[str]] = {}
        for lease in leases:
            by_lane.setdefault((lease.delivery.queue, lease.held.lane), []).append(lease.held.ack_id)
        if len(by_lane) == 1:
            ((queue, lane), ack_ids) = next(iter(by_lane.items()))
            lost = await settle(queue, lane, ack_ids)
        else:
            settling = (settle(queue, lane, ack_ids) for (queue, lane), ack_ids in by_lane.items())
            lost = frozenset().union(*await asyncio.gather(*settling))
        return [lease for lease in leases if lease.held.ack_id in lost] if lost else []

    def _on_ended(self, leases: list[Lease[Held]]) -> None:
        # Where this process was stopped meanwhile others may hold them; Pub/Sub refuses our ack ids then.
        self.spawn(self._lock(leases, 0))

    def _on_beat(self, leases: list[Lease[Held]]) -> None:
        now = time.monotonic()
        due = [lease for lease in leases if lease.own_lock is not None and now - lease.alive_at >= lease.own_lock / 4]
        if due:
            self.spawn(self._keep_up(due))
