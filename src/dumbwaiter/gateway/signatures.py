"""What each model takes and gives: read from its card, or else from its workers, and remembered for a while."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dumbwaiter.blobs.cards import load_card
from dumbwaiter.blobs.presence import why_silent, workers_of
from dumbwaiter.errors import BlobDamagedError, BlobError, BlobNotFoundError
from dumbwaiter.gateway.http.problem_codes import RETRY_LATER
from dumbwaiter.gateway.http.problems import problem

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore

READ_AGAIN_AFTER = 2.0
"""Seconds for which a signature is taken as it was read."""
MOST_REMEMBERED = 1000


class Signatures:
    """Signatures by model, over *store*."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._remembered: dict[str, tuple[float, Mapping[str, Any]]] = {}

    async def signature_of(self, model: str) -> Mapping[str, Any]:
        """The signature of *model*, as models.contract.LoadedModel.describe() returns it.

        Raises ProblemError (503) when no worker of it has ever said what it takes, BlobError when nobody can tell.
        """
        read_at, signature = self._remembered.get(model, (float("-inf"), {}))
        if signature and time.monotonic() - read_at < READ_AGAIN_AFTER:
            return signature
        try:
            found = await self._read(model)
        except BlobError:
            if signature:  # what was last known is most likely true
                return signature
            raise
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[model] = (time.monotonic(), found)
        return found

    async def _read(self, model: str) -> Mapping[str, Any]:
        try:
            card = await load_card(self._store, model)
        except (BlobNotFoundError, BlobDamagedError):
            pass  # the workers say it too, and the next one to start writes the card anew
        else:
            if card.signature:
                return card.signature
        workers = await workers_of(self._store, model)
        said = [worker for worker in workers if worker.signature]
        if not said:
            detail = f"what model {model!r} takes is not known yet: {why_silent(workers)}"
            raise problem(503, "unknown-signature", detail, retry_after=RETRY_LATER)
        return max(said, key=lambda worker: worker.announced_at).signature
