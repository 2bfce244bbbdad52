"""Opening what the settings name, for commands that come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import Settings
from dumbwaiter.errors import ConfigError, QueueNotFoundError
from dumbwaiter.message import SYSTEM_QUEUES
from dumbwaiter.spelling import did_you_mean

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore
    from dumbwaiter.brokers.contract import Broker


@asynccontextmanager
async def connected_broker(settings: Settings) -> AsyncIterator[Broker]:
    """The broker, open. An unknown queue raises with the names of those that exist."""
    async with open_broker(settings.broker, lock_duration=settings.lock_duration) as broker:
        if not broker.capabilities.multi_process:
            where = "lives within one `dumbwaiter serve`; no other process can look into it"
            raise ConfigError(f"{settings.broker} {where}")
        try:
            yield broker
        except QueueNotFoundError as error:
            raise await _with_known(broker, error, settings.broker) from None


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[tuple[Broker, BlobStore]]:
    """Broker and blob store, open."""
    async with connected_broker(settings) as broker:
        yield broker, open_store(settings.blobs)


async def _with_known(broker: Broker, error: QueueNotFoundError, url: str) -> click.ClickException:
    # The system's own queues are no models, and no help unless one of them was meant.
    is_own = error.queue.startswith(SYSTEM_QUEUES)
    known = [queue for queue in await broker.queues() if is_own or not queue.startswith(SYSTEM_QUEUES)]
    if known:
        hint = f"there are: {', '.join(known)}{did_you_mean(error.queue, known)}"
    else:
        hint = f"there are none yet on {url}; go to the project's folder, name its --broker, or start a worker first"
    return click.ClickException(f"no queue named {error.queue!r}; {hint}")
