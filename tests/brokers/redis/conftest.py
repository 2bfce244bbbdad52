"""One durable server a module, for tests with queues of their own."""

from __future__ import annotations

import secrets

import pytest
from redis.asyncio import Redis
from servers import RedisServer, oldest_redis_program, redis_program, valkey_program

from dumbwaiter.brokers import open_broker


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    server = RedisServer(redis_program(), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def valkey_server(tmp_path_factory):
    server = RedisServer(valkey_program(), tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def oldest_redis_server(tmp_path_factory):
    server = RedisServer(oldest_redis_program(), tmp_path_factory.mktemp("oldest-redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["redis", pytest.param("valkey", marks=pytest.mark.trial)])
def server(request):
    """Each test on both products."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
async def producer(server):
    """A client that knows nothing of dumbwaiter."""
    async with Redis.from_url(server.url, protocol=2) as client:
        yield client


@pytest.fixture
def queue():
    """A name that nobody has used."""
    return f"q-{secrets.token_hex(4)}"


@pytest.fixture
async def broker(server):
    async with open_broker(server.url) as one:
        yield one
