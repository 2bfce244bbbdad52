"""No more start at once than there are cores, and nobody holds up the others for long."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.cli import turns
from dumbwaiter.cli.turns import Turns
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def queueing(names, most):
    """Turns of which *names* wait for one in that order, and the names of those that have got one."""
    theirs, got = Turns(most), []

    async def wait(name):
        await theirs.take(name)
        got.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in names]
    await asyncio.sleep(0)
    return theirs, got, tasks


async def test_the_next_one_starts_when_one_has_in_the_order_in_which_they_came():
    theirs, got, _tasks = await queueing("abcd", most=2)
    assert got == ["a", "b"]
    theirs.pass_on("b")
    await eventually(lambda: got == ["a", "b", "c"])
    theirs.pass_on("a")
    await eventually(lambda: got == ["a", "b", "c", "d"])


async def test_who_passes_his_turn_on_twice_gives_no_second_one_away():
    theirs, got, tasks = await queueing("abc", most=1)
    for _ in range(3):
        theirs.pass_on("a")
    await eventually(lambda: got == ["a", "b"])
    assert not tasks[2].done()
    theirs.pass_on("c")
    await asyncio.sleep(0)
    assert not tasks[2].done(), "he has none to give"
    theirs.pass_on("b")
    await tasks[2]


async def test_one_that_never_says_how_it_is_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(turns, "LONGEST", 0.02)
    _theirs, got, _tasks = await queueing("abc", most=1)
    await eventually(lambda: got == ["a", "b", "c"])


async def test_one_that_no_longer_waits_keeps_no_turn():
    theirs, got, tasks = await queueing("abc", most=1)
    tasks[1].cancel()
    theirs.pass_on("a")
    await eventually(lambda: got == ["a", "c"])


async def test_by_itself_there_is_one_for_each_core(monkeypatch):
    monkeypatch.setattr(turns, "cores", lambda: 3)
    _theirs, got, _tasks = await queueing("abcd", most=None)
    assert got == ["a", "b", "c"]
