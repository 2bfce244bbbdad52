"""Removing what nobody will fetch any more: results and all that belongs to them, unclaimed bodies, leftovers.

Everything is found by listing, a request for a thousand objects where the store is a service, and judged by the time
at which it was written. The order is such that a fault or a limit in the middle leaves nothing that looks whole and is
not: an acceptance goes before the result that its duplicates would be answered with, and a result before its body.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore

MOST = 10_000
"""So many objects are removed by one call, unless told otherwise."""
GRACE = 3600.0
"""What belongs to a result is written before it, and stays for so many seconds longer."""

UPLOADS_KEPT_FOR = 7200.0
"""Seconds after which an upload goes: longer than it can be begun, and then named by a prediction."""

_FOLDERS = (("acceptances/", 0.0), ("results/", 0.0), ("result-bodies/", GRACE), ("events/", GRACE))
_AT_ONCE = 16


async def sweep(store: BlobStore, *, older_than: float, claims_older_than: float, now: float, limit: int = MOST) -> int:
    """Remove what was written more than *older_than* seconds before *now* (seconds since the Unix epoch). How many.

    At most *limit* objects, so that a call ends in bounded time; a return of *limit* means that there may be more. Any
    number of processes may sweep at once. Raises BlobError when the store fails; the next call goes on from there.

    Uploads go when they are UPLOADS_KEPT_FOR seconds old, and claimed bodies when they are *claims_older_than* seconds
    old. Choose that longer than any request waits: one that has waited for longer, and a dead letter that is older, has
    lost its body.
    """
    count = 0
    ages = [*((folder, older_than + grace) for folder, grace in _FOLDERS), ("claims/", claims_older_than)]
    ages.append(("uploads/", UPLOADS_KEPT_FOR))
    for folder, age in ages:
        count += await _sweep(store, folder, before=now - age, limit=limit - count)
        if count >= limit:
            return count
    return count + await store.remove_leftovers(before=now - older_than)


async def _sweep(store: BlobStore, folder: str, *, before: float, limit: int) -> int:
    count = 0
    async for page in store.scan(folder):
        old = [entry.key for entry in page if entry.modified_at < before][: limit - count]
        for start in range(0, len(old), _AT_ONCE):
            await asyncio.gather(*(store.delete(key) for key in old[start : start + _AT_ONCE]))
        count += len(old)
        if count >= limit:
            break
    return count
