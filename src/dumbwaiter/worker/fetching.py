"""Inputs that lie at URLs are fetched beside the queue: one that hangs holds up nobody who asks for something else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from dumbwaiter.policies.sharing import SharedPlaces
from dumbwaiter.tasks import end
from dumbwaiter.worker.hand import Held

PLACES, PER_HOST = 16, 8
"""So many inputs are fetched at once, and so many of them from one host; tenants share them."""

_log = logging.getLogger(__name__)


class Fetching:
    """Runs *fetch* for messages in hand, each in a task of its own.

    One that finds no place is given to *put_off* with the seconds until its turn; where that is None it waits here.
    """

    def __init__(
        self, fetch: Callable[[Held], Awaitable[None]], *, put_off: Callable[[Held, float], object] | None
    ) -> None:
        self._fetch = fetch
        self._put_off = put_off
        self._places = SharedPlaces(PLACES, per_host=PER_HOST)
        self._held: dict[asyncio.Task[None], Held] = {}

    @property
    def is_crowded(self) -> bool:
        """Whether as many are here as should be."""
        return len(self._held) >= 4 * PLACES

    def start(self, held: Held, host: str) -> None:
        """Begin to fetch the input of *held* from *host*, or put it off."""
        now = time.monotonic()
        turn = self._take(held, host, now)
        if turn is not None and self._put_off is not None:
            self._put_off(held, turn)
            return
        task = asyncio.create_task(self._run(held, host, now) if turn is None else self._wait(held, host, turn))
        self._held[task] = held
        task.add_done_callback(self._done)

    async def close(self) -> list[Held]:
        """Fetch nothing more. Returns those whose *fetch* had not returned."""
        cut_short = list(self._held.values())
        await end(self._held)
        return cut_short

    async def _wait(self, held: Held, host: str, turn: float | None) -> None:
        now = 0.0
        while turn is not None:
            await asyncio.sleep(turn)
            now = time.monotonic()
            turn = self._take(held, host, now)
        await self._run(held, host, now)

    async def _run(self, held: Held, host: str, began: float) -> None:
        try:
            await self._fetch(held)
        finally:
            self._places.release(host, held.request.tenant, began=began, now=time.monotonic())

    def _take(self, held: Held, host: str, now: float) -> float | None:
        is_first_try = held.delivery.delivery_count == 1
        return self._places.take(host, held.request.tenant, is_first_try=is_first_try, now=now)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._held[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            # A fault here must not end the worker; the message is safe in the queue.
            _log.error("fetching an input failed; its message comes back when its lock runs out", exc_info=error)
