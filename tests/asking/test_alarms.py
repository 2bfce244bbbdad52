"""One timer for all ends of patience: each rings in its time, and what was silenced takes no room."""

from __future__ import annotations

import asyncio
import time

import pytest

from dumbwaiter.asking.alarms import MOST_SILENCED, Alarms
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def test_alarms_ring_in_the_order_of_their_times_however_they_were_set() -> None:
    alarms, rung, now = Alarms(), [], time.monotonic()
    for seconds in (0.06, 0.02, 0.04):
        alarms.set(now + seconds, lambda seconds=seconds: rung.append((seconds, time.monotonic())))  # type: ignore[misc]
    await eventually(lambda: len(rung) == 3)
    assert [seconds for seconds, _ in rung] == [0.02, 0.04, 0.06]
    assert all(at >= now + seconds for seconds, at in rung), "one rang too early"


async def test_an_alarm_whose_time_is_over_rings_at_once() -> None:
    alarms, rung = Alarms(), asyncio.Event()
    alarms.set(time.monotonic() - 1.0, rung.set)
    async with asyncio.timeout(2.0):
        await rung.wait()


async def test_a_silenced_alarm_does_not_ring_and_those_behind_it_do() -> None:
    alarms, rung, now = Alarms(), [], time.monotonic()
    silent = alarms.set(now + 0.02, lambda: rung.append("silenced"))
    alarms.set(now + 0.04, lambda: rung.append("behind"))
    alarms.silence(silent)
    alarms.silence(silent)
    await eventually(lambda: "behind" in rung)
    assert rung == ["behind"]


async def test_silenced_alarms_do_not_pile_up_until_their_time_comes() -> None:
    alarms, later = Alarms(), time.monotonic() + 3600.0
    kept = [alarms.set(later, lambda: None) for _ in range(10)]
    for _ in range(10_000):
        alarms.silence(alarms.set(later, lambda: None))
    assert len(alarms) <= len(kept) + MOST_SILENCED + 1
    alarms.close()


async def test_none_rings_once_they_are_closed() -> None:
    alarms, rung = Alarms(), []
    alarms.set(time.monotonic() + 0.01, lambda: rung.append("closed"))
    alarms.close()
    after = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.05, after.set_result, None)
    await after
    assert rung == []


async def test_an_alarm_does_not_wait_for_a_later_one_that_was_set_before() -> None:
    alarms, rung, now = Alarms(), asyncio.Event(), time.monotonic()
    alarms.set(now + 3600.0, lambda: None)
    alarms.set(now + 0.02, rung.set)
    async with asyncio.timeout(5.0):
        await rung.wait()
    alarms.close()
