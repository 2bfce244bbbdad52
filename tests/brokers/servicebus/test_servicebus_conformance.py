"""The suite, with the vendor's own client over a real socket, against a double of ours: never against Azure."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.testing import BrokerConformance, ServerHarness


class ServicebusHarness(ServerHarness):
    """The service locks for 5 seconds at least, also for whoever is killed; so it takes longer until that is seen."""

    def __init__(self, server) -> None:
        super().__init__(server.url, lock_duration=1.0, slack=6.0)
        self._server = server

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._server.start)


class TestServicebus(BrokerConformance):
    """All rules."""

    @pytest.fixture
    def harness(self, server):
        return ServicebusHarness(server)
