"""The suite on a real nats-server, with each message on disk before it is confirmed."""

from __future__ import annotations

import asyncio

import nats
import pytest
from servers import NatsServer

from dumbwaiter.testing import BrokerConformance, ServerHarness


class NatsHarness(ServerHarness):
    def __init__(self, server: NatsServer) -> None:
        super().__init__(server.url, lock_duration=0.5)
        self._server = server

    most_headers = 2000
    longest_header = 30_000

    async def send_foreign(self, queue, headers, body):
        client = await nats.connect(self.url)
        await client.jetstream().publish(f"dumbwaiter.normal.{queue}", body, headers=headers)
        await client.close()

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._server.start)


class TestNats(BrokerConformance):
    @pytest.fixture
    def harness(self, nats_server):
        return NatsHarness(nats_server)
