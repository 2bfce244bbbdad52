"""Leases of a connection: what a lost one held is lost, and whoever held it is told so."""

from __future__ import annotations

import time

import pytest

from dumbwaiter.brokers.connection_holding import ConnectionHolding
from dumbwaiter.brokers.served import Received
from dumbwaiter.errors import BrokerUnavailableError, LockLostError
from dumbwaiter.message import Delivery, Message

pytestmark = pytest.mark.anyio


class Shelf(ConnectionHolding[str]):
    """Notes each order; *down* are the names of what a lost connection held, and *fails* makes the next order fail."""

    def __init__(self):
        super().__init__(lock_duration=30.0, deliveries_of=self.read)
        self.down = set()
        self.orders = []
        self.fails = False

    async def read(self, queue, received):
        return [
            Delivery(
                message=Message(id=one.id),
                queue=queue,
                lock_token=one.lock_token,
                locked_until=one.locked_until,
                delivery_count=one.delivery_count,
            )
            for one in received
        ]

    async def accept(self, *names):
        since = time.monotonic()
        received, leases = [], {}
        for name in names:
            one = Received({}, b"", name, f"token of {name}", since + 30.0, 1)
            leases[one.lock_token] = self._hold("q", one, name, own_lock=None, since=since)
            received.append(one)
        return await self._read("q", received, leases)

    def _is_up(self, held):
        return held not in self.down

    def order(self, verb, leases):
        with self._restoring(leases):
            if self.fails:
                self.fails = False
                raise BrokerUnavailableError("away")
        self.orders.append((verb, [lease.held for lease in leases]))
        return []

    async def _remove(self, leases):
        return self.order("remove", leases)

    async def _hand_back(self, leases, delay, *, counted):
        return self.order("hand back", leases)

    async def _bury(self, leases, reason, detail):
        return self.order("bury", leases)

    def _on_ended(self, leases):
        self.orders.append(("ended", [lease.held for lease in leases]))


@pytest.fixture
async def shelf():
    return Shelf()


async def test_what_a_lost_connection_held_cannot_be_settled_and_the_rest_can(shelf):
    soup, pie = await shelf.accept("soup", "pie")
    shelf.down = {"soup"}
    with pytest.raises(LockLostError) as caught:
        await shelf.complete([soup, pie])
    assert list(caught.value.deliveries) == [soup]
    assert shelf.orders == [("remove", ["pie"])]


async def test_what_is_still_held_is_renewed_and_what_a_lost_connection_held_is_told(shelf):
    soup, pie = await shelf.accept("soup", "pie")
    shelf.down = {"soup"}
    with pytest.raises(LockLostError) as caught:
        await shelf.renew([soup, pie])
    assert [one.message.id for one in caught.value.deliveries] == ["soup"]
    assert [one.message.id for one in caught.value.renewed] == ["pie"]


async def test_a_lease_that_ends_while_it_is_renewed_is_told_and_not_left_out(shelf, monkeypatch):
    (soup,) = await shelf.accept("soup")
    times = iter([soup.locked_until - 0.001])
    monkeypatch.setattr(shelf._leases, "_clock", lambda: next(times, soup.locked_until + 0.001))
    with pytest.raises(LockLostError):
        await shelf.renew([soup])


async def test_one_that_is_renewed_twice_in_one_batch_is_given_back_twice(shelf):
    (soup,) = await shelf.accept("soup")
    assert [one.message.id for one in await shelf.renew([soup, soup])] == ["soup", "soup"]


async def test_what_failed_after_its_lease_had_ended_is_handed_back(shelf, monkeypatch):
    """No lock of the product's ends by itself, so nobody else would ever get it."""
    (soup,) = await shelf.accept("soup")
    shelf.fails = True
    times = iter([soup.locked_until - 0.001])
    monkeypatch.setattr(shelf._leases, "_clock", lambda: next(times, soup.locked_until + 0.001))
    monkeypatch.setattr("dumbwaiter.brokers.connection_holding.time.monotonic", lambda: soup.locked_until + 0.001)
    with pytest.raises(BrokerUnavailableError):
        await shelf.complete([soup])
    assert ("ended", ["soup"]) in shelf.orders


async def test_nobody_need_claim_what_the_product_frees(shelf):
    (soup,) = await shelf.accept("soup")
    assert shelf.claim_of(soup) is None
    assert await shelf.take_back([]) == 0
