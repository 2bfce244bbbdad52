"""The suite on Google's emulator of Pub/Sub.

Pub/Sub itself lives on when a connection to it breaks, and the emulator keeps all in memory. So "the server was killed"
is here: the way to it is cut, and joined again.
"""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.testing import BrokerConformance, ServerHarness


class PubsubHarness(ServerHarness):
    def __init__(self, emulator) -> None:
        super().__init__(emulator.url(), lock_duration=1.0)
        self._wire = emulator.wire

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._wire.cut)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._wire.join)


class TestPubsub(BrokerConformance):
    """All rules. The emulator refuses stale ack ids as Pub/Sub does."""

    @pytest.fixture
    def harness(self, emulator):
        return PubsubHarness(emulator)
