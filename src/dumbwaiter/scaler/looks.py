"""Looks at one pool, shared: KEDA asks twice at every poll, and any number of streams may follow the same pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from dumbwaiter.demand import PoolView, PoolWatcher
from dumbwaiter.scaler.refusing import StoppingError, TooSlowError
from dumbwaiter.tasks import end

T = TypeVar("T")
LOOK_WITHIN = 10.0
"""Seconds after which a look has failed: of a network that swallows everything nobody would ever be told."""


class SharedLooks:
    """One look at a time at what *watcher* watches. Whoever asks meanwhile gets its outcome, be it an error."""

    def __init__(self, watcher: PoolWatcher) -> None:
        self._watcher = watcher
        self._looking: asyncio.Task[PoolView] | None = None
        self._began = 0.0
        self._seen: PoolView | None = None
        self._seen_at = 0.0
        self._is_closed = False

    async def view(self, *, since: float) -> PoolView:
        """What a look showed that began at *since*, on time.monotonic(), or later.

        Raises BrokerError, BlobError, SignalUnknownError, TooSlowError, StoppingError.
        """
        while self._seen is None or self._seen_at < since:
            if self._is_closed:
                raise StoppingError
            if self._looking is None or self._looking.done():
                self._began = time.monotonic()
                self._looking = asyncio.create_task(self._look())
                self._looking.add_done_callback(_heard)
            # Others wait for it too: who gives up does not end it for them.
            await asyncio.wait({self._looking})
            if not self._looking.cancelled():
                self._looking.result()
        return self._seen

    async def is_waited_for(self) -> bool:
        """Whether something waits, by a glance that costs one question to the broker. Raises as view() does."""
        return await _in_time(self._watcher.is_waited_for())

    async def close(self) -> None:
        """End the look that is under way, if any."""
        self._is_closed = True
        await end([self._looking])

    async def _look(self) -> PoolView:
        began = self._began
        view = await _in_time(self._watcher.look())
        self._seen, self._seen_at = view, began
        return view


def _heard(task: asyncio.Task[PoolView]) -> None:
    """What it raised is no news for asyncio's log when all who waited for it have gone away."""
    if not task.cancelled():
        task.exception()


async def _in_time(work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(LOOK_WITHIN):
            return await work
    except TimeoutError:
        raise TooSlowError(LOOK_WITHIN) from None
