"""The suite on Tansu, a server that speaks Kafka's protocol.

It keeps all in its memory. So "the server was killed" is here: the way to it is cut, and joined again.
"""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka import Producer

from dumbwaiter.testing import BrokerConformance, ServerHarness


class KafkaHarness(ServerHarness):
    most_headers = 1000
    longest_header = 100_000

    def __init__(self, tansu, **options: object) -> None:
        super().__init__(tansu.url(**options), lock_duration=1.0)
        self._servers = f"127.0.0.1:{tansu.server.port}"
        self._wire = tansu.wire

    async def send_foreign(self, queue, headers, body):
        producer = Producer({"bootstrap.servers": self._servers, "message.max.bytes": 10_000_000})
        producer.produce(f"dumbwaiter.{queue}", body, headers=list(headers.items()))
        assert await asyncio.to_thread(producer.flush, 10.0) == 0

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._wire.cut)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._wire.join)


class TestTansu(BrokerConformance):
    """All rules."""

    @pytest.fixture
    def harness(self, tansu):
        return KafkaHarness(tansu)
