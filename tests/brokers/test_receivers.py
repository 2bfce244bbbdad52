"""Receivers in line, and whoever looks for messages on their behalf."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.brokers.receivers import Receivers
from dumbwaiter.errors import BrokerUnavailableError

pytestmark = pytest.mark.anyio


class Line(Receivers[str]):
    def __init__(self) -> None:
        self.changes = 0
        self.given_back: list[str] = []
        super().__init__(changed=self._count, give_back=self.given_back.extend)

    def _count(self) -> None:
        self.changes += 1


@pytest.fixture
def line():
    return Line()


async def join(line: Line, limit: int = 1, max_wait: float = 60.0) -> asyncio.Task[list[str]]:
    task = asyncio.create_task(line.wait(limit, max_wait))
    await asyncio.sleep(0)
    return task


async def test_the_first_in_line_is_served_first_and_gets_what_it_takes(line):
    first, second, third = await join(line, 2), await join(line, 2), await join(line)
    assert line.wanted == 5
    assert line.hand_out(["a", "b", "c"]) == []
    assert (await first, await second) == (["a", "b"], ["c"])
    assert line.hand_out(["d", "e"]) == ["e"]
    assert await third == ["d"]
    assert line.wanted == 0


async def test_one_without_patience_leaves_after_the_next_look(line):
    line.begin_look()
    hurried = await join(line, max_wait=0.0)
    line.found_nothing()  # this look began before it came
    await asyncio.sleep(0)
    assert not hurried.done()
    assert line.is_hurried
    line.begin_look()
    line.found_nothing()
    assert await hurried == []


async def test_patience_that_ends_after_a_look_in_vain_ends_the_wait(line):
    waiting = await join(line, max_wait=0.01)
    line.begin_look()
    line.found_nothing()
    async with asyncio.timeout(5.0):
        assert await waiting == []


async def test_whoever_looks_is_told_of_all_who_come_and_go(line):
    waiting = await join(line)
    assert line.changes == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (line.changes, line.wanted) == (2, 0)


async def test_what_was_handed_to_one_that_was_cancelled_is_given_back(line):
    late, gone = await join(line), await join(line)
    gone.cancel()
    assert line.hand_out(["a", "b"]) == []  # neither knows yet
    late.cancel()
    outcomes = await asyncio.gather(late, gone, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert sorted(line.given_back) == ["a", "b"]


async def test_a_failure_of_a_kind_that_the_contract_does_not_know_is_told_as_an_outage(line):
    waiting = asyncio.create_task(line.wait(1, 60.0))
    await asyncio.sleep(0)
    line.fail(ValueError("what?"))
    with pytest.raises(BrokerUnavailableError, match="ValueError: what") as caught:
        await waiting
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_failure_is_everybodys(line):
    waiting = [await join(line), await join(line)]
    line.fail(BrokerUnavailableError("down"))
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["down", "down"]
