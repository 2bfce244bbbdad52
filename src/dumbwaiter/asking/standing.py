"""Where a kept request without a result stands: it has begun to run, or so many are served before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dumbwaiter.blobs.events import last_start
from dumbwaiter.errors import BrokerError

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker


class Standing(NamedTuple):
    """*started*: a worker has begun to run it, and it stays so when that worker dies and the request waits again.
    Otherwise *position* counts those that are served before it; None when nobody can tell.
    """

    started: bool
    position: int | None = None


async def standing_of(broker: Broker, store: BlobStore | None, id_: str, model: str | None) -> Standing:
    """Where the request *id_* to *model* (None: it is not known to which) stands. Without a *store*, what a broker that
    knows places has not waiting counts as begun.

    Raises BlobError; BrokerError only without a store, for then nothing is known at all.
    """
    if store is not None and await last_start(store, id_) is not None:
        return Standing(started=True)
    if model is None or not broker.capabilities.queue_position:
        return Standing(started=False)
    try:
        position = await broker.position(model, id_)
    except BrokerError:
        if store is None:
            raise
        return Standing(started=False)
    return Standing(started=store is None and position is None, position=position)
