"""Waiting for a kept result: a look at the store now, and then ever less often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dumbwaiter.asking.patience import Patience
from dumbwaiter.blobs.results import load_result
from dumbwaiter.errors import BlobNotFoundError, PredictionTimeoutError

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.message import Message

FIRST_POLL, LAST_POLL = 0.01, 1.0
"""Seconds between two looks for a stored result; each pause is half as long again as the one before."""


async def await_result(store: BlobStore, id_: str, timeout: float | None) -> Message:
    """The stored answer to the request *id_*, body included, within *timeout* seconds (None: however long it takes).

    Without any patience (0) it looks once. Reading counts as waiting. Raises PredictionTimeoutError, and BlobError
    when the store fails.
    """
    patience = None if timeout is None else Patience(timeout)
    try:
        async with asyncio.timeout(patience.left if patience else None):
            return await _look_until_found(store, id_, patience)
    except TimeoutError:
        raise PredictionTimeoutError(
            f"no result of {id_!r} within {patience or 0.0:g} s; it may still be waiting or running"
        ) from None


async def _look_until_found(store: BlobStore, id_: str, patience: Patience | None) -> Message:
    pause = FIRST_POLL
    while True:
        try:
            return await load_result(store, id_)
        except BlobNotFoundError:
            if patience is not None and patience <= 0.0:
                raise TimeoutError from None
        # Half of what is left, so that the last look comes just before the end.
        await asyncio.sleep(pause if patience is None else min(pause, max(FIRST_POLL, patience.left / 2)))
        pause = min(1.5 * pause, LAST_POLL)
