"""One request at a time, and what is asked for meanwhile in the next."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.brokers.servicebus.gathering import Gathering
from dumbwaiter.errors import BrokerClosedError, BrokerUnavailableError

pytestmark = pytest.mark.anyio


class Work:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = asyncio.Event()
        self.error: Exception | None = None

    async def do(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        await self.may_go.wait()
        if self.error is not None:
            raise self.error
        return [10 * item for item in items]


async def test_what_is_asked_for_meanwhile_goes_together_and_each_gets_its_own():
    work = Work()
    gathering = Gathering(work.do, largest=4)
    asking = [asyncio.create_task(gathering.ask(items)) for items in ([1], [2, 3], [4], [5, 6], [])]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    work.may_go.set()
    assert await asyncio.gather(*asking) == [[10], [20, 30], [40], [50, 60], []]
    assert work.batches == [[1, 2, 3, 4], [5, 6]]


async def test_more_than_fits_goes_alone_and_whole():
    work = Work()
    work.may_go.set()
    assert await Gathering(work.do, largest=2).ask([1, 2, 3]) == [10, 20, 30]
    assert work.batches == [[1, 2, 3]]


async def test_an_error_is_told_to_all_who_asked_and_the_next_is_done():
    work = Work()
    work.may_go.set()
    work.error = BrokerUnavailableError("down")
    gathering = Gathering(work.do, largest=10)
    outcomes = await asyncio.gather(gathering.ask([1]), gathering.ask([2]), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["down", "down"]
    assert outcomes[0] is not outcomes[1]
    work.error = None
    assert await gathering.ask([3]) == [30]


async def test_whoever_is_cancelled_leaves_and_the_work_goes_on():
    work = Work()
    gathering = Gathering(work.do, largest=10)
    leaving, staying = asyncio.create_task(gathering.ask([1])), asyncio.create_task(gathering.ask([2]))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    work.may_go.set()
    assert await staying == [20]
    assert work.batches == [[1, 2]]


async def test_closing_tells_those_who_wait():
    work = Work()
    gathering = Gathering(work.do, largest=1)
    asking = [asyncio.create_task(gathering.ask([i])) for i in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await gathering.close()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BrokerClosedError, BrokerClosedError]
