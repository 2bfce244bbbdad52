"""What happens while a kept request runs: started, outputs of a generator, lines that the model printed.

One attempt to run the request writes its events in order, several at a time into one object (a segment). Ids sort: the
attempt comes first, later attempts behind earlier ones, then the place within it. So a reader that asks for what is
behind the id it saw last goes on with the newest attempt, and what a stale one still writes is passed over. A segment
is named after its last event, so that only those with something new are read. Events are there for whoever follows a
request; its result says how it ended.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Literal

import msgspec

from dumbwaiter.blobs.keys import safe_segment
from dumbwaiter.errors import BlobNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from dumbwaiter.blobs.store import BlobStore

    Opened = Callable[[str], contextlib.AbstractAsyncContextManager[Sequence["Event"]]]

FIRST = 1
"""The number of the first event of an attempt."""

_MOST_DELIVERIES = 0xFF
_TIME_OF_ATTEMPT = slice(2, 13)
_ID = re.compile(r"[0-9a-f]{13}-[0-9a-f]{8}")


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event: *data* is of *content_type*, as the model's codec wrote it, or JSON or text of ours.

    *id* comes from event_id().
    """

    id: str
    event: Literal["start", "output", "log"]
    data: bytes = b""
    content_type: str = "application/json"


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Event]).decode


def new_attempt(delivery_count: int, now: float) -> str:
    """The name of an attempt: the *delivery_count*-th delivery, begun at *now* (seconds since the Unix epoch)."""
    return f"{min(max(delivery_count, 0), _MOST_DELIVERIES):02x}{int(now * 1000):011x}"


def event_id(attempt: str, sequence: int) -> str:
    """The id of the event number *sequence* of *attempt*; they count from FIRST on, and leave none out."""
    return f"{attempt}-{sequence:08x}"


def is_next_event(id_: str, before: str) -> bool:
    """Whether nothing was lost between the event *before* (no event's id: there was none) and the event *id_*: it is
    the next of its attempt, or the first of another. What is no event's id tells nothing, and passes.
    """
    if not is_event_id(id_):
        return True
    place = int(id_.partition("-")[2], 16)
    if _attempt_of(id_) != _attempt_of(before):
        return place <= FIRST
    return place == int(before.partition("-")[2], 16) + 1


def is_event_id(text: str) -> bool:
    """Whether *text* has the form of an event's id: callers say which one they saw last."""
    return _ID.fullmatch(text) is not None


async def append(store: BlobStore, request_id: str, events: Sequence[Event]) -> None:
    """Write *events*, all of one attempt and in order, as one object. An empty sequence is a no-op.

    Raises BlobError when the store cannot take it.
    """
    if events:
        await store.put(f"{_folder(request_id)}{events[-1].id}", _encode(events), durable=False)


async def follow(
    store: BlobStore, request_id: str, after: str | None = None, *, opened: Opened | None = None
) -> AsyncGenerator[Event]:
    """The events that are there now, in order; only those behind the id *after*, unless None. One segment in memory.

    *opened* gives the events of the segment with a key for as long as they are read, for one who wants to count them or
    share them with others; read_segment() otherwise. Close what this returns, so that it lets go of the last one.

    An *after* of which nothing is known is passed over, and the events come from the first one on: it is no event's id
    at all, or of an attempt that was forgotten since. After a redrive attempts are counted from one again, so that
    theirs may sort behind those that come.
    """
    folder = _folder(request_id)
    keys = await store.list(folder)
    attempts = {_attempt_of(key.removeprefix(folder)) for key in keys}
    seen = after if after is not None and is_event_id(after) and _attempt_of(after) in attempts else ""
    for key in keys:
        if key.removeprefix(folder) <= seen:
            continue
        async with _read(store, key) if opened is None else opened(key) as events:
            for event in events:
                if event.id > seen:
                    seen = event.id
                    yield event


async def read_events(store: BlobStore, request_id: str, after: str | None = None) -> list[Event]:
    """All of follow() at once."""
    return [event async for event in follow(store, request_id, after)]


async def last_start(store: BlobStore, request_id: str) -> float | None:
    """When the newest attempt began, in seconds since the Unix epoch; None when nothing is known of any."""
    folder = _folder(request_id)
    names = [key.removeprefix(folder) for key in await store.list(folder)]
    began = [int(name[_TIME_OF_ATTEMPT], 16) / 1000 for name in names if is_event_id(name)]
    return max(began, default=None)


async def forget_events(store: BlobStore, request_id: str) -> None:
    """Delete what was written about the request."""
    for key in await store.list(_folder(request_id)):
        await store.delete(key)


async def read_segment(store: BlobStore, key: str) -> list[Event]:
    """The events in the object *key*; none where that is gone or cannot be read. Raises BlobError."""
    try:
        return _decode(await store.get(key))
    except (BlobNotFoundError, msgspec.DecodeError):
        # It was forgotten just now, or torn by a power cut: segments are not synced.
        return []


@contextlib.asynccontextmanager
async def _read(store: BlobStore, key: str) -> AsyncIterator[list[Event]]:
    yield await read_segment(store, key)


def _attempt_of(id_: str) -> str:
    return id_.partition("-")[0]


def _folder(request_id: str) -> str:
    return f"events/{safe_segment(request_id)}/"
