"""One durable server a module, for tests with queues of their own."""

from __future__ import annotations

import nats
import pytest
from servers import NatsServer

from dumbwaiter.brokers import open_broker


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory):
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def broker(nats_server):
    async with open_broker(nats_server.url) as broker:
        yield broker


@pytest.fixture
async def foreign(nats_server):
    """Somebody who knows NATS and nothing of dumbwaiter."""
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()
