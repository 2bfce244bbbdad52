"""Where a kept prediction without a result stands: it runs, or so many are served before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dumbwaiter.blobs.events import follow
from dumbwaiter.errors import BrokerError

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.gateway.predictions.lookup import Known


class Standing:
    """Asks *store* which predictions have begun, and *broker* for the places of the others."""

    def __init__(self, store: BlobStore, broker: Broker) -> None:
        self._store = store
        self._broker = broker

    async def of(self, known: Known) -> tuple[bool, int | None]:
        """Whether a worker has begun to run *known*, and if not how many are served before it (None: nobody can tell).

        Raises BlobError.
        """
        started = await self._has_started(known.id)
        return started, None if started else await self._position(known)

    async def _has_started(self, id_: str) -> bool:
        async for _ in follow(self._store, id_):
            return True
        return False

    async def _position(self, known: Known) -> int | None:
        if not self._broker.capabilities.queue_position:
            return None
        try:
            return await self._broker.position(known.model, known.id)
        except BrokerError:
            # Whether there is a result is known all the same; its place in the queue is left out.
            return None
