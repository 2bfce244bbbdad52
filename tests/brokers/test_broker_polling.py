"""Long polls in lanes: since when something is locked, what comes for nobody, and what an error does."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from dumbwaiter.brokers.polling import Liveliness, Reception
from dumbwaiter.errors import BrokerClosedError, BrokerUnavailableError
from dumbwaiter.message import Delivery, Message
from dumbwaiter.policies.lanes import LANES, NORMAL
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


class Product:
    """A product of one process: what waits in each lane. A long poll is answered when something comes."""

    at_once = 2
    largest = 3

    def __init__(self):
        self.lanes = [[] for _ in range(LANES)]
        self.asked = []
        self.released = []
        self.fault = None
        self.broken = range(LANES)
        self._came = asyncio.Condition()

    async def put(self, *items, lane=NORMAL):
        async with self._came:
            self.lanes[lane] += items
            self._came.notify_all()

    async def pull(self, lane, count, *, is_long):
        self.asked.append((lane, count, is_long))
        assert count <= self.largest
        await asyncio.sleep(0)
        if self.fault is not None and lane in self.broken:
            raise self.fault
        if is_long:
            async with self._came:
                await self._came.wait_for(lambda: self.lanes[lane])
        taken, self.lanes[lane] = self.lanes[lane][:count], self.lanes[lane][count:]
        return taken

    async def accept(self, came):
        return [
            Delivery(message=Message(id=one), queue="q", lock_token=one, locked_until=since, delivery_count=1)
            for one, _, since in came
        ]

    async def release(self, lane, came):
        self.released += came


@pytest.fixture
async def product():
    return Product()


@pytest.fixture
async def reception(product):
    reception = Reception(product, tolerance=1.0, give_back=product.released.extend)
    yield reception
    await reception.close(BrokerClosedError())
    for poll in reception.polls:
        poll.cancel()


async def receive(reception, count=1, max_wait=5.0):
    return [delivery.message.id for delivery in await reception.receive(count, max_wait)]


async def test_what_is_there_comes_at_once_and_without_a_long_poll(product, reception):
    await product.put("a", "b")
    assert await receive(reception, 2) == ["a", "b"]
    assert not any(is_long for _, _, is_long in product.asked)


async def test_more_than_one_request_brings_is_asked_for_at_once_when_there_was_much_before(product, reception):
    await product.put(*map(str, range(12)))
    assert len(await receive(reception, 6)) == 6
    assert len(await receive(reception, 6)) == 6


async def test_a_lane_that_was_found_empty_is_not_asked_again_while_its_long_poll_stands(product, reception):
    waiting = asyncio.create_task(receive(reception))
    await eventually(lambda: len(reception.polls) == LANES)
    product.asked.clear()
    await product.put("a")
    assert await waiting == ["a"]
    assert not any(lane != NORMAL for lane, _, _ in product.asked)


async def test_who_has_no_patience_leaves_after_one_look_with_nothing(product, reception):
    assert await receive(reception, max_wait=0.0) == []
    assert {lane for lane, _, _ in product.asked} == set(range(LANES))


async def test_what_a_long_poll_brings_for_nobody_is_released(product, reception):
    assert await receive(reception, max_wait=0.05) == []
    await product.put("late")
    await eventually(lambda: product.released == ["late"])


async def test_whoever_waits_gets_the_error_and_the_next_one_is_served(product, reception):
    product.fault = BrokerUnavailableError("cut off")
    with pytest.raises(BrokerUnavailableError, match="cut off"):
        await receive(reception)
    product.fault = ValueError("of the client")
    with pytest.raises(BrokerUnavailableError, match="ValueError: of the client"):
        await receive(reception)
    product.fault = None
    await product.put("a")
    assert await receive(reception) == ["a"]


async def test_what_one_lane_gave_is_not_lost_when_the_next_one_fails(product, reception):
    """It is locked by now: whoever waits gets that, and the error with the next look."""
    product.fault = BrokerUnavailableError("cut off")
    for lane in range(LANES):
        product.broken = set(range(LANES)) - {lane}
        await product.put("a", lane=lane)
        got = []
        for _ in range(20):  # whichever lane a look begins with
            with contextlib.suppress(BrokerUnavailableError):
                got += await receive(reception, 2, max_wait=0.01)
        assert (got + product.released, product.lanes[lane]) == (["a"], [])
        product.released.clear()


async def test_closing_sends_away_who_waits(product, reception):
    waiting = asyncio.create_task(receive(reception))
    await eventually(lambda: len(reception.polls) == LANES)
    await reception.close(BrokerClosedError())
    with pytest.raises(BrokerClosedError):
        await waiting


async def test_what_came_by_a_look_is_locked_since_it_was_asked_for(product, reception):
    await product.put("a")
    before = time.monotonic()
    (delivery,) = await reception.receive(1, 5.0)
    assert before <= delivery.locked_until <= time.monotonic()


# --- whoever was stopped cannot tell when an answer came, and assumes the worst ---


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_an_answer_came_when_it_was_read():
    clock = Clock()
    liveliness = Liveliness(tolerance=0.3, clock=clock)
    number = liveliness.begin()
    for _ in range(100):
        clock.now += 0.1
        liveliness.tick()
    assert liveliness.end(number) == clock.now


async def test_an_answer_that_was_read_after_a_stop_may_have_come_at_its_beginning():
    clock = Clock()
    liveliness = Liveliness(tolerance=0.3, clock=clock)
    number = liveliness.begin()
    clock.now += 0.1
    liveliness.tick()
    clock.now += 60.0
    assert liveliness.end(number) == 100.1


async def test_a_stop_that_was_seen_by_a_tick_counts_as_well_and_only_for_what_was_under_way():
    clock = Clock()
    liveliness = Liveliness(tolerance=0.3, clock=clock)
    old = liveliness.begin()
    clock.now += 60.0
    liveliness.tick()
    new = liveliness.begin()
    clock.now += 0.1
    assert liveliness.end(new) == clock.now
    assert liveliness.end(old) == 100.0
