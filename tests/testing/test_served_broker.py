"""The suite against a product with a server of its own: here every rule is checked, also those that kill the server."""

from __future__ import annotations

import pytest
from served_broker import TinyServer, TinyServerHarness

from dumbwaiter.testing import BrokerConformance


class TestServedBroker(BrokerConformance):
    @pytest.fixture
    async def harness(self):
        server = TinyServer()
        await server.start()
        yield TinyServerHarness(server, lock_duration=0.3)
        await server.stop()
