"""RabbitMQ by hand: a quorum queue there, an exclusive queue back; persistent, and every publish is confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import aio_pika

from by_hand import AT_ONCE, QUEUE, Door

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage


class RabbitmqDoor(Door):
    """One connection, with a channel to publish and one to consume."""

    async def open(self) -> None:
        self._connection = await aio_pika.connect(self.url)
        self._publishing = await self._connection.channel()
        self._consuming = await self._connection.channel()
        await self._consuming.set_qos(prefetch_count=AT_ONCE)
        self._queue = await self._consuming.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        self._arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()

    async def listen(self) -> None:
        """Answers come into a queue of this connection alone."""
        self._inbox = await self._consuming.declare_queue(exclusive=True)
        await self._inbox.consume(self._arrived.put, no_ack=True)

    async def send(self, requests: Sequence[tuple[str, bytes]]) -> None:
        await asyncio.gather(*(self._publish(QUEUE, name, body, self._inbox.name) for name, body in requests))

    async def read(self) -> list[tuple[str, bytes]]:
        return [(message.message_id or "", message.body) for message in await self._some()]

    async def serve(self) -> None:
        await self._queue.consume(self._arrived.put)
        while True:
            messages = await self._some()
            answers = (self._publish(one.reply_to or "", one.message_id or "", one.body) for one in messages)
            await asyncio.gather(*answers)
            await messages[-1].ack(multiple=True)

    async def close(self) -> None:
        await self._queue.delete(if_unused=False, if_empty=False)
        await self._connection.close()

    async def _some(self) -> list[AbstractIncomingMessage]:
        messages = [await self._arrived.get()]
        while not self._arrived.empty() and len(messages) < AT_ONCE:
            messages.append(self._arrived.get_nowait())
        return messages

    async def _publish(self, queue: str, name: str, body: bytes, reply_to: str | None = None) -> None:
        message = aio_pika.Message(
            body, message_id=name, reply_to=reply_to, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        await self._publishing.default_exchange.publish(message, routing_key=queue)
