"""One real server for all tests of this folder: it takes its time to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import RabbitmqServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitmqServer]:
    server = RabbitmqServer(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    yield server
    server.stop()
