"""A lane: events gather while one write is under way; memory is bounded; a failing store costs events only."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.events import append, is_next_event, read_events
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import BlobError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from dumbwaiter.worker import progress
from dumbwaiter.worker.notifying import Notifier
from dumbwaiter.worker.pipe import Report
from dumbwaiter.worker.progress import Lane

pytestmark = pytest.mark.anyio


class Gate:
    """Stands in the place of blobs.events.append: lets writes through one by one, or fails them."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.errors: list[Exception] = []
        self.sizes: list[int] = []

    async def append(self, store, request_id, events) -> None:
        self.sizes.append(len(events))
        await self.open.wait()
        if self.errors:
            raise self.errors.pop(0)
        await append(store, request_id, events)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    it = Gate()
    monkeypatch.setattr(progress, "append", it.append)
    return it


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}")


@pytest.fixture
def lane(store) -> Lane:
    return Lane(store, Notifier(MemoryBroker("memory:"), "dish"), Message(id="one"), 1)


def output(data: bytes) -> tuple[Report, bytes]:
    return Report(0, "output", "text/plain", len(data)), data


def log(data: bytes) -> tuple[Report, bytes]:
    return Report(0, "log", "text/plain; charset=utf-8", len(data)), data


async def test_what_comes_while_a_write_is_under_way_goes_together_into_the_next(lane, store, gate) -> None:
    lane.add(*output(b"0"))
    await asyncio.sleep(0)
    for number in range(1, 10):
        lane.add(*output(b"%d" % number))
    gate.open.set()
    await lane.flush()
    assert gate.sizes == [1, 9]
    assert [event.data for event in await read_events(store, "one")] == [b"%d" % number for number in range(10)]


async def test_of_what_is_printed_the_oldest_is_dropped_and_of_the_output_nothing(lane, store, gate) -> None:
    lane.add(*output(b"first"))
    await asyncio.sleep(0)
    for number in range(20):
        lane.add(*log(b"%02d" % number * 5_000))
        lane.add(*output(b"%02d" % number))
    gate.open.set()
    await lane.flush()
    events = await read_events(store, "one")
    assert [event.data for event in events if event.event == "output"][1:] == [b"%02d" % n for n in range(20)]
    logs = [event.data[:2] for event in events if event.event == "log"]
    assert logs == [b"%02d" % number for number in range(14, 20)]
    assert [event.id for event in events] == sorted({event.id for event in events})


async def test_it_is_full_until_its_chunks_are_written(lane, gate, monkeypatch) -> None:
    monkeypatch.setattr(progress, "MOST_CHUNK_NBYTES", 10)
    lane.add(*output(b"x" * 11))
    assert lane.is_full
    room = asyncio.create_task(lane.room())
    await asyncio.sleep(0)
    assert not room.done()
    gate.open.set()
    await room
    assert not lane.is_full


async def test_what_a_store_refuses_is_written_before_what_came_later_and_nothing_is_missing(
    lane, store, gate, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(progress, "RETRY_EVERY", 0.01)
    gate.errors = [BlobError("slow down")] * 3
    lane.add(*output(b"first"))
    await asyncio.sleep(0)
    lane.add(*output(b"second"))
    gate.open.set()
    await eventually(lambda: gate.sizes == [1, 1, 1, 1, 1])
    await lane.flush()
    events = await read_events(store, "one")
    assert [event.data for event in events] == [b"first", b"second"]
    assert is_next_event(events[0].id, "")
    assert is_next_event(events[1].id, events[0].id)
    assert caplog.text.count("is late: slow down") == 3


async def test_no_event_follows_one_that_could_not_be_written_for_long(lane, store, gate, monkeypatch, caplog) -> None:
    monkeypatch.setattr(progress, "RETRY_EVERY", 0.01)
    monkeypatch.setattr(progress, "WRITE_TIMEOUT", 0.1)
    monkeypatch.setattr(progress, "MOST_CHUNK_NBYTES", 10)
    gate.errors = [BlobError("no space left on the device")] * 1000
    gate.open.set()
    lane.add(*output(b"x" * 100))
    assert lane.is_full
    await lane.room()
    gate.errors.clear()
    lane.add(*output(b"later"))
    await lane.flush()
    assert await read_events(store, "one") == []
    assert "all further progress of one is lost: no space left" in caplog.text


async def test_an_answer_waits_for_one_more_try_and_no_longer(lane, store, gate) -> None:
    gate.errors = [BlobError("slow down")] * 1000
    gate.open.set()
    lane.add(*output(b"x"))
    await lane.flush()
    assert gate.sizes == [1, 1]


async def test_logs_that_were_dropped_leave_no_gap_between_the_ids(lane, store, gate) -> None:
    lane.add(*output(b"first"))
    await asyncio.sleep(0)
    for _ in range(20):
        lane.add(*log(b"x" * 10_000))
    gate.open.set()
    await lane.flush()
    ids = ["", *(event.id for event in await read_events(store, "one"))]
    assert len(ids) < 20
    assert all(is_next_event(id_, before) for before, id_ in pairwise(ids))


@pytest.mark.parametrize("error", [TimeoutError(), RuntimeError("a fault of ours")])
async def test_after_a_store_that_hangs_or_a_fault_nothing_more_is_taken_in_and_nobody_waits(
    lane, gate, monkeypatch, caplog, error
) -> None:
    monkeypatch.setattr(progress, "MOST_CHUNK_NBYTES", 10)
    gate.errors = [error]
    gate.open.set()
    lane.add(*output(b"x" * 100))
    await lane.room()
    await lane.flush()
    lane.add(*output(b"x" * 100))
    assert not lane.is_full
    assert "progress of one is lost" in caplog.text
