"""Waiting for a kept result: a look at the store now, and then ever less often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dumbwaiter.asking.patience import Patience
from dumbwaiter.asking.polling import Polling, until_found
from dumbwaiter.blobs.results import load_result
from dumbwaiter.errors import BlobNotFoundError, PredictionTimeoutError
from dumbwaiter.policies.polling import QUICK

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.message import Message


async def await_result(store: BlobStore, id_: str, timeout: float | None) -> Message:
    """The stored answer to the request *id_*, body included, within *timeout* seconds (None: however long it takes).

    Without any patience (0) it looks once. Reading counts as waiting. Raises PredictionTimeoutError, and BlobError
    when the store fails.
    """
    patience = None if timeout is None else Patience(timeout)
    try:
        async with asyncio.timeout(patience.left if patience else None):
            return await until_found(lambda: _find(store, id_), Polling(QUICK, patience=patience))
    except TimeoutError:
        raise PredictionTimeoutError(
            f"no result of {id_!r} within {patience or 0.0:g} s; it may still be waiting or running"
        ) from None


async def _find(store: BlobStore, id_: str) -> Message | None:
    try:
        return await load_result(store, id_)
    except BlobNotFoundError:
        return None
