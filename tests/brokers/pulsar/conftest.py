"""One real server for all tests of a module: most use queues of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dumbwaiter.testing.servers.pulsar import PulsarServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulsarServer]:
    server = PulsarServer(tmp_path_factory.mktemp("pulsar"))
    server.start()
    yield server
    server.stop()
