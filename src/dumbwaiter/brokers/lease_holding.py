"""What adapters do alike whose locks are leases (leases.py): take over what came, settle it, hand it back.

A product's own part is how messages are removed, buried, handed back and kept up; it implements the underscore verbs.
What cannot be settled now is held again, so that it can be tried once more while its lock stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from dumbwaiter.brokers.contract import Claim
from dumbwaiter.brokers.leases import Lease, Leases
from dumbwaiter.brokers.served import Received
from dumbwaiter.errors import BrokerError, LockLostError
from dumbwaiter.message import Delivery, Message

H = TypeVar("H")

_UNREAD = Message(id="unread")


class LeaseHolding(ABC, Generic[H]):
    """What one broker object holds, for *lock_duration* seconds unless renewed.

    *deliveries_of* reads envelopes, and dead-letters those that cannot be read (ServedBroker.deliveries_of).
    """

    def __init__(
        self, *, lock_duration: float, deliveries_of: Callable[[str, list[Received]], Awaitable[list[Delivery]]]
    ) -> None:
        self._lock_duration = lock_duration
        self._deliveries_of = deliveries_of
        self._leases: Leases[H] = Leases(ended=self._on_ended, beat=self._on_beat)
        self._beside: set[asyncio.Task[Any]] = set()

    # --- taking over ---

    def _hold(
        self, queue: str, received: Received, held: H, *, own_lock: float | None, since: float
    ) -> Lease[H] | None:
        """Hold *received*, locked since then at least; None for what may be with others by now.

        It is held before it is read: what cannot be read is dead-lettered under the same lease.
        """
        delivery = Delivery(
            message=_UNREAD,
            queue=queue,
            lock_token=received.lock_token,
            locked_until=received.locked_until,
            delivery_count=received.delivery_count,
        )
        lease = Lease(delivery, held, own_lock=own_lock, alive_at=since)
        if not lease.is_valid(time.monotonic()):
            return None
        self._leases.hold(lease)
        return lease

    async def _read(self, queue: str, received: list[Received], leases: Mapping[str, Lease[H]]) -> list[Delivery]:
        """The deliveries of *received*, all of which are held under *leases*, by token.

        What can neither be read nor be buried stays held until its lock ends: handed back at once it would come again
        at once, before all others, and for ever.
        """
        deliveries = await self._deliveries_of(queue, received)
        for delivery in deliveries:
            leases[delivery.lock_token].delivery = delivery
        return deliveries

    @staticmethod
    def _is_read(lease: Lease[H]) -> bool:
        """Whether its delivery has the message that came, so that this can be copied."""
        return lease.delivery.message is not _UNREAD

    # --- settling ---

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        """As the contract says."""
        leases, lost = self._take(deliveries, for_good=True)
        _raise_if(lost + await self._remove(leases))

    async def dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None:
        """As the contract says."""
        leases, lost = self._take(deliveries, for_good=True)
        messages = {delivery.lock_token: delivery.message for delivery in deliveries}
        before = [lease.delivery for lease in leases]
        for lease in leases:
            # What was received may be no envelope; what is buried is the part of it that can be read.
            lease.delivery = msgspec.structs.replace(lease.delivery, message=messages[lease.delivery.lock_token])
        try:
            _raise_if(lost + await self._bury(leases, reason, detail))
        except BaseException:
            for lease, delivery in zip(leases, before, strict=True):
                lease.delivery = delivery  # so that what is handed back is not that part of it
            raise

    async def abandon(self, deliveries: Sequence[Delivery], delay: float, *, counted: bool) -> None:
        """As the contract says."""
        leases, lost = self._take(deliveries, for_good=False)
        _raise_if(lost + await self._hand_back(leases, delay, counted=counted))

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """As the contract says."""
        leases, lost = self._leases.find(deliveries)
        asked_at = time.monotonic()
        gone = await self._keep_up(leases)
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

    def give_back_later(self, deliveries: Sequence[Delivery]) -> None:
        """Hand *deliveries* back, which came for nobody, while others go on."""
        self.spawn(self.abandon(deliveries, 0.0, counted=False))

    async def close(self) -> None:
        """Hand back what is held, uncounted, as far as the server can be reached; the other locks run out there."""
        if self._beside:
            await asyncio.wait(self._beside)
        with contextlib.suppress(BrokerError):
            await self._hand_back(self._to_hand_back(self._leases.release()), 0.0, counted=False)
        self._leases.lose()

    def spawn(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
        """Let *work* run on, whoever leaves; close() waits for it. Locks that it cannot hand back run out."""

        async def quietly() -> None:
            with contextlib.suppress(BrokerError):
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    @contextlib.contextmanager
    def _restoring(self, leases: Sequence[Lease[H]], *, unsure: bool = False) -> Iterator[None]:
        """Hold *leases*, which were taken, again when what follows fails. *unsure*: nobody knows then whether it was
        done.
        """
        try:
            yield
        except BaseException:
            for lease in leases:
                lease.is_unsure |= unsure
                self._hold_again(lease)
            raise

    def _take(self, deliveries: Sequence[Delivery], *, for_good: bool) -> tuple[list[Lease[H]], list[Delivery]]:
        """As Leases.take()."""
        return self._leases.take(deliveries, for_good=for_good)

    def _hold_again(self, lease: Lease[H]) -> None:
        """*lease* was taken, and is not settled."""
        self._leases.hold(lease)

    # --- the product's own ---

    @abstractmethod
    def claim_of(self, delivery: Delivery) -> Claim | None:
        """As the contract says; None also where the message may be settled already."""

    @abstractmethod
    async def take_back(self, claims: Sequence[Claim]) -> int:
        """As the contract says."""

    @abstractmethod
    async def _remove(self, leases: list[Lease[H]]) -> list[Delivery]:
        """Remove the messages for good. Returns the deliveries that are lost. On an error all are held again."""

    @abstractmethod
    async def _bury(self, leases: list[Lease[H]], reason: str, detail: str) -> list[Delivery]:
        """Move the messages to the dead letters. Returns and raises as _remove() does."""

    @abstractmethod
    async def _hand_back(self, leases: list[Lease[H]], delay: float, *, counted: bool) -> list[Delivery]:
        """Make the messages ready after *delay*. Returns and raises as _remove() does; but where somebody else may hold
        a message by then, and the product would take a word of ours on it, that is not held again.

        Of a lease that is not _is_read() there is nothing to copy: only the product itself can hand that back.
        """

    @abstractmethod
    async def _keep_up(self, leases: list[Lease[H]]) -> Collection[Lease[H]]:
        """Have the product lock the messages anew, and confirm its own lock. Returns the leases that are lost."""

    def _to_hand_back(self, leases: list[Lease[H]]) -> list[Lease[H]]:
        """Those of *leases* that close() hands back."""
        return leases

    @abstractmethod
    def _on_ended(self, leases: list[Lease[H]]) -> None:
        """As Leases.ended: hand them back, counted, beside."""

    def _on_beat(self, leases: list[Lease[H]]) -> None:
        """As Leases.beat: where the product's own lock is the shorter one, it is kept up."""
        self.spawn(self._keep_up(leases))


def _raise_if(lost: list[Delivery]) -> None:
    if lost:
        raise LockLostError(lost)
