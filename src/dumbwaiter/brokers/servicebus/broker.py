"""Azure Service Bus queues: ``servicebus://NAMESPACE.servicebus.windows.net?option=value``; see location.py.

Each queue is three entities of Service Bus, one a lane of priority, each with its dead-letter queue; see names.py.
Whoever knows nothing of dumbwaiter sends a body to ``dumbwaiter_<queue>``. holding.py keeps locks, and reception.py
waits for messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from azure.servicebus import ServiceBusMessage

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Capabilities
from dumbwaiter.brokers.polled import PolledBroker
from dumbwaiter.brokers.servicebus.api import Api
from dumbwaiter.brokers.servicebus.dead import DeadLetters
from dumbwaiter.brokers.servicebus.entities import Entities
from dumbwaiter.brokers.servicebus.errors import NoEntityError, RightMissingError
from dumbwaiter.brokers.servicebus.examining import examine
from dumbwaiter.brokers.servicebus.holding import Holding
from dumbwaiter.brokers.servicebus.inbox import ServicebusInbox
from dumbwaiter.brokers.servicebus.location import location_of
from dumbwaiter.brokers.servicebus.names import all_of, is_inbox, name_of
from dumbwaiter.brokers.servicebus.queues import Queues
from dumbwaiter.brokers.servicebus.reception import Reception
from dumbwaiter.brokers.servicebus.wire import largest_body, message_nbytes, outgoing
from dumbwaiter.errors import QueueNotFoundError
from dumbwaiter.policies.lanes import lane_of

if TYPE_CHECKING:
    from dumbwaiter.brokers.findings import Finding
    from dumbwaiter.message import Message, QueueStats

_LET_GO_WITHIN = 10.0
"""Seconds that close() takes at most to detach all links."""


class ServicebusBroker(PolledBroker[Holding, DeadLetters]):
    """Queues in Azure Service Bus. See the module text for *url*, and docs/brokers/servicebus.md for what it can do."""

    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        ordered=False,
        priority=True,
        strict_priority=False,
        abandon_delay=True,
        send_delay=True,
        uncounted_abandon=True,
        deduplication=False,
        forgets_purged=True,
        portable_tokens=False,
        lists_queues=True,
        counts_ready=True,
        counts_locked=False,
        ready_includes_locked=True,
        counts_dead=True,
        knows_gone_inboxes=True,
        oldest_age=False,
        queue_position=False,
        max_message_nbytes=largest_body(),
        killed_holder="taken_back",
    )

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        self._location = location_of(url, os.environ)
        super().__init__(url, lock_duration=lock_duration)
        self.capabilities = msgspec.structs.replace(
            type(self).capabilities, max_message_nbytes=largest_body(self._location.max_message_size)
        )

    # --- open and close ---

    async def _build(self) -> None:
        self._api = Api(self._location)
        await self._api.open()
        self._entities = Entities(self._api)
        self._queues = Queues(self._api, self._entities, lock_duration=self.lock_duration)
        self._holding = Holding(
            self._entities,
            self._location.prefix,
            lock_duration=self.lock_duration,
            deliveries_of=self.deliveries_of,
        )
        self._dead = DeadLetters(self._api, self._entities)

    async def _try(self) -> None:
        """Ask for something that changes nothing, and that anybody with a valid key may ask for: it need not be there,
        and who may not manage is told so only after the key was looked at.
        """
        name = f"{all_of(self._location.prefix)}check"
        try:
            await self._queues.properties(name)
        except NoEntityError:
            pass
        except RightMissingError:
            # It may be the right to manage that is missing, or all of them. Only a link tells.
            outlet = self._entities.outlet(name)
            with contextlib.suppress(NoEntityError):
                await outlet.reach()

    async def _let_go(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LET_GO_WITHIN):
                await asyncio.gather(self._entities.close(), self._dead.close())
        await self._api.close()

    async def _examine(self, longest_run: float | None) -> list[Finding]:
        return await examine(self._api, self._queues, longest_run=longest_run)

    # --- queues ---

    async def _create_queue(self, queue: str) -> None:
        await self._queues.create(queue)

    async def _queue_names(self) -> list[str]:
        return await self._queues.names()

    async def _has_queue(self, queue: str) -> bool:
        return await self._queues.has(queue)

    def nbytes_of(self, message: Message) -> int:
        return message_nbytes(message)

    async def _send(self, queue: str, messages: Sequence[Message], delay: float) -> None:
        due = time.time() + delay if delay > 0 else None
        by_lane: dict[int, list[ServiceBusMessage]] = {}
        for message in messages:
            by_lane.setdefault(lane_of(message.priority), []).append(outgoing(message, due=due))
        names = {lane: name_of(self._location.prefix, queue, lane) for lane in by_lane}
        sends = (self._entities.send(queue, names[lane], some) for lane, some in by_lane.items())
        for error in await asyncio.gather(*sends, return_exceptions=True):
            if error is not None:
                raise error

    def _new_reception(self, queue: str) -> Reception:
        return Reception(
            self._entities,
            self._location.prefix,
            queue,
            accept=self._holding.accept,
            give_back=self._holding.give_back_later,
            release=self._holding.release,
        )

    # --- looking ---

    async def _stats(self, queue: str) -> QueueStats:
        return await self._queues.stats(queue)

    # --- request-reply ---

    def _new_inbox(self) -> ServicebusInbox:
        return ServicebusInbox(self._api, require_open=self.require_open)

    def _is_inbox(self, address: str) -> bool:
        return is_inbox(self._location.prefix, address)

    async def _answer(self, address: str, messages: Sequence[Message]) -> None:
        try:
            await self._entities.inbox_outlet(address).send([outgoing(message) for message in messages])
        except NoEntityError:
            self._entities.forget_inbox(address)
            raise QueueNotFoundError(address) from None
