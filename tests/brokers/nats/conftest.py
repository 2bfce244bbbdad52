"""One durable server a module, for tests with queues of their own."""

from __future__ import annotations

import pytest
from servers import NatsServer


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory):
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()
