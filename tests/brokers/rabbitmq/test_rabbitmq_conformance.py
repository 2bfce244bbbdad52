"""The whole suite against a real RabbitMQ."""

from __future__ import annotations

import asyncio

import pytest
from servers import RabbitmqServer

from dumbwaiter.testing import BrokerConformance, ServerHarness


class RabbitmqHarness(ServerHarness):
    """A real server."""

    def __init__(self, server: RabbitmqServer) -> None:
        super().__init__(server.url, lock_duration=0.5, slack=6.0)
        self._server = server

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._server.start)


class TestRabbitmq(BrokerConformance):
    @pytest.fixture
    def harness(self, server: RabbitmqServer) -> RabbitmqHarness:
        return RabbitmqHarness(server)
