"""Whether a kept prediction is too old for anybody to know what became of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dumbwaiter.blobs.events import last_start
from dumbwaiter.gateway.http.problems import problem

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.gateway.predictions.lookup import Known
    from dumbwaiter.gateway.predictions.outputs import Kept


class Expiry:
    """Results in *store* are kept for *kept_for* seconds; 0.0: for ever."""

    def __init__(self, store: BlobStore, kept_for: float) -> None:
        self._store = store
        self._kept_for = kept_for

    async def is_over(self, id_: str, kept: Kept) -> bool:
        """Whether the result of *id_* may have been swept away.

        What was begun late enough cannot have had one: it runs still. What has not begun by then never will: its
        deadline is over. Raises BlobError.
        """
        oldest = time.time() - self._kept_for
        if not self._kept_for or kept.created_at >= oldest:
            return False
        began = await last_start(self._store, id_)
        return began is None or began < oldest

    async def refuse(self, known: Known) -> None:
        """Raises ProblemError (410) for *known*, which has no result, when is_over(); BlobError as that does."""
        if await self.is_over(known.id, known.kept):
            detail = f"results are kept for {self._kept_for:g} s, and this one is older; ask the model anew"
            raise problem(410, "prediction-expired", detail)
