"""The whole suite against a real RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiormq
import pytest
from pamqp.commands import Basic
from servers import RabbitmqServer

from dumbwaiter.testing import BrokerConformance, ServerHarness


class RabbitmqHarness(ServerHarness):
    """A real server."""

    most_headers = 7700
    longest_header = 125_000

    def __init__(self, server: RabbitmqServer) -> None:
        super().__init__(server.url, lock_duration=0.5, slack=6.0)
        self._server = server

    async def send_foreign(self, queue: str, headers: Mapping[str, str], body: bytes) -> None:
        connection = await aiormq.connect(self.url)
        channel = await connection.channel()
        properties = Basic.Properties(delivery_mode=2, headers=dict(headers))
        await channel.basic_publish(body, routing_key=f"dumbwaiter.{queue}", properties=properties, mandatory=True)
        await connection.close()

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._server.start)


class TestRabbitmq(BrokerConformance):
    @pytest.fixture
    def harness(self, server: RabbitmqServer) -> RabbitmqHarness:
        return RabbitmqHarness(server)
