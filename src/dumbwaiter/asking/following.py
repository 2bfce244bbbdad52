"""Following a kept request to its end: the one place that knows in which order to look."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

from dumbwaiter.blobs.events import Event, follow

if TYPE_CHECKING:
    from dumbwaiter.asking.polling import Polling
    from dumbwaiter.blobs.events import Opened
    from dumbwaiter.blobs.store import BlobStore

R = TypeVar("R")


async def follow_to_end(
    store: BlobStore,
    id_: str,
    find: Callable[[], Awaitable[R | None]],
    polling: Polling,
    *,
    after: str | None = None,
    wakes: Collection[asyncio.Future[Any]] = (),
    endures: tuple[type[Exception], ...] = (),
    opened: Opened | None = None,
) -> AsyncGenerator[Event | R | None]:
    """The events of the request *id_* behind the event *after* (None: all), as they come, and last its result.

    *find* looks for the result, and returns None while there is none. A None between the events means: nothing more for
    now, a pause follows. Then whoever reads may have a word of their own to say, or leave. The pause ends early when
    one of *wakes* is done. What a look raises is raised here, but for errors of *endures*: those are passed over, and
    the next look goes on behind the last event that was given out. *opened* is for blobs.events.follow().

    Without a result it ends only when the patience of *polling* is over.
    """
    result: R | None = None
    while result is None:
        found = False
        with contextlib.suppress(*endures):
            # In this order: a worker writes the result after all of its events, so those that are read after the result
            # was seen are all there are. The other way round, the last events and the result may come in between.
            seen = await find()
            async with contextlib.aclosing(follow(store, id_, after, opened=opened)) as events:
                async for event in events:
                    after, found = event.id, True
                    yield event
            result = seen
        if result is None:
            yield None
            if not await polling.pause(found=found, wakes=wakes):
                return
    yield result
