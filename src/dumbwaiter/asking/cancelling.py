"""Cancelling a request: the first result stands, so to cancel one is to write its failure before it has another."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from dumbwaiter.answers import failed
from dumbwaiter.blobs.events import last_start
from dumbwaiter.blobs.results import head_of_result, save_result
from dumbwaiter.errors import BlobNotFoundError
from dumbwaiter.message import Failure, Message, Timings
from dumbwaiter.prediction import CANCELED
from dumbwaiter.signing import created_at

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore

_INLINE_NBYTES = 64 * 1024
"""No failure of ours is longer, so that it is one object in the store."""


async def cancel(store: BlobStore, id_: str, *, model: str | None = None, tenant: str | None = None) -> Message:
    """Cancel the request *id_*, and return the answer that stands: the failure ``canceled``, or whatever was first.

    A worker that finds the failure runs nothing, and what runs is stopped. A long output may still lie in the store, as
    with blobs.results.head_of_result(). Raises BlobError.
    """
    with contextlib.suppress(BlobNotFoundError):
        return await head_of_result(store, id_)
    request = Message(id=id_, subject=model, tenant=tenant)
    failure = Failure(code=CANCELED, message="the request was cancelled by its caller")
    answer = failed(request, failure, timings=await _timings(store, id_))
    await save_result(store, id_, answer, threshold=_INLINE_NBYTES)
    # Read back, so that whoever cancels sees what all others see: the wire rounds times.
    return await head_of_result(store, id_)


async def _timings(store: BlobStore, id_: str) -> Timings:
    """Where the time of what is cancelled now has gone; nothing where it has not begun, or nobody wrote when."""
    began = await last_start(store, id_)
    if began is None:
        return Timings()
    made = created_at(id_)
    return Timings(queued=0.0 if made is None else max(0.0, began - made), device=max(0.0, time.time() - began))
