"""The suite on Tansu, a server that speaks Kafka's protocol.

It keeps all in its memory. So "the server was killed" is here: the way to it is cut, and joined again.
"""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.testing import BrokerConformance, ServerHarness


class KafkaHarness(ServerHarness):
    def __init__(self, tansu, **options: object) -> None:
        super().__init__(tansu.url(**options), lock_duration=1.0)
        self._wire = tansu.wire

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._wire.cut)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._wire.join)


class TestTansu(BrokerConformance):
    """All rules."""

    @pytest.fixture
    def harness(self, tansu):
        return KafkaHarness(tansu)
