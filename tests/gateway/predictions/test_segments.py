"""Segments of events in memory: each once, counted, and given back by the last who followed it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from dumbwaiter.blobs.events import Event, append, event_id, new_attempt
from dumbwaiter.errors import BlobError
from dumbwaiter.gateway.http.budget import Budget
from dumbwaiter.gateway.predictions.segments import Segments
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


class Counting:
    """The *inner* store, and the keys that were read."""

    def __init__(self, inner):
        self._inner = inner
        self.read = []
        self.fails = False

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def get(self, key):
        self.read.append(key)
        if self.fails:
            raise BlobError("down")
        return await self._inner.get(key)


async def segment(store, id_, nbytes):
    """The key of a new segment of one event with so many bytes."""
    event = Event(id=event_id(new_attempt(1, 1.0), 1), event="output", data=bytes(nbytes), content_type="a/b")
    await append(store, id_, [event])
    return f"events/{id_}/{event.id}"


async def test_a_segment_is_read_once_for_all_who_follow_it_and_gone_with_the_last(store):
    store, budget = Counting(store), Budget(100 * MIB)
    segments, key = Segments(store, budget), await segment(store, "a", MIB)
    with segments.share(key) as first:
        with segments.share(key) as second:
            assert first is second
            (event,) = await first
            assert len(event.data) == MIB
        assert MIB <= budget.taken < 1.1 * MIB
        assert store.read == [key]
    assert budget.taken == 0
    with segments.share(key) as third:
        await third
    assert store.read == [key, key]


async def test_who_finds_no_room_waits_and_is_served_when_there_is(store):
    budget = Budget(10 * MIB)
    segments, key = Segments(store, budget), await segment(store, "a", MIB)
    with budget.hold() as others:
        others.take(8 * MIB)
        with segments.share(key) as loading:
            await asyncio.wait({loading}, timeout=0.2)
            assert not loading.done()
            assert budget.taken == 8 * MIB
            others.release()
            assert len(await asyncio.wait_for(loading, 5)) == 1
    assert budget.taken == 0


async def test_large_segments_leave_half_of_the_memory_to_requests_and_small_ones_pass(store):
    budget = Budget(10 * MIB)
    segments = Segments(store, budget)
    keys = [await segment(store, name, 2 * MIB) for name in "abcd"]
    small = await segment(store, "small", 1000)
    with contextlib.ExitStack() as stack:
        followed = [stack.enter_context(segments.share(key)) for key in keys]

        async def is_full():
            return sum(loading.done() for loading in followed) >= 1

        await eventually(is_full)
        await asyncio.wait(followed, timeout=0.3)
        assert 0 < sum(loading.done() for loading in followed) < 4
        assert budget.taken < 6 * MIB
        with segments.share(small) as passing:
            await asyncio.wait_for(passing, 5)
    assert budget.taken == 0


async def test_one_that_is_larger_than_all_may_be_is_read_alone(store):
    budget = Budget(MIB)
    segments = Segments(store, budget)
    keys = [await segment(store, name, 3 * MIB) for name in "ab"]
    with segments.share(keys[1]) as second:
        with segments.share(keys[0]) as first:
            done, waiting = await asyncio.wait({first, second}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            assert (len(done), len(waiting)) == (1, 1)
        segments_left = waiting - {first}
        for loading in segments_left:
            await asyncio.wait_for(loading, 5)
    assert budget.taken == 0


async def test_who_leaves_while_it_waits_takes_nothing_with_it(store):
    budget = Budget(10 * MIB)
    segments, key = Segments(store, budget), await segment(store, "a", MIB)
    with budget.hold() as others:
        others.take(8 * MIB)
        with segments.share(key):
            await asyncio.sleep(0)
    assert budget.taken == 0
    with segments.share(key) as loading:
        assert len(await loading) == 1


async def test_what_could_not_be_read_is_tried_again_by_the_next_and_keeps_no_memory(store):
    store, budget = Counting(store), Budget(10 * MIB)
    segments, key = Segments(store, budget), await segment(store, "a", MIB)
    store.fails = True
    with segments.share(key) as loading, pytest.raises(BlobError):
        await loading
    with segments.share(key) as loading:
        await asyncio.wait({loading})
        store.fails = False
        with segments.share(key) as again:
            assert len(await again) == 1
        assert isinstance(loading.exception(), BlobError)
    assert budget.taken == 0
    assert segments._followed == {}


async def test_a_segment_that_is_gone_has_no_events(store):
    segments = Segments(store, Budget(MIB))
    with segments.share("events/a/0") as loading:
        assert await loading == []
