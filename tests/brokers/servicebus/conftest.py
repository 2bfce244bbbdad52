"""One double of Service Bus a module, for tests with queues of their own."""

from __future__ import annotations

import pytest

from dumbwaiter.testing.servers.servicebus import ServicebusServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = ServicebusServer(tmp_path_factory.mktemp("servicebus"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def no_connection_string(monkeypatch):
    """Whatever is set on this machine."""
    monkeypatch.delenv("AZURE_SERVICEBUS_CONNECTION_STRING", raising=False)
