"""The whole suite against pulsar-lite."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import pulsar
import pytest
from pulsar.asyncio import Client

from dumbwaiter.brokers.pulsar.location import location_of
from dumbwaiter.brokers.pulsar.names import Names
from dumbwaiter.policies.lanes import NORMAL
from dumbwaiter.testing import BrokerConformance, ServerHarness
from dumbwaiter.testing.servers.pulsar import PulsarServer


class PulsarHarness(ServerHarness):
    """A real server."""

    most_headers = 2000
    longest_header = 100_000

    def __init__(self, server: PulsarServer) -> None:
        super().__init__(server.url, lock_duration=0.5, slack=4.0)
        self._server = server

    async def send_foreign(self, queue: str, headers: Mapping[str, str], body: bytes) -> None:
        quiet = pulsar.FileLogger(pulsar._pulsar.LoggerLevel.Error, os.devnull)
        client = Client(f"pulsar://127.0.0.1:{self._server.port}", logger=quiet)
        topic = Names.at(location_of(self.url)).lane(queue, NORMAL)
        producer = await client.create_producer(topic, batching_enabled=False)
        await producer.send(body, properties=dict(headers))
        await client.close()

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._server.stop)
        # The client learns of it in a thread of its own, and takes acknowledgements until then: nobody confirms those.
        await asyncio.sleep(1.0)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._server.start)


class TestPulsar(BrokerConformance):
    @pytest.fixture
    def harness(self, server: PulsarServer) -> PulsarHarness:
        return PulsarHarness(server)
