"""Who serves which model: each worker announces itself in the blob store, and gateways read it.

A worker that dies without a word is forgotten after STALE_AFTER seconds.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from dumbwaiter.blobs.keys import safe_segment
from dumbwaiter.errors import BlobNotFoundError

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore

ANNOUNCE_EVERY = 5.0
STALE_AFTER = 20.0
FORGOTTEN_AFTER = 600.0
"""A worker that has been silent for so many seconds is dead, and what it said is deleted."""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself. *announced_at* is in seconds since the Unix epoch."""

    worker: str
    model: str
    state: Literal["loading", "ready", "failing", "draining"]
    reason: str = ""
    announced_at: float = 0.0
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
        if time.time() - status.announced_at > FORGOTTEN_AFTER:
            await store.delete(key)


async def workers_of(store: BlobStore, model: str) -> list[WorkerStatus]:
    """The workers of *model* heard of within STALE_AFTER seconds."""
    return [status for _, status in await _said(store, model) if time.time() - status.announced_at < STALE_AFTER]


async def _said(store: BlobStore, model: str) -> list[tuple[str, WorkerStatus]]:
    said = []
    for key in await store.list(f"workers/{safe_segment(model)}/"):
        with contextlib.suppress(BlobNotFoundError, msgspec.DecodeError):  # it left, or is writing, just now
            said.append((key, msgspec.json.decode(await store.get(key), type=WorkerStatus)))
    return said


def _key(model: str, worker: str) -> str:
    return f"workers/{safe_segment(model)}/{safe_segment(worker)}.json"
