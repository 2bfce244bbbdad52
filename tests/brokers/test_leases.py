"""Locks of any length above a product whose own lock is another one."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.brokers.leases import Lease, Leases
from dumbwaiter.message import Delivery, Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


class Clock:
    """Time as the test tells it; alarms look at it when the event loop rings them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Product:
    """What happened to the leases."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ended: list[str] = []
        self.beats: list[list[str]] = []
        self.leases: Leases[str] = Leases(
            ended=lambda some: self.ended.extend(lease.held for lease in some),
            beat=lambda some: self.beats.append([lease.held for lease in some]),
            clock=self.clock,
        )

    def hold(self, token: str, *, lock: float = 60.0, own_lock: float | None = None) -> Delivery:
        delivery = Delivery(
            message=Message(), queue="q", lock_token=token, locked_until=self.clock.now + lock, delivery_count=1
        )
        self.leases.hold(Lease(delivery, token, own_lock=own_lock, alive_at=self.clock.now))
        return delivery


@pytest.fixture
async def product():
    product = Product()
    yield product
    product.leases.lose()


async def test_what_is_held_can_be_settled_once(product):
    delivery = product.hold("a")
    taken, lost = product.leases.take([delivery], for_good=True)
    assert ([lease.held for lease in taken], lost) == (["a"], [])
    assert product.leases.take([delivery], for_good=True) == ([], [])
    assert len(product.leases) == 0


async def test_what_was_handed_back_is_lost_to_whoever_held_it(product):
    delivery = product.hold("a")
    product.leases.take([delivery], for_good=False)
    assert product.leases.take([delivery], for_good=True) == ([], [delivery])


async def test_a_delivery_of_somebody_else_is_lost(product):
    delivery = Product().hold("b")
    assert product.leases.take([delivery], for_good=True) == ([], [delivery])


async def test_a_lock_that_ran_out_is_lost_before_any_alarm(product):
    delivery = product.hold("a", lock=10.0)
    product.clock.now += 10.0
    assert product.leases.take([delivery], for_good=True) == ([], [delivery])


async def test_a_lock_that_runs_out_is_handed_back():
    product = Product()
    loop = asyncio.get_running_loop()
    product.leases = Leases(ended=lambda some: product.ended.extend(lease.held for lease in some), clock=loop.time)
    product.clock.now = loop.time()
    product.hold("short", lock=0.02)
    product.hold("long")
    await eventually(lambda: product.ended == ["short"])
    assert len(product.leases) == 1
    product.leases.lose()


async def test_a_renewed_lock_does_not_end_at_its_first_time():
    product = Product()
    loop = asyncio.get_running_loop()
    product.leases = Leases(ended=lambda some: product.ended.extend(lease.held for lease in some), clock=loop.time)
    product.clock.now = loop.time()
    first, other = product.hold("a", lock=0.03), product.hold("b", lock=0.05)
    (lease,), _ = product.leases.find([first])
    renewed = product.leases.renew(lease, first.locked_until + 60.0)
    assert renewed is not None
    assert (renewed.lock_token, renewed.locked_until) == ("a", first.locked_until + 60.0)
    await eventually(lambda: product.ended == ["b"])
    assert product.leases.find([first, other])[1] == [other]
    product.leases.lose()


async def test_a_renewal_never_ends_a_lock_earlier(product):
    """The answer of one that was asked for earlier may come later."""
    delivery = product.hold("a", lock=60.0)
    (lease,), _ = product.leases.find([delivery])
    renewed = product.leases.renew(lease, delivery.locked_until - 30.0)
    assert renewed.locked_until == delivery.locked_until


async def test_only_so_many_settled_ones_are_remembered_the_latest(product, monkeypatch):
    """Whoever runs for weeks must not keep the token of each message that there was."""
    monkeypatch.setattr("dumbwaiter.brokers.leases._REMEMBERED", 3)
    done = [product.hold(f"{i}") for i in range(5)]
    product.leases.take(done[:4], for_good=True)
    product.leases.take(done[4:], for_good=True)
    assert product.leases.take(done, for_good=True) == ([], done[:2])


async def test_a_lock_that_the_product_did_not_confirm_in_time_is_lost(product):
    """The holder was stopped, or cut off: somebody else may hold the message."""
    delivery = product.hold("a", own_lock=10.0)
    product.clock.now += 8.9
    assert product.leases.find([delivery])[1] == []
    product.clock.now += 0.2  # a little before the ten seconds, for the settlement has a way to go
    assert product.leases.find([delivery])[1] == [delivery]


async def test_a_confirmed_sign_of_life_keeps_it(product):
    delivery = product.hold("a", own_lock=10.0)
    (lease,), _ = product.leases.find([delivery])
    product.leases.confirm([lease], product.clock.now + 5.0)
    product.clock.now += 13.0
    assert product.leases.find([delivery])[1] == []
    product.leases.confirm([lease], product.clock.now - 10.0)  # an old answer that came late takes nothing back
    assert product.leases.find([delivery])[1] == []


async def test_signs_of_life_are_asked_for_every_third_of_the_products_lock(product):
    product.hold("a", own_lock=0.03)
    product.hold("b")
    await eventually(lambda: len(product.beats) >= 3)
    assert sorted(product.beats[0]) == ["a", "b"]


async def test_what_the_product_may_have_taken_back_is_not_handed_back():
    product = Product()
    loop = asyncio.get_running_loop()
    product.leases = Leases(ended=lambda some: product.ended.extend(lease.held for lease in some), clock=loop.time)
    product.clock.now = loop.time()
    product.hold("gone", lock=0.02, own_lock=0.01)
    product.hold("ours", lock=0.03, own_lock=60.0)
    await eventually(lambda: product.ended == ["ours"])
    assert len(product.leases) == 0


async def test_a_settlement_that_failed_is_held_again(product):
    delivery = product.hold("a")
    (lease,), _ = product.leases.take([delivery], for_good=True)
    product.leases.hold(lease)
    assert product.leases.take([delivery], for_good=True)[0] == [lease]


async def test_a_settlement_that_failed_too_late_is_not_held_again(product):
    delivery = product.hold("a", lock=5.0)
    (lease,), _ = product.leases.take([delivery], for_good=True)
    product.clock.now += 6.0
    product.leases.hold(lease)
    assert product.leases.take([delivery], for_good=True) == ([], [delivery])


async def test_renewing_what_was_settled_meanwhile_gives_nothing(product):
    delivery = product.hold("a")
    (lease,), _ = product.leases.find([delivery])
    product.leases.take([delivery], for_good=True)
    assert product.leases.renew(lease, delivery.locked_until + 1.0) is None
    assert product.leases.find([delivery]) == ([], [delivery])


async def test_releasing_gives_the_valid_ones_in_their_order(product):
    product.hold("over", lock=1.0)
    product.hold("first")
    product.hold("second")
    product.clock.now += 2.0
    assert [lease.held for lease in product.leases.release()] == ["first", "second"]
    assert len(product.leases) == 0
