"""Following a kept request: all of its events, and its result last, whatever is written while one looks."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import pytest

from dumbwaiter.answers import succeeded
from dumbwaiter.asking import Patience, Polling, follow_to_end
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.events import Event, append, event_id
from dumbwaiter.blobs.results import load_result, save_result
from dumbwaiter.errors import BlobError, BlobNotFoundError
from dumbwaiter.message import Message, Timings
from dumbwaiter.policies.polling import Pace

pytestmark = pytest.mark.anyio

FAST = Pace(0.001, 0.002)
NEVER = Pace(1000.0, 1000.0)
EVENTS = [Event(id=event_id("01000000000ab", n), event="output", data=b"%d" % n) for n in range(4)]


@pytest.fixture
def store(tmp_path):
    return open_store(f"file:{tmp_path}")


async def finish(store, body=b"soup"):
    answer = succeeded(Message(id="r1"), body=body, content_type=None, timings=Timings())
    await save_result(store, "r1", answer, threshold=9)


async def find(store):
    with contextlib.suppress(BlobNotFoundError):
        return await load_result(store, "r1")


def following(store, pace=FAST, patience=None, **facts):
    return follow_to_end(store, "r1", partial(find, store), Polling(pace, patience=patience), **facts)


async def told(store, **facts):
    return [one async for one in following(store, **facts) if one is not None]


class WorkerBetween:
    """*store*, where a worker writes its last events and its result when a reader has looked once, either way."""

    def __init__(self, store):
        self._store = store
        self._has_written = False

    def __getattr__(self, name):
        verb = getattr(self._store, name)
        if name not in {"get", "exists", "list"}:
            return verb

        async def then_write(key, *more):
            try:
                return await verb(key, *more)
            finally:
                if not self._has_written:
                    self._has_written = True
                    await append(self._store, "r1", EVENTS[1:])
                    await finish(self._store)

        return then_write


async def test_no_event_is_lost_when_events_and_result_are_written_between_two_looks(store):
    await append(store, "r1", EVENTS[:1])
    *events, result = await told(WorkerBetween(store))
    assert events == EVENTS
    assert result.body == b"soup"


async def test_events_come_as_they_are_written_and_the_result_last(store):
    seen = []
    written = 0
    async with contextlib.aclosing(following(store)) as stream:
        async for one in stream:
            if one is not None:
                seen.append(one)
            elif written < len(EVENTS):
                await append(store, "r1", EVENTS[written : written + 1])
                written += 1
            else:
                await finish(store)
    assert seen[:-1] == EVENTS
    assert seen[-1].body == b"soup"


async def test_whoever_comes_back_gets_what_is_behind_the_event_seen_last(store):
    await append(store, "r1", EVENTS)
    await finish(store)
    *events, _ = await told(store, after=EVENTS[1].id)
    assert events == EVENTS[2:]


async def test_a_pause_ends_when_something_wakes_the_reader(store):
    woken = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(20), contextlib.aclosing(following(store, NEVER, wakes=[woken])) as stream:
        assert await anext(stream) is None
        await finish(store)
        woken.set_result(None)
        assert (await anext(stream)).body == b"soup"


async def test_it_ends_without_a_result_when_patience_is_over(store):
    async with asyncio.timeout(20):
        assert await told(store, patience=Patience(0.02)) == []


class Stutters:
    """*store*, whose listings fail every other time."""

    def __init__(self, store):
        self._store = store
        self._looks = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def list(self, folder):
        self._looks += 1
        if self._looks % 2:
            raise BlobError("the disk is away")
        return await self._store.list(folder)


async def test_an_outage_that_is_endured_costs_no_event_and_not_the_result(store):
    await append(store, "r1", EVENTS)
    await finish(store)
    *events, result = await told(Stutters(store), endures=(BlobError,))
    assert events == EVENTS
    assert result.body == b"soup"


async def test_any_other_outage_is_raised(store):
    with pytest.raises(BlobError, match="the disk is away"):
        await told(Stutters(store))


async def test_pauses_are_cut_to_what_is_left_of_patience():
    polling = Polling(Pace(0.001, 1000.0, growth=1e6), patience=Patience(0.05))
    async with asyncio.timeout(20):
        while await polling.pause():
            pass
