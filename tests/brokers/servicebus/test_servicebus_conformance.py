"""The suite, with the vendor's own client over a real socket, against a double of ours: never against Azure."""

from __future__ import annotations

import asyncio

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from dumbwaiter.testing import BrokerConformance, ServerHarness
from dumbwaiter.testing.servers.servicebus import KEY, SECRET


class ServicebusHarness(ServerHarness):
    """The service locks for 5 seconds at least, also for whoever is killed; so it takes longer until that is seen."""

    most_headers = 1000
    longest_header = 30_000

    def __init__(self, server) -> None:
        super().__init__(server.url, lock_duration=1.0, slack=6.0)
        self._server = server

    async def send_foreign(self, queue, headers, body):
        address = f"Endpoint=sb://127.0.0.1:{self._server.port};SharedAccessKeyName={KEY};SharedAccessKey={SECRET};"
        message = ServiceBusMessage(body, application_properties=headers)
        async with (
            ServiceBusClient.from_connection_string(f"{address}UseDevelopmentEmulator=true;") as client,
            client.get_queue_sender(f"dumbwaiter_{queue}", keep_alive=0) as sender,
        ):
            await sender.send_messages(message)

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._server.start)


class TestServicebus(BrokerConformance):
    """All rules."""

    @pytest.fixture
    def harness(self, server):
        return ServicebusHarness(server)
