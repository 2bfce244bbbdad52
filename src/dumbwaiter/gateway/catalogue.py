"""Which models exist and whether any worker can load them: read from the broker and the blob store, and remembered.

A model exists when it has a queue; the system's own queues (``dumbwaiter.``...) are no models. No workers at all is
fine: the request waits for one (scale to zero). Only when every worker of a model says that it cannot load it, callers
are told at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.asking import Patience
from dumbwaiter.blobs.presence import WorkerStatus, short_reason, why_failing, why_silent, workers_of
from dumbwaiter.errors import BlobError, BrokerError
from dumbwaiter.gateway.http.problems import ModelFailingError, NoAnswerError, Problem, ProblemError, one_line
from dumbwaiter.message import SYSTEM_QUEUES, is_model_name, is_queue_name
from dumbwaiter.policies.backpressure import Load, inputs_a_second, seconds_until_it_fits
from dumbwaiter.queue_names import queue_names
from dumbwaiter.spelling import did_you_mean
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.errors import PredictionTimeoutError

LOOK_EVERY = 1.0
"""Seconds between two looks at the workers of a model that is in use."""
IN_USE_FOR = 10.0
"""A model counts as in use for this many seconds after a request, and while requests wait for it."""
LOAD_IS_OLD_AFTER = 5.0
"""A look at a queue that is older than so many seconds says nothing any more."""
MOST_NAMES, LONGEST_NAME = 100, 100

_log = logging.getLogger("dumbwaiter.gateway")


class _Load(msgspec.Struct, kw_only=True, gc=False):
    """What was *seen* at *at* (time.monotonic), and how many requests were let in since."""

    seen: Load
    at: float
    sent_since: int


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
        self._gone: set[str] = set()
        self._lookup: asyncio.Task[list[str]] | None = None
        self._used_at: dict[str, float] = {}
        self._seen: dict[str, list[WorkerStatus]] = {}
        self._failing: dict[str, str] = {}
        self._loads: dict[str, _Load] = {}
        self._look_now = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._store_is_down = False

    async def close(self) -> None:
        """Stop looking."""
        await end([self._watcher])
        self._watcher = None

    async def models(self) -> list[str]:
        """Their names, sorted."""
        # A flood of unknown names shares one look at the broker at a time.
        if self._lookup is None or self._lookup.done():
            self._lookup = asyncio.get_running_loop().create_task(queue_names(self._broker, self._store))
        queues = await asyncio.shield(self._lookup)
        return [queue for queue in queues if not queue.startswith(SYSTEM_QUEUES)]

    async def _exists(self, model: str) -> bool:
        """Whether *model* has a queue where the broker lists none, and where a model without a card has one too."""
        if self._broker.capabilities.lists_queues or not (is_queue_name(model) and is_model_name(model)):
            return False
        return await self._broker.has_queue(model)

    async def require(self, model: str) -> None:
        """Raises ProblemError for a model that has no queue: 404, with the names of those that exist; or 503, when its
        queue was lost and workers of it are alive, for they make it again.
        """
        if model not in self._known:
            known = frozenset(await self.models())
            self._known = known if model in known or not await self._exists(model) else known | {model}
            if model not in self._known:
                if model in self._gone and await workers_of(self._store, model):
                    raise ProblemError(_gone(model))
                raise ProblemError(_unknown(model, sorted(self._known)))

    async def missed(self, model: str) -> None:
        """The broker says that *model* has no queue any more. Raises as require() does, which looks anew."""
        if model in self._known:
            self._known -= {model}
            self._gone.add(model)
        await self.require(model)

    def failing_reason(self, model: str) -> str | None:
        """Why no worker can load *model*, as of the last look; None when one can, or none is known."""
        if model not in self._used_at:
            self._look_now.set()
        self._used_at[model] = time.monotonic()
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.get_running_loop().create_task(self._watch())
        return self._failing.get(model)

    def require_time(self, model: str, patience: float | None, *, deadline: float | None = None) -> None:
        """Raises ProblemError (503 ``overloaded``, with the seconds to wait) when the work ahead of a request for
        *model* takes longer than *patience* seconds, or what is left of them, or until *deadline* (seconds since the
        Unix epoch). None: it may take as long as it does.

        Where nobody can tell, because no worker is ready or none has measured yet, there is time. It does no I/O.
        """
        load = self._loads.get(model)
        if load is None or (patience is None and deadline is None):
            return
        elapsed = time.monotonic() - load.at
        if elapsed < LOAD_IS_OLD_AFTER:
            left = _time_left(patience, deadline)
            wait = seconds_until_it_fits(load.seen, patience=left, sent_since=load.sent_since, elapsed=elapsed)
            if wait is not None:
                raise ProblemError(_overloaded(model, wait, left))

    def admit(self, model: str, patience: float | None, *, deadline: float | None = None) -> None:
        """Let a request for *model* in, just before it is sent. Raises as check() does."""
        self.check(model, patience, deadline=deadline)
        self.count(model)

    def check(self, model: str, patience: float | None, *, deadline: float | None = None) -> None:
        """Raises ModelFailingError when no worker can load *model*, and as require_time() does."""
        reason = self.failing_reason(model)
        if reason is not None:
            raise ModelFailingError(model, reason)
        self.require_time(model, patience, deadline=deadline)

    def count(self, model: str) -> None:
        """A request for *model* is sent: it is work ahead of the next ones."""
        load = self._loads.get(model)
        if load is not None:
            load.sent_since += 1

    def explained(self, model: str, error: PredictionTimeoutError) -> PredictionTimeoutError:
        """*error* with why *model* may not have answered, as of the last look at its workers; as it is without one."""
        workers = self._seen.get(model)
        return error if workers is None else NoAnswerError(error, why_silent(workers))

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
            self._failing = {model: reason for model, reason in self._failing.items() if model in models}
            self._loads = {model: load for model, load in self._loads.items() if model in models}
            await asyncio.gather(*(self._look_at(model) for model in models))
            await asyncio.gather(*(self._weigh(model) for model in models))
            try:
                async with asyncio.timeout(LOOK_EVERY if models else None):
                    await self._look_now.wait()
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
        if reason is None:
            self._failing.pop(model, None)
        else:
            self._failing[model] = reason
            self._on_failing(model, reason)

    async def _weigh(self, model: str) -> None:
        """See how much work is ahead of the next request for *model*."""
        seconds_each = [status.seconds_each for status in self._seen.get(model, ()) if status.state == "ready"]
        if inputs_a_second(seconds_each) is None or not self._broker.capabilities.counts_ready:
            self._loads.pop(model, None)
            return
        before = self._loads.get(model)
        sent_before = 0 if before is None else before.sent_since
        try:
            stats = await self._broker.stats(model)
        except BrokerError:
            return  # whoever sends will be told; what was last seen grows too old by itself
        if stats.ready is None:
            return
        # What was sent while the broker counted may be in its count or not. It is added, so as not to be overlooked.
        sent_since = 0 if before is None else before.sent_since - sent_before
        seen = Load(ahead=stats.ready + (stats.locked or 0), seconds_each=seconds_each)
        self._loads[model] = _Load(seen=seen, at=time.monotonic(), sent_since=sent_since)


def in_use(used_at: dict[str, float], waiting: set[str], *, now: float) -> set[str]:
    """The models worth a look: asked for within IN_USE_FOR seconds, or with requests waiting."""
    return {model for model, at in used_at.items() if now - at < IN_USE_FOR} | waiting


def _outside_view(status: WorkerStatus) -> dict[str, Any]:
    view: dict[str, Any] = msgspec.to_builtins(status)
    return {**view, "reason": short_reason(status.reason)}


def _time_left(patience: float | None, deadline: float | None) -> float:
    left = patience.left if isinstance(patience, Patience) else math.inf if patience is None else patience
    return left if deadline is None else min(left, max(deadline - time.time(), 0.0))


def _overloaded(model: str, wait: float, patience: float) -> Problem:
    seconds = max(math.ceil(wait), 1)
    detail = (
        f"model {one_line(model)!r} has more work than it can do within {patience:.3g} s; "
        f"ask again in {seconds} s, or wait longer (Prefer: wait=n, or Prefer: respond-async)"
    )
    return Problem(status=503, code="overloaded", detail=detail, retry_after=seconds)


def _gone(model: str) -> Problem:
    detail = f"the queue of model {one_line(model)!r} is gone, and its workers make it again: ask again in a moment"
    return Problem(status=503, code="broker-unavailable", detail=detail, retry_after=1)


def _unknown(model: str, known: list[str]) -> Problem:
    if known:
        shown = ", ".join(known[:MOST_NAMES]) + (", ..." if len(known) > MOST_NAMES else "")
        detail = f"no model named {one_line(model)!r}; known: {shown}{did_you_mean(model[:LONGEST_NAME], known)}"
    else:
        detail = f"no model named {one_line(model)!r}, and none at all yet: start a worker"
    return Problem(status=404, code="unknown-model", detail=detail, members={"models": known[:MOST_NAMES]})
