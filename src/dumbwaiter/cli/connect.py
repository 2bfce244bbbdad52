"""Opening what the settings name, for commands that come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import why_failing, why_silent, workers_of
from dumbwaiter.brokers import open_broker, shown
from dumbwaiter.config import Settings
from dumbwaiter.errors import BlobError, ConfigError, QueueNotFoundError
from dumbwaiter.message import SYSTEM_QUEUES
from dumbwaiter.queue_names import queue_names
from dumbwaiter.spelling import did_you_mean

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore
    from dumbwaiter.brokers.contract import Broker

_GO_THERE = "go to the project's folder, name its --broker, or start a worker first"


@asynccontextmanager
async def connected_broker(settings: Settings) -> AsyncIterator[Broker]:
    """The broker, open. Where there is none yet, none is made: these commands have nothing to do there.

    An unknown queue raises with why its workers cannot load the model, or with the names of those that exist.
    """
    unopened = open_broker(settings.broker, lock_duration=settings.lock_duration)
    if not unopened.capabilities.multi_process:
        where = "lives within one `dumbwaiter serve`; no other process can look into it"
        raise ConfigError(f"{shown(settings.broker)} {where}")
    if unopened.examine_unopened() is not None:
        raise click.ClickException(f"there are no queues here: no {shown(settings.broker)}; {_GO_THERE}")
    async with unopened as broker:
        try:
            yield broker
        except QueueNotFoundError as error:
            told = await _told_by_workers(settings, error.queue)
            raise told or await _with_known(broker, error, settings) from None


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[tuple[Broker, BlobStore]]:
    """Broker and blob store, open."""
    async with connected_broker(settings) as broker:
        yield broker, open_store(settings.blobs)


def lists_too_little(broker: Broker, known: Sequence[str]) -> bool:
    """Whether *known*, of queue_names(), says nothing of the models' queues, as *broker* cannot list them."""
    return not broker.capabilities.lists_queues and all(name.startswith(SYSTEM_QUEUES) for name in known)


def name_them(settings: Settings, command: str) -> str:
    """What to do where lists_too_little()."""
    where = f"no model has a card in {shown(settings.blobs)}"
    return f"{shown(settings.broker)} cannot list its queues, and {where}; name them: dumbwaiter {command} NAME"


async def _told_by_workers(settings: Settings, model: str) -> click.ClickException | None:
    """What the workers of *model* say, of which no class was found so far; None where there are none."""
    try:
        workers = await workers_of(open_store(settings.blobs), model)
    except BlobError:
        return None
    if not workers:
        return None
    reason = why_failing(workers)
    if reason is not None:
        return click.ClickException(f"model {model!r} cannot be loaded: {reason}")
    return click.ClickException(f"model {model!r} has no queue yet: {why_silent(workers)}; try again soon")


async def _with_known(broker: Broker, error: QueueNotFoundError, settings: Settings) -> click.ClickException:
    # The system's own queues are no models, and no help unless one of them was meant.
    is_own = error.queue.startswith(SYSTEM_QUEUES)
    known = [
        queue
        for queue in await queue_names(broker, open_store(settings.blobs))
        if is_own or not queue.startswith(SYSTEM_QUEUES)
    ]
    if lists_too_little(broker, known):
        hint = "which others there are this broker cannot list; look at the name, the --broker and its ?prefix="
    elif known:
        hint = f"there are: {', '.join(known)}{did_you_mean(error.queue, known)}"
    else:
        # Only a file is found by the folder in which one stands.
        is_file = settings.broker.startswith("sqlite:")
        where = _GO_THERE if is_file else "look at the --broker and its ?prefix=, or start a worker first"
        hint = f"there are none yet on {shown(settings.broker)}; {where}"
    return click.ClickException(f"no queue named {error.queue!r}; {hint}")
