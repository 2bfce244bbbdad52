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
    while True:
        # Not at the same time as the other gateways, nor right after a start.
        await asyncio.sleep(every * random.uniform(0.5, 1.5))  # noqa: S311 - nothing secret about it
        try:
            await sweep_once(store, kept_for, longest_wait=longest_wait)
        except BlobError as error:
            _log.warning("what is too old stays for now: %s", error)


async def sweep_once(store: BlobStore, kept_for: float, *, longest_wait: float) -> int:
    """Remove all that is too old by now, as sweep_for_ever() does; returns how many objects. Raises BlobError."""
    removed = 0
    while True:
        claims_for = max(kept_for, longest_wait) + GRACE
        count = await sweep(store, older_than=kept_for, claims_older_than=claims_for, now=time.time())
        removed += count
        if count:
            _log.info("removed %d objects that were too old", count)
        if count < MOST:
            return removed
