"""What adapters with leases do alike, over a product that is a list of what was asked of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from dumbwaiter.brokers.lease_holding import LeaseHolding
from dumbwaiter.brokers.served import Received
from dumbwaiter.errors import BrokerUnavailableError, LockLostError
from dumbwaiter.message import Delivery, Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio
LOCK = 30.0


class Shelf(LeaseHolding[str]):
    """Notes each order; *fails* makes the next one fail, and *gone* are the names of messages that others have."""

    def __init__(self, *, lock_duration=LOCK, own_lock=None):
        super().__init__(lock_duration=lock_duration, deliveries_of=self.read)
        self.own_lock = own_lock
        self.orders = []
        self.fails = False
        self.gone = set()

    async def read(self, queue, received):
        deliveries = []
        for one in received:
            message = Message(id=one.id, body=one.body)
            unread = Delivery(
                message=message,
                queue=queue,
                lock_token=one.lock_token,
                locked_until=one.locked_until,
                delivery_count=one.delivery_count,
            )
            if one.body == b"bad":
                await self.dead_letter([unread], "bad-envelope", "it is bad")
            else:
                deliveries.append(unread)
        return deliveries

    def claim_of(self, delivery):
        return None

    async def take_back(self, claims):
        return 0

    async def accept(self, *names, body=b"", since=None):
        since = time.monotonic() if since is None else since
        received, leases = [], {}
        for name in names:
            one = Received(
                {}, b"bad" if name == "bad" else body, name, f"token of {name}", since + self._lock_duration, 1
            )
            lease = self._hold("q", one, name, own_lock=self.own_lock, since=since)
            if lease is not None:
                received.append(one)
                leases[one.lock_token] = lease
        return await self._read("q", received, leases)

    def order(self, verb, leases, *facts):
        with self._restoring(leases, unsure=verb == "remove"):
            if self.fails:
                self.fails = False
                raise BrokerUnavailableError("away")
        self.orders.append((verb, [(lease.held, self._is_read(lease)) for lease in leases], *facts))
        return [lease for lease in leases if lease.held in self.gone]

    async def _remove(self, leases):
        return [lease.delivery for lease in self.order("remove", leases)]

    async def _bury(self, leases, reason, detail):
        return [lease.delivery for lease in self.order("bury", leases, reason, detail)]

    async def _hand_back(self, leases, delay, *, counted):
        return [lease.delivery for lease in self.order("hand back", leases, delay, counted)]

    async def _keep_up(self, leases):
        asked_at = time.monotonic()
        gone = self.order("keep up", leases)
        self._leases.confirm([lease for lease in leases if lease not in gone], asked_at)
        return gone

    def _on_ended(self, leases):
        self.spawn(self._hand_back(leases, 0.0, counted=True))


@pytest.fixture
async def shelf():
    shelf = Shelf()
    yield shelf
    shelf._leases.lose()


async def test_what_is_held_is_settled_once_and_what_others_have_is_lost(shelf):
    a, b, c = await shelf.accept("a", "b", "c")
    shelf.gone = {"b"}
    with pytest.raises(LockLostError) as caught:
        await shelf.complete([a, b])
    assert caught.value.deliveries == [b]
    await shelf.complete([a])
    await shelf.abandon([c], 2.0, counted=False)
    with pytest.raises(LockLostError) as caught:
        await shelf.complete([c])
    assert caught.value.deliveries == [c]
    assert [order for order in shelf.orders if order[1]] == [
        ("remove", [("a", True), ("b", True)]),
        ("hand back", [("c", True)], 2.0, False),
    ]


async def test_what_could_not_be_settled_is_held_still_and_only_a_removal_leaves_doubt(shelf):
    (a,) = await shelf.accept("a")
    for settle, is_unsure in (
        (shelf.dead_letter([a], "why", ""), False),
        (shelf.abandon([a], 0.0, counted=True), False),
        (shelf.complete([a]), True),
    ):
        shelf.fails = True
        with pytest.raises(BrokerUnavailableError):
            await settle
        assert shelf._leases.find([a])[0][0].is_unsure is is_unsure
    await shelf.complete([a])


async def test_a_renewal_keeps_the_token_and_tells_what_is_lost_and_what_stands(shelf):
    a, b = await shelf.accept("a", "b")
    shelf.gone = {"b"}
    before = time.monotonic()
    with pytest.raises(LockLostError) as caught:
        await shelf.renew([b, a])
    assert caught.value.deliveries == [b]
    (kept,) = caught.value.renewed
    assert (kept.lock_token, kept.locked_until >= before + LOCK) == (a.lock_token, True)


async def test_a_renewed_lock_lasts_from_when_it_was_asked_for(shelf, monkeypatch):
    """The product's lock may begin as soon as it is asked; its answer may be long on its way."""
    (a,) = await shelf.accept("a")
    keep_up, asked_at = shelf._keep_up, []

    async def slowly(leases):
        asked_at.append(time.monotonic())
        await asyncio.sleep(0.05)
        return await keep_up(leases)

    monkeypatch.setattr(shelf, "_keep_up", slowly)
    (renewed,) = await shelf.renew([a])
    assert a.locked_until <= renewed.locked_until <= asked_at[0] + LOCK


async def test_a_dead_letter_holds_what_could_be_read(shelf):
    assert [delivery.message.id for delivery in await shelf.accept("a", "bad")] == ["a"]
    assert shelf.orders == [("bury", [("bad", True)], "bad-envelope", "it is bad")]


async def test_when_one_that_cannot_be_read_cannot_be_buried_all_go_back_as_they_came_when_their_locks_end():
    shelf = Shelf(lock_duration=0.2)
    shelf.fails = True
    with pytest.raises(BrokerUnavailableError):
        await shelf.accept("a", "bad", "b")
    await eventually(lambda: len([held for order in shelf.orders for held in order[1]]) == 3)
    assert {order[0] for order in shelf.orders} == {"hand back"}
    assert {held for order in shelf.orders for held in order[1]} == {("a", False), ("bad", False), ("b", False)}


async def test_what_came_too_late_is_not_held(shelf):
    shelf.own_lock = 1.0
    assert await shelf.accept("a", since=time.monotonic() - 2.0) == []


async def test_closing_hands_back_all_after_what_is_under_way(shelf):
    a, _ = await shelf.accept("a", "b")
    shelf.give_back_later([a])
    await shelf.close()
    assert shelf.orders == [("hand back", [("a", True)], 0.0, False), ("hand back", [("b", True)], 0.0, False)]


async def test_closing_while_the_server_is_away_raises_nothing(shelf):
    await shelf.accept("a")
    shelf.fails = True
    await shelf.close()
    assert shelf.orders == []


async def test_a_lock_that_nobody_renews_ends_with_its_message_handed_back_counted():
    shelf = Shelf(lock_duration=0.05)
    (a,) = await shelf.accept("a")
    await eventually(lambda: shelf.orders)
    assert shelf.orders == [("hand back", [("a", True)], 0.0, True)]
    with pytest.raises(LockLostError):
        await shelf.complete([a])


async def test_a_shorter_lock_of_the_products_own_is_kept_up_meanwhile():
    shelf = Shelf(own_lock=0.3)
    (a,) = await shelf.accept("a")
    await asyncio.sleep(0.5)
    await shelf.complete([a])
    assert {order[0] for order in shelf.orders[:-1]} == {"keep up"}
