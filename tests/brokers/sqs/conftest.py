"""One emulator of each kind a module, with a way to it that can be cut; for tests with queues of their own."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from servers import HOST, SqsServer, Wire


class Emulator(NamedTuple):
    server: SqsServer
    wire: Wire

    def url(self, **options: object) -> str:
        """The broker's URL, by the way that can be cut."""
        rest = "".join(f"&{name}={value}" for name, value in options.items())
        return f"sqs://eu-central-1?endpoint=http://{HOST}:{self.wire.port}{rest}"


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    """Any will do; but none must be looked for elsewhere."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


def _emulator(program, folder):
    server = SqsServer(program, folder)
    server.start()
    wire = Wire(server.port)
    wire.join()
    yield Emulator(server, wire)
    wire.close()
    server.stop()


@pytest.fixture(scope="module")
def ministack(tmp_path_factory):
    yield from _emulator("ministack", tmp_path_factory.mktemp("ministack"))


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    yield from _emulator("moto", tmp_path_factory.mktemp("moto"))
