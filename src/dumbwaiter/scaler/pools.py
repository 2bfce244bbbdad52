"""The pools that are asked for: each is looked at by one watcher, which remembers what its decisions need."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dumbwaiter.demand import PoolView, PoolWatcher
from dumbwaiter.message import SYSTEM_QUEUES
from dumbwaiter.queue_names import queue_names
from dumbwaiter.scaler.asking import Asked, NoSuchModelError, asked
from dumbwaiter.scaler.following import Activity
from dumbwaiter.scaler.looks import SharedLooks

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import Settings

MOST_POOLS = 512
"""Of those that nobody follows, the ones asked for longest ago are forgotten: who asks for nonsense fills no memory."""
SHARED_FOR = 1.0
"""Seconds for which a look serves all who ask."""


class Pool:
    """One model with its settings of scaling."""

    def __init__(self, asked: Asked, looks: SharedLooks, settings: Settings) -> None:
        self.model = asked.model
        self._asked = asked
        self._looks = looks
        self._models = settings.models
        self.activity = Activity(
            looks, self._checked, look_every=asked.scaling.look_every, glance_every=settings.scaler.glance_every
        )

    async def view(self) -> PoolView:
        """How things stand, at most SHARED_FOR seconds ago, and not before a follower was told of a message.

        Raises BrokerError, BlobError, SignalUnknownError, TooSlowError, NoSuchModelError.
        """
        since = max(time.monotonic() - SHARED_FOR, self.activity.arrived_at)
        return self._checked(await self._looks.view(since=since))

    def _checked(self, view: PoolView) -> PoolView:
        # A configured model without a queue is one whose first worker is still to come.
        if not view.has_queue and not self._asked.is_configured:
            raise NoSuchModelError(self._asked.model, self._models)
        return view

    async def close(self) -> None:
        """End what runs for it."""
        await self.activity.close()
        await self._looks.close()


class Pools:
    """Pools of an open *broker* and *store*. Several askers with the same wish share one."""

    def __init__(self, broker: Broker, store: BlobStore, settings: Settings) -> None:
        self._broker = broker
        self._store = store
        self._settings = settings
        self._pools: OrderedDict[Asked, Pool] = OrderedDict()
        self.closing = asyncio.Event()

    def of(self, metadata: Mapping[str, str], *, where: str = "scalerMetadata") -> Pool:
        """The pool that *metadata* ask for. Raises ConfigError, naming what to write *where*."""
        wish = asked(metadata, self._settings, where=where)
        pool = self._pools.get(wish)
        if pool is None:
            watcher = PoolWatcher(self._broker, self._store, wish.model, wish.scaling, boot=wish.boot)
            pool = self._pools[wish] = Pool(wish, SharedLooks(watcher), self._settings)
        self._pools.move_to_end(wish)
        self._forget_some()
        return pool

    async def models(self) -> list[str]:
        """The models that are configured or have a queue, sorted. Raises BrokerError, BlobError."""
        queues = {name for name in await queue_names(self._broker, self._store) if not name.startswith(SYSTEM_QUEUES)}
        return sorted(queues | {*self._settings.models})

    async def close(self) -> None:
        """End what runs for any of them. Who follows one, or waits for *closing*, is told."""
        self.closing.set()
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    def _forget_some(self) -> None:
        surplus = len(self._pools) - MOST_POOLS
        if surplus > 0:
            idle = [wish for wish, pool in self._pools.items() if not pool.activity.followers]
            for wish in idle[: min(surplus, len(idle) - 1)]:  # never the one that was just asked for
                del self._pools[wish]
