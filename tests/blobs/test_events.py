"""Events of a request: in order, from where a reader left off, and none of a stale attempt behind a newer one's."""

from __future__ import annotations

import pytest

from dumbwaiter.blobs import BlobStore
from dumbwaiter.blobs.events import (
    Event,
    append,
    event_id,
    follow,
    forget_events,
    is_event_id,
    last_start,
    new_attempt,
    read_events,
)
from dumbwaiter.errors import BlobError

pytestmark = pytest.mark.anyio

FIRST = new_attempt(1, 1_700_000_000.0)
SECOND = new_attempt(2, 1_700_000_060.0)


def log(attempt: str, *numbers: int) -> list[Event]:
    return [
        Event(id=event_id(attempt, one), event="log", data=b"%d" % one, content_type="text/plain") for one in numbers
    ]


async def ids_of(store: BlobStore, after: str | None = None, request_id: str = "r1") -> list[str]:
    return [event.id for event in await read_events(store, request_id, after)]


async def test_events_come_back_in_order_as_they_were_written(store: BlobStore):
    events = [
        Event(id=event_id(FIRST, 0), event="start", data=b'{"attempt":1}'),
        Event(id=event_id(FIRST, 1), event="output", data=b"\x89PNG\xff", content_type="image/png"),
        *log(FIRST, 2),
    ]
    await append(store, "r1", events[:1])
    await append(store, "r1", events[1:])
    assert await read_events(store, "r1") == events
    assert await read_events(store, "another") == []


async def test_an_empty_append_writes_nothing(store: BlobStore):
    await append(store, "r1", [])
    assert await store.list("") == []


async def test_a_reader_goes_on_behind_what_it_saw_last_also_in_the_middle_of_a_segment(store: BlobStore):
    for numbers in ((0,), (1, 2, 3), (4, 5)):
        await append(store, "r1", log(FIRST, *numbers))
    for seen in range(6):
        assert await ids_of(store, event_id(FIRST, seen)) == [event_id(FIRST, one) for one in range(seen + 1, 6)]


async def test_only_segments_with_something_new_are_read(store: BlobStore):
    for number in range(3):
        await append(store, "r1", log(FIRST, number))
    first, *_ = await store.list("events/")
    await store.put(first, b"nobody looks in here again")
    assert await ids_of(store, event_id(FIRST, 0)) == [event_id(FIRST, 1), event_id(FIRST, 2)]


async def test_what_a_stale_attempt_still_writes_is_passed_over_once_the_next_one_was_seen(store: BlobStore):
    await append(store, "r1", log(FIRST, 0, 1))
    await append(store, "r1", log(SECOND, 0))
    seen = await ids_of(store)
    assert seen == [event_id(FIRST, 0), event_id(FIRST, 1), event_id(SECOND, 0)]
    await append(store, "r1", log(FIRST, 2))
    await append(store, "r1", log(SECOND, 1))
    assert await ids_of(store, seen[-1]) == [event_id(SECOND, 1)]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (event_id(FIRST, 9), event_id(FIRST, 10)),
        (event_id(FIRST, 15), event_id(FIRST, 16)),
        (event_id(FIRST, 2**31), event_id(SECOND, 0)),
        (new_attempt(1, 2e9), new_attempt(2, 1e9)),
        (new_attempt(2, 1e9), new_attempt(2, 1e9 + 0.001)),
        (new_attempt(9, 1e9), new_attempt(10, 1e9)),
        (new_attempt(255, 1e9), new_attempt(1000, 1e9 + 1)),
    ],
)
def test_ids_sort_by_attempt_and_then_by_number(earlier, later):
    assert earlier < later


@pytest.mark.parametrize("after", ["", "zzz", "../..", "ffff", "\ud800", "ä" * 999, event_id(FIRST, 0).upper() + "\n"])
async def test_a_last_seen_id_that_is_none_of_ours_starts_from_the_first_event(store: BlobStore, after):
    await append(store, "r1", log(FIRST, 0, 1))
    assert not is_event_id(after)
    assert len(await ids_of(store, after)) == 2
    assert is_event_id(event_id(FIRST, 0))


@pytest.mark.parametrize(
    "after", [event_id(SECOND, 5), event_id(new_attempt(1, 1_600_000_000.0), 0), "f" * 13 + "-00000000"]
)
async def test_a_last_seen_id_of_an_attempt_that_is_not_known_starts_from_the_first_event(store: BlobStore, after):
    await append(store, "r1", log(FIRST, 0, 1))
    assert len(await ids_of(store, after)) == 2


async def test_a_reader_that_has_seen_a_later_attempt_before_a_redrive_sees_the_first_one_after_it(store: BlobStore):
    await append(store, "r1", log(SECOND, 0))
    seen = (await ids_of(store))[-1]
    await forget_events(store, "r1")
    anew = new_attempt(1, 1_700_000_120.0)
    await append(store, "r1", log(anew, 0, 1))
    first = await ids_of(store, seen)
    assert first == [event_id(anew, 0), event_id(anew, 1)]
    await append(store, "r1", log(anew, 2))
    assert await ids_of(store, first[-1]) == [event_id(anew, 2)]


@pytest.mark.parametrize("torn", [b"", b"\x91", b"\xff" * 100, b"\x80", b'[{"id":1}]'])
async def test_a_segment_that_a_power_cut_tore_hides_no_other(store: BlobStore, torn):
    for number in range(3):
        await append(store, "r1", log(FIRST, number))
    await store.put((await store.list("events/"))[1], torn)
    assert await ids_of(store) == [event_id(FIRST, 0), event_id(FIRST, 2)]


async def test_events_that_are_forgotten_while_they_are_read_are_no_error(store: BlobStore):
    await append(store, "r1", log(FIRST, 0))
    await append(store, "r1", log(FIRST, 1))
    reading = follow(store, "r1")
    assert (await anext(reading)).id == event_id(FIRST, 0)
    await forget_events(store, "r1")
    assert [event async for event in reading] == []
    assert await store.list("") == []


@pytest.mark.parametrize("id_", ["../r1", "a/b", "", "ä" * 300, "\0"])
async def test_any_text_is_the_id_of_a_request_and_no_two_mix(store: BlobStore, id_):
    await append(store, id_, log(FIRST, 0))
    await append(store, "r1", log(FIRST, 1))
    assert await ids_of(store, request_id=id_) == [event_id(FIRST, 0)]
    await forget_events(store, id_)
    assert await ids_of(store) == [event_id(FIRST, 1)]


async def test_a_store_that_cannot_tell_is_an_error_and_not_an_end(local: BlobStore, tmp_path):
    (tmp_path / "blobs").symlink_to("blobs")
    with pytest.raises(BlobError, match="cannot list blobs"):
        await read_events(local, "r1")


async def test_the_newest_attempt_tells_when_it_began(store: BlobStore):
    assert await last_start(store, "r1") is None
    for count, began in ((2, 900.25), (1, 1000.5)):
        await append(store, "r1", [Event(id=event_id(new_attempt(count, began), 7), event="log")])
    await store.put("events/r1/something", b"else")
    assert await last_start(store, "r1") == 1000.5
