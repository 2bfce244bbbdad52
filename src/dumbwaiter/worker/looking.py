"""Looks whether a request has been answered already: cancelled by its caller, or answered by another worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from dumbwaiter.blobs.results import has_result, head_of_result, load_result
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.errors import BlobError, BlobNotFoundError
from dumbwaiter.message import PREDICTION_FAILED, is_url
from dumbwaiter.worker.hand import Held

_AT_ONCE = 16


class ResultFinder:
    """Finds the stored results of kept messages in hand, several at once."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def find_all(self, held: Sequence[Held]) -> list[BlobError | None]:
        """Set *stored* of those that have been answered. In the same order: why it could not be told, or None."""
        return await asyncio.gather(*(self._find(one) for one in held))

    async def _find(self, held: Held) -> BlobError | None:
        async with self._at_once:
            try:
                await self._load(held)
            except BlobNotFoundError:
                return None  # a person has taken it away just now, to have the request run again
            except BlobError as error:
                return error
        return None

    async def _load(self, held: Held) -> None:
        id_, address = held.request.id, held.request.reply_to
        if not await has_result(self._store, id_):
            return
        answer = await head_of_result(self._store, id_)
        # Only who waits at an inbox is told the body here; a failure is read by us too.
        if (address is not None and not is_url(address)) or answer.type == PREDICTION_FAILED:
            answer = await load_result(self._store, id_)
        held.stored, held.stored_at = answer, time.monotonic()
