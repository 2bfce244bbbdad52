"""NATS JetStream by hand: a work-queue stream on disk there, a core subject back; completed with ack_sync."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import nats
import nats.errors
from nats.js import api

from by_hand import AT_ONCE, QUEUE, Door

if TYPE_CHECKING:
    from nats.aio.msg import Msg

ID, REPLY_TO = "Nats-Msg-Id", "Reply-To"


class NatsDoor(Door):
    """One connection."""

    async def open(self) -> None:
        self._client = await nats.connect(self.url)
        self._stream = self._client.jetstream(publish_async_max_pending=4 * AT_ONCE)
        await self._stream.add_stream(
            api.StreamConfig(
                name=QUEUE,
                subjects=[QUEUE],
                retention=api.RetentionPolicy.WORK_QUEUE,
                storage=api.StorageType.FILE,
            )
        )
        consumer = api.ConsumerConfig(durable_name="workers", ack_policy=api.AckPolicy.EXPLICIT, ack_wait=30)
        await self._stream.add_consumer(QUEUE, consumer)

    async def listen(self) -> None:
        """Answers come into a queue of this process."""
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(self._inbox, cb=self._arrived.put)
        await self._client.flush()

    async def send(self, requests: Sequence[tuple[str, bytes]]) -> None:
        confirmed = [
            await self._stream.publish_async(QUEUE, body, headers={ID: name, REPLY_TO: self._inbox})
            for name, body in requests
        ]
        await asyncio.gather(*confirmed)

    async def read(self) -> list[tuple[str, bytes]]:
        messages = [await self._arrived.get()]
        while not self._arrived.empty():
            messages.append(self._arrived.get_nowait())
        return [((message.headers or {})[ID], message.data) for message in messages]

    async def serve(self) -> None:
        subscription = await self._stream.pull_subscribe_bind("workers", stream=QUEUE)
        while True:
            try:
                messages = await subscription.fetch(AT_ONCE, timeout=10)
            except nats.errors.TimeoutError:
                continue
            for message in messages:
                headers = message.headers or {}
                await self._client.publish(headers[REPLY_TO], message.data, headers={ID: headers[ID]})
            await asyncio.gather(*(message.ack_sync() for message in messages))

    async def close(self) -> None:
        await self._stream.delete_stream(QUEUE)
        await self._client.close()
