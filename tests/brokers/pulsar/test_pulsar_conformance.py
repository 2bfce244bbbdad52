"""The whole suite against pulsar-lite."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.testing import BrokerConformance, ServerHarness
from dumbwaiter.testing.servers.pulsar import PulsarServer


class PulsarHarness(ServerHarness):
    """A real server."""

    def __init__(self, server: PulsarServer) -> None:
        super().__init__(server.url, lock_duration=0.5, slack=4.0)
        self._server = server

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._server.start)


class TestPulsar(BrokerConformance):
    @pytest.fixture
    def harness(self, server: PulsarServer) -> PulsarHarness:
        return PulsarHarness(server)
