"""Removing what nobody can fetch any more, now and then, in the background of a gateway."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from dumbwaiter.blobs.retention import GRACE, MOST, sweep
from dumbwaiter.errors import BlobError

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore

SWEEP_EVERY = 600.0

_log = logging.getLogger("dumbwaiter.gateway")


async def sweep_for_ever(store: BlobStore, kept_for: float, *, longest_wait: float, every: float = SWEEP_EVERY) -> None:
    """Remove what is older than *kept_for* seconds, about *every* so many. A store that fails is tried again then.

    Claimed bodies stay for GRACE longer than anybody waits for an answer, *longest_wait* seconds or *kept_for*.
    """
    claims_for = max(kept_for, longest_wait) + GRACE
    while True:
        # Not at the same time as the other gateways, nor right after a start.
        await asyncio.sleep(every * random.uniform(0.5, 1.5))  # noqa: S311 - nothing secret about it
        try:
            while (count := await _sweep(store, kept_for, claims_for)) >= MOST:
                _log.info("removed %d objects that were too old", count)
        except BlobError as error:
            _log.warning("what is too old stays for now: %s", error)
            continue
        if count:
            _log.info("removed %d objects that were too old", count)


async def _sweep(store: BlobStore, kept_for: float, claims_for: float) -> int:
    return await sweep(store, older_than=kept_for, claims_older_than=claims_for, now=time.time())
