"""The suite on real servers: Redis and Valkey, with each write on disk before it is confirmed."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio
from servers import RedisServer

from dumbwaiter.testing import BrokerConformance, ServerHarness


class RedisHarness(ServerHarness):
    def __init__(self, server: RedisServer, scheme: str = "redis") -> None:
        super().__init__(server.url.replace("redis", scheme, 1), lock_duration=0.5)
        self._server = server

    most_headers = 5000

    async def send_foreign(self, queue, headers, body):
        client = redis.asyncio.Redis.from_url(self.url.replace("valkey", "redis", 1))
        await client.xadd(f"dumbwaiter:{{{queue}}}", {"body": body, **headers})
        await client.aclose()

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._server.start)


class TestRedis(BrokerConformance):
    @pytest.fixture
    def harness(self, redis_server):
        return RedisHarness(redis_server)


@pytest.mark.trial
class TestOldestRedis(BrokerConformance):
    """6.2, the oldest version that is taken."""

    @pytest.fixture
    def harness(self, oldest_redis_server):
        return RedisHarness(oldest_redis_server)


class TestValkey(BrokerConformance):
    @pytest.fixture
    def harness(self, valkey_server):
        return RedisHarness(valkey_server, scheme="valkey")
