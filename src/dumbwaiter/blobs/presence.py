"""Who serves which model: each worker announces itself in the blob store, and gateways read it.

A worker that dies without a word is forgotten after STALE_AFTER seconds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec

from dumbwaiter.errors import BlobNotFoundError

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore

ANNOUNCE_EVERY = 5.0
STALE_AFTER = 20.0


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


async def workers_of(store: BlobStore, model: str) -> list[WorkerStatus]:
    """The workers of *model* heard of within STALE_AFTER seconds."""
    found = []
    for key in await store.list(f"workers/{quote(model, safe='')}/"):
        try:
            status = msgspec.json.decode(await store.get(key), type=WorkerStatus)
        except (BlobNotFoundError, msgspec.DecodeError):
            continue  # it left, or is writing, just now
        if time.time() - status.announced_at < STALE_AFTER:
            found.append(status)
    return found


def _key(model: str, worker: str) -> str:
    return f"workers/{quote(model, safe='')}/{quote(worker, safe='')}.json"
