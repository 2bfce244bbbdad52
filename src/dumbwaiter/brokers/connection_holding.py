"""Leases whose lock in the product lasts as long as the connection: it hands back by itself what that one held."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from dumbwaiter.brokers.contract import Claim
from dumbwaiter.brokers.lease_holding import LeaseHolding
from dumbwaiter.brokers.leases import Lease
from dumbwaiter.message import Delivery

H = TypeVar("H")


class ConnectionHolding(LeaseHolding[H]):
    """What one broker object holds. What a lost connection held is lost, and nothing need be claimed back."""

    @abstractmethod
    def _is_up(self, held: H) -> bool:
        """Whether the connection that *held* came by stands."""

    def claim_of(self, delivery: Delivery) -> Claim | None:  # noqa: ARG002 - the product frees all of it
        """As the contract says."""
        return None

    async def take_back(self, claims: Sequence[Claim]) -> int:  # noqa: ARG002 - as above
        """As the contract says."""
        return 0

    async def _keep_up(self, leases: list[Lease[H]]) -> list[Lease[H]]:
        return [lease for lease in leases if not self._is_up(lease.held)]

    def _take(self, deliveries: Sequence[Delivery], *, for_good: bool) -> tuple[list[Lease[H]], list[Delivery]]:
        leases, lost = super()._take(deliveries, for_good=for_good)
        standing = []
        for lease in leases:
            if self._is_up(lease.held):
                standing.append(lease)
            else:
                self._leases.hold(lease)  # it was not settled
                lost.append(lease.delivery)
        return standing, lost

    def _hold_again(self, lease: Lease[H]) -> None:
        super()._hold_again(lease)
        if not lease.is_valid(time.monotonic()):  # no lock of the product's ends by itself
            self._on_ended([lease])
