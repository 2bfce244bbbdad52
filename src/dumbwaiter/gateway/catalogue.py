"""Which models exist and whether any worker can load them: read from the broker and the blob store, and remembered.

A model exists when it has a queue; the system's own queues (``dumbwaiter.``...) are no models. No workers at all is
fine: the request waits for one (scale to zero). Only when every worker of a model says that it cannot load it, callers
are told at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.blobs.presence import WorkerStatus, short_reason, why_failing, why_silent, workers_of
from dumbwaiter.config import did_you_mean
from dumbwaiter.errors import BlobError
from dumbwaiter.gateway.problems import Problem, ProblemError, one_line
from dumbwaiter.message import SYSTEM_QUEUES

if TYPE_CHECKING:
    from collections.abc import Callable

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker

LOOK_EVERY = 1.0
"""Seconds between two looks at the workers of a model that is in use."""
IN_USE_FOR = 10.0
"""A model counts as in use for this many seconds after a request, and while requests wait for it."""
MOST_NAMES, LONGEST_NAME = 100, 100

_log = logging.getLogger("dumbwaiter.gateway")


class Catalogue:
    """Models by name. *on_failing* is called with a model and the reason while no worker of it can load it."""

    def __init__(
        self,
        broker: Broker,
        store: BlobStore,
        *,
        waiting: Callable[[], set[str]],
        on_failing: Callable[[str, str], object],
    ) -> None:
        self._broker = broker
        self._store = store
        self._waiting = waiting
        self._on_failing = on_failing
        self._known: frozenset[str] = frozenset()
        self._lookup: asyncio.Task[list[str]] | None = None
        self._used_at: dict[str, float] = {}
        self._seen: dict[str, list[WorkerStatus]] = {}
        self._look_now = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._store_is_down = False

    async def close(self) -> None:
        """Stop looking."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    async def models(self) -> list[str]:
        """Their names, sorted."""
        # A flood of unknown names shares one look at the broker at a time.
        if self._lookup is None or self._lookup.done():
            self._lookup = asyncio.get_running_loop().create_task(self._broker.queues())
        queues = await asyncio.shield(self._lookup)
        return [queue for queue in queues if not queue.startswith(SYSTEM_QUEUES)]

    async def require(self, model: str) -> None:
        """Raises ProblemError (404, with the names of those that exist) for a model that has no queue."""
        if model not in self._known:
            self._known = frozenset(await self.models())
            if model not in self._known:
                raise ProblemError(_unknown(model, sorted(self._known)))

    def forget(self, model: str) -> None:
        """The broker says that there is no such queue any more."""
        self._known -= {model}

    def failing_reason(self, model: str) -> str | None:
        """Why no worker can load *model*, as of the last look; None when one can, or none is known."""
        if model not in self._used_at:
            self._look_now.set()
        self._used_at[model] = time.monotonic()
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.get_running_loop().create_task(self._watch())
        return why_failing(self._seen.get(model, ()))

    def silent_reason(self, model: str) -> str | None:
        """Why *model* may not have answered, as of the last look at its workers; None without one."""
        workers = self._seen.get(model)
        return None if workers is None else why_silent(workers)

    async def overview(self) -> list[dict[str, Any]]:
        """Every model with its workers and what they say of themselves."""
        models = await self.models()
        workers = await asyncio.gather(*(workers_of(self._store, model) for model in models))
        return [
            {"name": model, "workers": [_outside_view(status) for status in statuses]}
            for model, statuses in zip(models, workers, strict=True)
        ]

    async def _watch(self) -> None:
        while True:
            self._look_now.clear()
            models = in_use(self._used_at, self._waiting(), now=time.monotonic())
            self._used_at = {model: self._used_at.get(model, 0.0) for model in models}
            self._seen = {model: workers for model, workers in self._seen.items() if model in models}
            await asyncio.gather(*(self._look_at(model) for model in models))
            try:
                await asyncio.wait_for(self._look_now.wait(), LOOK_EVERY if models else None)
            except TimeoutError:
                continue

    async def _look_at(self, model: str) -> None:
        try:
            workers = await workers_of(self._store, model)
        except BlobError as error:
            if not self._store_is_down:
                _log.warning("cannot see which workers are alive: %s", error)
            self._store_is_down = True
            return  # what was last seen stays
        self._store_is_down = False
        self._seen[model] = workers
        reason = why_failing(workers)
        if reason is not None:
            self._on_failing(model, reason)


def in_use(used_at: dict[str, float], waiting: set[str], *, now: float) -> set[str]:
    """The models worth a look: asked for within IN_USE_FOR seconds, or with requests waiting."""
    return {model for model, at in used_at.items() if now - at < IN_USE_FOR} | waiting


def _outside_view(status: WorkerStatus) -> dict[str, Any]:
    view: dict[str, Any] = msgspec.to_builtins(status)
    return {**view, "reason": short_reason(status.reason)}


def _unknown(model: str, known: list[str]) -> Problem:
    if known:
        shown = ", ".join(known[:MOST_NAMES]) + (", ..." if len(known) > MOST_NAMES else "")
        detail = f"no model named {one_line(model)!r}; known: {shown}{did_you_mean(model[:LONGEST_NAME], known)}"
    else:
        detail = f"no model named {one_line(model)!r}, and none at all yet: start a worker"
    return Problem(status=404, code="unknown-model", detail=detail, members={"models": known[:MOST_NAMES]})
