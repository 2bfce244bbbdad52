"""While ``dumbwaiter submit`` waits: what the model's workers say of themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from dumbwaiter.blobs.presence import why_failing, why_silent, workers_of
from dumbwaiter.errors import BlobError, PredictionTimeoutError

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore

LOOK_EVERY = 1.0


@contextlib.asynccontextmanager
async def unless_failing(store: BlobStore, model: str) -> AsyncIterator[None]:
    """Ends its block with click.ClickException as soon as every worker of *model* says that it cannot load it."""
    reason = await _reason(store, model)
    if reason is None:
        limit = asyncio.timeout(None)
        watching = asyncio.create_task(_until_failing(store, model, limit))
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            reason = watching.result()
        finally:
            watching.cancel()
    if reason is not None:
        raise click.ClickException(f"model {model!r} cannot be loaded: {reason or 'its workers do not say why'}")


async def with_reason(store: BlobStore, model: str, error: PredictionTimeoutError) -> PredictionTimeoutError:
    """*error* and why there may have been no answer, as far as the workers tell."""
    try:
        return PredictionTimeoutError(f"{error}; {why_silent(await workers_of(store, model))}")
    except BlobError:
        return error


async def _until_failing(store: BlobStore, model: str, limit: asyncio.Timeout) -> str:
    while True:
        await asyncio.sleep(LOOK_EVERY)
        reason = await _reason(store, model)
        if reason is not None:
            limit.reschedule(asyncio.get_running_loop().time())
            return reason


async def _reason(store: BlobStore, model: str) -> str | None:
    try:
        return why_failing(await workers_of(store, model))
    except BlobError:
        return None  # nobody can be asked; the request may be answered all the same
