"""One Tansu a module, with a way to it that can be cut; for tests with queues of their own."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from servers import HOST, Wire, free_port

from dumbwaiter.testing.servers import TansuServer


class Tansu(NamedTuple):
    server: TansuServer
    wire: Wire

    def url(self, **options: object) -> str:
        """The broker's URL, by the way that can be cut."""
        rest = "".join(f"&{name}={value}" for name, value in options.items())
        return f"kafka://{HOST}:{self.wire.port}?fetch_wait=0.01{rest}"


@pytest.fixture(scope="module")
def tansu(tmp_path_factory):
    seen_at = free_port()  # the server tells clients where it is
    server = TansuServer(tmp_path_factory.mktemp("tansu"), advertised=seen_at)
    wire = Wire(server.port)
    wire.port = seen_at
    server.start()
    wire.join()
    yield Tansu(server, wire)
    wire.close()
    server.stop()
