"""The entities that make up our queues: made, found, listed and counted, by the management endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import math
from typing import Any

from azure.core.exceptions import ResourceExistsError
from azure.servicebus.aio.management import ServiceBusAdministrationClient
from azure.servicebus.management import QueueProperties, QueueRuntimeProperties

from dumbwaiter.brokers.servicebus.api import Api
from dumbwaiter.brokers.servicebus.entities import Entities
from dumbwaiter.brokers.servicebus.errors import NoEntityError, RightMissingError
from dumbwaiter.brokers.servicebus.names import is_queue, name_of, queue_of
from dumbwaiter.errors import QueueNotFoundError
from dumbwaiter.message import QueueStats
from dumbwaiter.policies.lanes import LANES, NORMAL

SHORTEST_LOCK, LONGEST_LOCK = 5, 300
"""Seconds that LockDuration may be."""
MAX_DELIVERY_COUNT = 2000
"""As many as Service Bus takes: who gives up on a message is the worker, who knows why it failed."""


class Queues:
    """What is known of the queues in *api*; new ones lock for *lock_duration* seconds, as far as that is possible."""

    def __init__(self, api: Api, entities: Entities, *, lock_duration: float) -> None:
        self._api, self._entities = api, entities
        self._prefix = api.location.prefix
        self._lock = dt.timedelta(seconds=min(max(math.ceil(lock_duration), SHORTEST_LOCK), LONGEST_LOCK))

    async def create(self, queue: str) -> None:
        """Make what is missing, the usual lane last: where it is, all of them are. Who may not make queues is content
        with those that are there.
        """
        try:
            await asyncio.gather(*(self._create(queue, lane) for lane in range(LANES) if lane != NORMAL))
            await self._create(queue, NORMAL)
        except RightMissingError:
            if not await self._can_be_reached(queue):
                raise

    async def _create(self, queue: str, lane: int) -> None:
        async def ask(client: ServiceBusAdministrationClient) -> None:
            # One that is there keeps the settings that somebody gave it.
            with contextlib.suppress(ResourceExistsError):
                await client.create_queue(
                    name_of(self._prefix, queue, lane),
                    lock_duration=self._lock,
                    max_delivery_count=MAX_DELIVERY_COUNT,
                    dead_lettering_on_message_expiration=True,
                    user_metadata=queue,
                )

        await self._api.manage("making a queue", ask)

    async def has(self, queue: str) -> bool:
        """Whether *queue* was created."""
        try:
            await self.properties(name_of(self._prefix, queue, NORMAL))
        except NoEntityError:
            return False
        except RightMissingError:
            return await self._can_be_reached(queue)
        return True

    async def _can_be_reached(self, queue: str) -> bool:
        """Whether *queue* is there, asked of it itself, by who may not manage."""
        try:
            await self._entities.outlet(name_of(self._prefix, queue, NORMAL)).reach()
        except NoEntityError:
            return False
        return True

    async def names(self) -> list[str]:
        """All queues that lie under the prefix, sorted."""
        found = [
            one.user_metadata or queue_of(self._prefix, one.name)
            for one in await self.all()
            if is_queue(self._prefix, one.name)
        ]
        return sorted({name for name in found if name})

    async def all(self) -> list[QueueProperties]:
        """All entities of the namespace that are queues."""

        async def ask(client: ServiceBusAdministrationClient) -> list[QueueProperties]:
            return [one async for one in client.list_queues()]

        return await self._api.manage("listing queues", ask, within=30.0)

    async def properties(self, name: str) -> QueueProperties:
        """How the entity *name* is set. Raises NoEntityError."""
        return await self._api.manage("reading a queue", lambda client: client.get_queue(name))

    async def stats(self, queue: str) -> QueueStats:
        """The counts that Service Bus gives, which tell no locked messages from those that are ready."""

        async def ask(lane: int) -> QueueRuntimeProperties:
            name = name_of(self._prefix, queue, lane)
            return await self._api.manage("counting", lambda client: client.get_queue_runtime_properties(name))

        try:
            lanes: list[Any] = await asyncio.gather(*map(ask, range(LANES)))
        except NoEntityError:
            raise QueueNotFoundError(queue) from None
        return QueueStats(
            ready=sum(one.active_message_count for one in lanes),
            locked=None,
            delayed=sum(one.scheduled_message_count for one in lanes),
            dead=sum(one.dead_letter_message_count for one in lanes),
            oldest_age=None,
        )
