"""One emulator a module, with a way to it that can be cut; for tests with queues of their own."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from servers import HOST, Wire

from dumbwaiter.testing.servers import PubsubServer


class Emulator(NamedTuple):
    server: PubsubServer
    wire: Wire

    def url(self, **options: object) -> str:
        """The broker's URL, by the way that can be cut."""
        rest = "".join(f"&{name}={value}" for name, value in options.items())
        return f"pubsub://a-project?emulator={HOST}:{self.wire.port}{rest}"


@pytest.fixture(autouse=True)
def nothing_of_the_environment(monkeypatch):
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    server = PubsubServer(tmp_path_factory.mktemp("pubsub"))
    server.start()
    wire = Wire(server.port)
    wire.join()
    yield Emulator(server, wire)
    wire.close()
    server.stop()
