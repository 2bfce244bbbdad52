"""Where replies arrive: a queue of this connection alone, gone with it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque

from aiormq.abc import AbstractChannel, DeliveredMessage

from dumbwaiter.brokers.contract import Inbox
from dumbwaiter.brokers.lines import Line
from dumbwaiter.brokers.rabbitmq.errors import MissingQueueError
from dumbwaiter.brokers.rabbitmq.link import Link
from dumbwaiter.brokers.rabbitmq.wire import attributes_of
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BadInputError, BrokerClosedError, BrokerUnavailableError
from dumbwaiter.message import Message


class RabbitmqInbox(Inbox):
    """Replies that were pushed here, oldest first. A lost connection loses those under way; the address stays."""

    def __init__(self, prefix: str, link: Link) -> None:
        self.address = f"{prefix}/inbox/{secrets.token_hex(12)}"
        self._link = link
        self._channel: AbstractChannel | None = None
        self._messages: deque[Message] = deque()
        self._line: Line[Message] = Line(lambda: None, lambda items: self._messages.extendleft(reversed(items)))
        self._opening = asyncio.Lock()
        self.is_closed = False

    async def open(self) -> AbstractChannel:
        """Declare the queue, again after the connection was lost. Raises BrokerUnavailableError."""
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                channel = await self._link.channel()
                await self._link.run(lambda: channel.queue_declare(self.address, exclusive=True))
                await self._link.run(lambda: channel.basic_consume(self.address, self._come, no_ack=True))
                channel.closing.add_done_callback(lambda _: self._wake())
                self._channel = channel
            return self._channel

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        def take() -> list[Message]:
            return [self._messages.popleft() for _ in range(min(max_messages, len(self._messages)))]

        self._check_open()
        channel = await self.open()
        max_wait = max_wait if max_messages > 0 else 0.0
        messages = await self._line.receive(self, take, max_wait, check_open=self._check_open)
        self._check_open()
        if not messages and channel.is_closed:
            raise BrokerUnavailableError(f"the connection to {self._link.where} was lost; look whether it runs")
        return messages

    async def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._wake()
        channel = self._channel
        if channel is not None and not channel.is_closed:
            try:
                await self._link.run(lambda: channel.queue_delete(self.address))
                await self._link.run(channel.close)
            except (BrokerUnavailableError, MissingQueueError):
                pass  # it is gone with the connection

    def _wake(self) -> None:
        with self._line.lock:
            self._line.dismiss(self)

    def _check_open(self) -> None:
        if self.is_closed:
            raise BrokerClosedError("this inbox is closed; open another with open_inbox()")

    async def _come(self, message: DeliveredMessage) -> None:  # the library wants a coroutine
        properties = message.header.properties
        try:
            reply = from_attributes(
                attributes_of(properties, now=time.time()), message.body, fallback_id=properties.message_id
            )
        except BadInputError:
            return  # nobody can tell whose answer it is
        self._messages.append(reply)
        with self._line.lock:
            self._line.changed()
