"""Who serves which model: each worker announces itself in the blob store, and gateways read it.

A worker that dies without a word is forgotten after STALE_AFTER seconds.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from dumbwaiter.blobs.keys import safe_segment
from dumbwaiter.errors import BlobError, BlobNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dumbwaiter.blobs.store import BlobStore

ANNOUNCE_EVERY = 5.0
STALE_AFTER = 20.0
LONGEST_REASON = 400
FORGOTTEN_AFTER = 600.0
"""A worker that has been silent for so many seconds is dead, and what it said is deleted."""
_MOST_SETTLED = 1 << 53
_MOST_IN_HAND = 100_000
_LONGEST = 30 * 86_400.0
"""Seconds of work, or of loading, beyond which what a worker says is a damaged number, and so unknown."""
_READS_AT_ONCE = 32
"""On a bucket each takes a round trip."""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself. *announced_at* and *started_at* are in seconds since the Unix epoch; *seconds_each*
    is the measured device time of one input, its share of a batch, and 0.0 while that is unknown.

    *settled* and *work_seconds* only go on: messages that it has taken off the queue, and the device time of all inputs
    so far. *in_hand*: messages that it holds now. *load_seconds*: how long its model took to load, 0.0 until it has.
    """

    worker: str
    model: str
    state: Literal["loading", "ready", "failing", "draining"]
    reason: str = ""
    announced_at: float = 0.0
    seconds_each: float = 0.0
    started_at: float = 0.0
    settled: int = 0
    work_seconds: float = 0.0
    in_hand: int = 0
    load_seconds: float = 0.0
    signature: dict[str, Any] = msgspec.field(default_factory=dict)


async def announce(store: BlobStore, status: WorkerStatus) -> None:
    """Say (again) what this worker is doing; raises BlobError when the store cannot take it."""
    stamped = msgspec.structs.replace(status, announced_at=time.time())
    await store.put(_key(status.model, status.worker), msgspec.json.encode(stamped), durable=False)


async def withdraw(store: BlobStore, model: str, worker: str) -> None:
    """Say goodbye, so that nobody waits for STALE_AFTER."""
    await store.delete(_key(model, worker))


async def forget_the_dead(store: BlobStore, model: str) -> None:
    """Delete what workers of *model* said that were killed long ago, so that looking stays quick."""
    for key, status in await _said(store, model):
        if abs(time.time() - status.announced_at) > FORGOTTEN_AFTER:
            await store.delete(key)


async def workers_of(store: BlobStore, model: str) -> list[WorkerStatus]:
    """The workers of *model* heard of within STALE_AFTER seconds. What is dated further ahead than that is by a clock
    that is wrong, and may be of somebody long dead.
    """
    return [status for status in await said_of(store, model) if abs(time.time() - status.announced_at) < STALE_AFTER]


async def said_of(store: BlobStore, model: str) -> list[WorkerStatus]:
    """All that workers of *model* have said and nobody has deleted, however long ago."""
    return [status for _, status in await _said(store, model)]


def why_failing(workers: Sequence[WorkerStatus]) -> str | None:
    """What the latest worker says, on one line, when all of *workers* fail; None when one does not, or there is none.

    Pure; so is why_silent().
    """
    if not workers or any(status.state != "failing" for status in workers):
        return None
    return short_reason(max(workers, key=lambda status: status.announced_at).reason)


def why_silent(workers: Sequence[WorkerStatus]) -> str:
    """Why no answer may have come from *workers*, all those of a model: in words that go on a sentence."""
    states = [status.state for status in workers]
    if not states:
        return "no worker of this model is running"
    if "ready" in states:
        return f"{_of(states, 'ready')} ready, so the model is busy or slow"
    if "loading" in states:
        return f"{_of(states, 'loading')} still loading the model"
    if "draining" in states:
        return f"{_of(states, 'draining')} stopping"
    return f"no worker can load the model: {why_failing(workers)}"


def short_reason(reason: str) -> str:
    """*reason* on one line, without its traceback, shortened to LONGEST_REASON characters."""
    lines = reason.strip().splitlines()
    end = next((number for number, line in enumerate(lines) if "Traceback" in line), len(lines))
    text = " ".join(" ".join(lines[:end]).split())
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"


def _of(states: Sequence[str], state: str) -> str:
    count = states.count(state)
    if len(states) == 1:
        return "its worker is"
    return f"one of its {len(states)} workers is" if count == 1 else f"{count} of its {len(states)} workers are"


async def _said(store: BlobStore, model: str) -> list[tuple[str, WorkerStatus]]:
    keys = await store.list(f"workers/{safe_segment(model)}/")
    said: list[tuple[str, WorkerStatus | None]] = []
    for start in range(0, len(keys), _READS_AT_ONCE):
        some = keys[start : start + _READS_AT_ONCE]
        said += zip(some, await asyncio.gather(*(_status(store, key) for key in some)), strict=True)
    return [(key, status) for key, status in said if status is not None]


async def _status(store: BlobStore, key: str) -> WorkerStatus | None:
    try:
        said = await store.get(key)
    except BlobNotFoundError:  # it left just now
        return None
    except BlobError:
        # What somebody else put there may be closed to us. No worker is silent for so long, so it hides none.
        if await _is_old(store, key):
            return None
        raise
    try:
        return _sound(msgspec.json.decode(said, type=WorkerStatus))
    except (ValueError, RecursionError):  # also text that is not UTF-8
        return None


async def _is_old(store: BlobStore, key: str) -> bool:
    """Whether nobody has written there for STALE_AFTER seconds, by the store's own word: an outage is raised."""
    async for page in store.scan(key[: key.rindex("/") + 1]):
        if any(entry.key == key and time.time() - entry.modified_at > STALE_AFTER for entry in page):
            return True
    return False


def _sound(status: WorkerStatus) -> WorkerStatus:
    """*status* with 0 for what no worker can have counted or measured: that is unknown."""
    return msgspec.structs.replace(
        status,
        announced_at=status.announced_at if math.isfinite(status.announced_at) else 0.0,
        started_at=status.started_at if math.isfinite(status.started_at) else 0.0,
        seconds_each=_at_most(status.seconds_each, _LONGEST),
        work_seconds=_at_most(status.work_seconds, math.inf) if math.isfinite(status.work_seconds) else 0.0,
        load_seconds=_at_most(status.load_seconds, _LONGEST),
        settled=status.settled if 0 <= status.settled <= _MOST_SETTLED else 0,
        in_hand=status.in_hand if 0 <= status.in_hand <= _MOST_IN_HAND else 0,
    )


def _at_most(seconds: float, most: float) -> float:
    return seconds if 0.0 <= seconds <= most else 0.0


def _key(model: str, worker: str) -> str:
    return f"workers/{safe_segment(model)}/{safe_segment(worker)}.json"
