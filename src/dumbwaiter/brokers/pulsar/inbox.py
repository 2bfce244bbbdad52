"""Where replies arrive: a topic that is kept nowhere, of one process alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from dumbwaiter.brokers.contract import Inbox
from dumbwaiter.brokers.lines import Line
from dumbwaiter.brokers.pulsar.errors import lost
from dumbwaiter.brokers.pulsar.link import Link, start_answer
from dumbwaiter.brokers.pulsar.reading import event_time_of, id_of, properties_at
from dumbwaiter.brokers.pulsar.wire import attributes_of
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BadInputError, BrokerClosedError
from dumbwaiter.message import Message

_PREFETCH = 10_000
"""The server drops what comes while this many are on their way."""


class PulsarInbox(Inbox):
    """Replies that were pushed here, oldest first. A lost connection loses those under way; the address stays."""

    def __init__(self, topic: str, link: Link) -> None:
        self.address = topic
        self._link = link
        self._consumer: Any = None
        self._loop = asyncio.get_running_loop()
        self._arrivals: deque[Any] = deque()
        self._is_scheduled = False
        self._messages: deque[Message] = deque()
        self._line: Line[Message] = Line(lambda: None, lambda items: self._messages.extendleft(reversed(items)))
        self._opening = asyncio.Lock()
        self.is_closed = False

    async def open(self) -> Any:
        """Subscribe, again after the connection was lost. Raises BrokerUnavailableError."""
        async with self._opening:
            self._check_open()
            if self._consumer is None or not self._consumer.is_connected():
                if self._consumer is not None:
                    start_answer(self._consumer.close_async)
                    self._consumer = None
                self._consumer = await self._link.subscribe(
                    self.address, prefetch=_PREFETCH, listener=self._arrive, is_alone=True
                )
            return self._consumer

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        def take() -> list[Message]:
            return [self._messages.popleft() for _ in range(min(max_messages, len(self._messages)))]

        self._check_open()
        consumer = await self.open()
        max_wait = max_wait if max_messages > 0 else 0.0
        messages = await self._line.receive(self, take, max_wait, check_open=self._check_open)
        self._check_open()
        if not messages and not consumer.is_connected():
            raise lost(self._link.where)
        return messages

    async def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        with self._line.lock:
            self._line.dismiss(self)
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            start_answer(consumer.close_async)

    def _check_open(self) -> None:
        if self.is_closed:
            raise BrokerClosedError("this inbox is closed; open another with open_inbox()")

    def _arrive(self, _consumer: Any, message: Any) -> None:
        """In a thread of the client's."""
        self._arrivals.append(message)
        if not self._is_scheduled:
            self._is_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._take_in)

    def _take_in(self) -> None:
        self._is_scheduled = False
        while self._arrivals:
            message = self._arrivals.popleft()
            attributes = attributes_of(properties_at(message), event_time_of(message))
            with contextlib.suppress(BadInputError):  # nobody can tell whose answer it is
                self._messages.append(from_attributes(attributes, message.data(), fallback_id=id_of(message)))
        with self._line.lock:
            self._line.changed()
