"""Cancelling a request: the first result stands, so to cancel one is to write its failure before it has another."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dumbwaiter.answers import failed
from dumbwaiter.blobs.results import head_of_result, save_result
from dumbwaiter.errors import BlobNotFoundError
from dumbwaiter.message import Failure, Message
from dumbwaiter.prediction import CANCELED

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
    await save_result(store, id_, failed(request, failure), threshold=_INLINE_NBYTES)
    # Read back, so that whoever cancels sees what all others see: the wire rounds times.
    return await head_of_result(store, id_)
