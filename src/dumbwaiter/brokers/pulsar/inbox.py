"""Where replies arrive: a topic that is kept nowhere, of one process alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from dumbwaiter.brokers.inboxes import LineInbox
from dumbwaiter.brokers.pulsar.errors import lost
from dumbwaiter.brokers.pulsar.link import Link, start_answer
from dumbwaiter.brokers.pulsar.reading import event_time_of, id_of, properties_at
from dumbwaiter.brokers.pulsar.wire import attributes_of
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BadInputError, BrokerError
from dumbwaiter.message import Message

_PREFETCH = 10_000
"""The server drops what comes while this many are on their way."""


class PulsarInbox(LineInbox):
    """Replies that were pushed here, oldest first. A lost connection loses those under way; the address stays."""

    def __init__(self, topic: str, link: Link, *, require_open: Callable[[], None]) -> None:
        super().__init__(topic, require_open=require_open)
        self._link = link
        self._consumer: Any = None
        self._loop = asyncio.get_running_loop()
        self._arrivals: deque[Any] = deque()
        self._is_scheduled = False
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Subscribe, again after the connection was lost. Raises BrokerUnavailableError."""
        async with self._opening:
            self._require_open()
            if self._is_lost():
                if self._consumer is not None:
                    self.fail(lost(self._link.where))
                    start_answer(self._consumer.close_async)
                    self._consumer = None
                self._consumer = await self._link.subscribe(
                    self.address, prefetch=_PREFETCH, listener=self._arrive, is_alone=True
                )

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        self._require_open()
        await self.open()
        return await super().receive(max_messages=max_messages, max_wait=max_wait)

    async def close(self) -> None:
        if not self._is_open:
            return
        self.dismiss()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            start_answer(consumer.close_async)

    def _fault_since(self, failures: int) -> BrokerError | None:
        return super()._fault_since(failures) or (lost(self._link.where) if self._is_lost() else None)

    def _is_lost(self) -> bool:
        return self._consumer is None or not self._consumer.is_connected()

    def _arrive(self, _consumer: Any, message: Any) -> None:
        """In a thread of the client's."""
        self._arrivals.append(message)
        if not self._is_scheduled:
            self._is_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._take_in)

    def _take_in(self) -> None:
        self._is_scheduled = False
        replies: list[Message] = []
        while self._arrivals:
            message = self._arrivals.popleft()
            attributes = attributes_of(properties_at(message), event_time_of(message))
            with contextlib.suppress(BadInputError):  # nobody can tell whose answer it is
                replies.append(from_attributes(attributes, message.data(), fallback_id=id_of(message)))
        self.put(replies)
