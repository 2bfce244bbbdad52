"""Where replies arrive: a queue of this connection alone, gone with it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from aiormq.abc import AbstractChannel, DeliveredMessage

from dumbwaiter.brokers.inboxes import LineInbox
from dumbwaiter.brokers.rabbitmq.errors import MissingQueueError
from dumbwaiter.brokers.rabbitmq.link import Link
from dumbwaiter.brokers.rabbitmq.wire import attributes_of
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BadInputError, BrokerUnavailableError
from dumbwaiter.message import Message


class RabbitmqInbox(LineInbox):
    """Replies that were pushed here, oldest first. A lost connection loses those under way; the address stays."""

    def __init__(self, prefix: str, link: Link, *, require_open: Callable[[], None]) -> None:
        super().__init__(f"{prefix}/inbox/{secrets.token_hex(12)}", require_open=require_open)
        self._link = link
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> AbstractChannel:
        """Declare the queue, again after the connection was lost. Raises BrokerUnavailableError."""
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                channel = await self._link.channel()
                await self._link.run(lambda: channel.queue_declare(self.address, exclusive=True))
                await self._link.run(lambda: channel.basic_consume(self.address, self._come, no_ack=True))
                channel.closing.add_done_callback(lambda _: self.fail(self._lost()))
                self._channel = channel
            return self._channel

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        self._require_open()
        await self.open()
        return await super().receive(max_messages=max_messages, max_wait=max_wait)

    async def close(self) -> None:
        if not self._is_open:
            return
        self.dismiss()
        channel = self._channel
        if channel is not None and not channel.is_closed:
            try:
                await self._link.run(lambda: channel.queue_delete(self.address))
                await self._link.run(channel.close)
            except (BrokerUnavailableError, MissingQueueError):
                pass  # it is gone with the connection

    def _join(self) -> None:
        super()._join()
        if self._channel is None or self._channel.is_closed:
            raise self._lost()

    def _lost(self) -> BrokerUnavailableError:
        return BrokerUnavailableError(f"the connection to {self._link.where} was lost; look whether it runs")

    async def _come(self, message: DeliveredMessage) -> None:  # the library wants a coroutine
        properties = message.header.properties
        try:
            reply = from_attributes(
                attributes_of(properties, now=time.time()), message.body, fallback_id=properties.message_id
            )
        except BadInputError:
            return  # nobody can tell whose answer it is
        self.put([reply])
