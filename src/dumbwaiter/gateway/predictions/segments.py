"""What callers follow, in memory: each segment of events once, however many are at it, and counted.

A follower that finds no room waits for it: its response has begun, and nothing is lost by a pause. Large segments may
take half of the memory for requests together, so that followers who read slowly turn away no requests.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from dumbwaiter.asking import Polling
from dumbwaiter.blobs.events import Event, read_segment
from dumbwaiter.errors import BlobNotFoundError
from dumbwaiter.gateway.http.budget import SMALL
from dumbwaiter.policies.polling import STREAM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.gateway.http.budget import Budget, Hold

SHARE = 1 / 2
"""The part of the memory for requests that large segments may take together."""
COPIES = 2
"""So often is a segment in memory while it is read: as it came, and as events."""


class _Segment:
    """One that somebody follows: *hold* is what it takes, *loading* gives its events."""

    __slots__ = ("hold", "loading", "sharers")

    def __init__(self, hold: Hold, loading: asyncio.Task[list[Event]]) -> None:
        self.hold = hold
        self.loading = loading
        self.sharers = 0

    def has_failed(self) -> bool:
        return self.loading.done() and (self.loading.cancelled() or self.loading.exception() is not None)


class Segments:
    """The segments in *store* that are being followed; what they take is taken from *budget*."""

    def __init__(self, store: BlobStore, budget: Budget) -> None:
        self.store = store
        self._budget = budget
        self._followed: dict[str, _Segment] = {}
        self._large: set[Hold] = set()

    @contextlib.contextmanager
    def share(self, key: str) -> Iterator[asyncio.Future[list[Event]]]:
        """The events of the segment *key*, once there is room for them and they are read; forgotten by the last to
        leave. The future raises BlobError.
        """
        segment = self._followed.get(key)
        if segment is None or segment.has_failed():
            hold = self._budget.hold()
            segment = self._followed[key] = _Segment(hold, asyncio.create_task(self._load(key, hold)))
        segment.sharers += 1
        try:
            yield segment.loading
        finally:
            segment.sharers -= 1
            if not segment.sharers:
                self._forget(key, segment)

    def _forget(self, key: str, segment: _Segment) -> None:
        if self._followed.get(key) is segment:
            del self._followed[key]
        segment.loading.cancel()
        segment.hold.release()
        self._large.discard(segment.hold)

    async def _load(self, key: str, hold: Hold) -> list[Event]:
        try:
            nbytes = await self.store.size(key)
        except BlobNotFoundError:
            return []  # it was forgotten just now
        await self._take(hold, COPIES * nbytes)
        events = await read_segment(self.store, key)
        hold.keep(nbytes)
        return events

    async def _take(self, hold: Hold, nbytes: int) -> None:
        """Wait until there is room. One larger than all of them may be is let in when it is the only one."""
        most = int(self._budget.limit * SHARE)
        nbytes = min(nbytes, most)
        is_large = nbytes > SMALL
        polling = Polling(STREAM)
        while not self._budget.has_room(nbytes, in_all=nbytes) or (is_large and self._all_large() + nbytes > most):
            await polling.pause()
        hold.take(nbytes)
        if is_large:
            self._large.add(hold)

    def _all_large(self) -> int:
        return sum(hold.nbytes for hold in self._large)
