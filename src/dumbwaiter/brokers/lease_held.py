"""The verbs of a broker whose deliveries are leases: settling goes to its holding, looking to its dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from dumbwaiter.brokers.lease_holding import LeaseHolding
from dumbwaiter.brokers.served import ServedBroker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dumbwaiter.brokers.contract import Claim
    from dumbwaiter.message import DeadLetter, Delivery


class DeadLetterRoom(Protocol):
    """The dead letters of all queues. Each verb does what the contract says of its namesake among the broker's."""

    async def page(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        """As the contract says of dead_letters."""
        ...

    async def has(self, queue: str, key: str) -> bool:
        """As the contract says of is_dead_letter."""
        ...

    async def redrive(self, queue: str, keys: Sequence[str] | None) -> int:
        """As the contract says of redrive."""
        ...

    async def purge(self, queue: str, keys: Sequence[str] | None) -> int:
        """As the contract says of purge."""
        ...


L = TypeVar("L", bound=LeaseHolding[Any])
D = TypeVar("D", bound=DeadLetterRoom)


class LeaseHeldBroker(ServedBroker, Generic[L, D]):
    """A ServedBroker with a LeaseHolding and dead letters of the product's kinds. Its _connect() makes both."""

    _holding: L
    _dead: D

    async def _complete(self, deliveries: Sequence[Delivery]) -> None:
        await self._holding.complete(deliveries)

    async def _abandon(self, deliveries: Sequence[Delivery], delay: float, counted: bool) -> None:
        await self._holding.abandon(deliveries, delay, counted=counted)

    async def _dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None:
        await self._holding.dead_letter(deliveries, reason, detail)

    async def _renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return await self._holding.renew(deliveries)

    def _claim_of(self, delivery: Delivery) -> Claim | None:
        return self._holding.claim_of(delivery)

    async def _take_back(self, claims: Sequence[Claim]) -> int:
        return await self._holding.take_back(claims)

    async def _dead_letters(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        return await self._dead.page(queue, limit, after)

    async def _is_dead_letter(self, queue: str, key: str) -> bool:
        return await self._dead.has(queue, key)

    async def _redrive(self, queue: str, keys: Sequence[str] | None) -> int:
        return await self._dead.redrive(queue, keys)

    async def _purge(self, queue: str, keys: Sequence[str] | None) -> int:
        return await self._dead.purge(queue, keys)
