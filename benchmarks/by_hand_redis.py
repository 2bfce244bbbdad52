"""Redis and Valkey by hand: a stream with a consumer group there, a stream back; each step is one pipeline."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from by_hand import AT_ONCE, QUEUE, Door


class RedisDoor(Door):
    """Two connections: one waits, the other writes."""

    async def open(self) -> None:
        self._redis: Redis = Redis.from_url(self.url, protocol=2)
        self._answers = f"answers-{secrets.token_hex(4)}"
        self._last: Any = "0-0"
        self._read: list[Any] = []
        try:
            await self._redis.xgroup_create(QUEUE, "workers", id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def listen(self) -> None:
        """A stream may be read before it is there."""

    async def send(self, requests: Sequence[tuple[str, bytes]]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for name, body in requests:
            pipeline.xadd(QUEUE, {"id": name, "replyto": self._answers, "body": body})
        await pipeline.execute()

    async def read(self) -> list[tuple[str, bytes]]:
        pipeline = self._redis.pipeline(transaction=False)
        if len(self._read) >= 2 * AT_ONCE:
            pipeline.xdel(self._answers, *self._read)
            self._read = []
        pipeline.xread({self._answers: self._last}, count=AT_ONCE, block=10_000)
        answered: Any = (await pipeline.execute())[-1]
        if not answered:
            return []
        entries = answered[0][1]
        self._read += [id_ for id_, _ in entries]
        self._last = entries[-1][0]
        return [(fields[b"id"].decode(), fields[b"body"]) for _, fields in entries]

    async def serve(self) -> None:
        me = secrets.token_hex(4)
        while True:
            received: Any = await self._redis.xreadgroup("workers", me, {QUEUE: ">"}, count=AT_ONCE, block=10_000)
            if not received:
                continue
            entries = received[0][1]
            ids = [id_ for id_, _ in entries]
            pipeline = self._redis.pipeline(transaction=False)
            for _, fields in entries:
                pipeline.xadd(fields[b"replyto"], {"id": fields[b"id"], "body": fields[b"body"]})
            pipeline.xack(QUEUE, "workers", *ids)
            pipeline.xdel(QUEUE, *ids)
            await pipeline.execute()

    async def close(self) -> None:
        await self._redis.delete(QUEUE, self._answers)
        await self._redis.aclose()
