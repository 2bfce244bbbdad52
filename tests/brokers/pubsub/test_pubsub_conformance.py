"""The suite on Google's emulator of Pub/Sub.

Pub/Sub itself lives on when a connection to it breaks, and the emulator keeps all in memory. So "the server was killed"
is here: the way to it is cut, and joined again.
"""

from __future__ import annotations

import asyncio

import pytest
from google.pubsub_v1 import types

from dumbwaiter.brokers.pubsub.api import Api
from dumbwaiter.brokers.pubsub.location import location_of
from dumbwaiter.testing import BrokerConformance, ServerHarness


class PubsubHarness(ServerHarness):
    most_headers = 100
    longest_header = 1024

    def __init__(self, emulator) -> None:
        super().__init__(emulator.url(), lock_duration=1.0)
        self._direct = emulator.server.url
        self._wire = emulator.wire

    async def send_foreign(self, queue, headers, body):
        api = Api(location_of(self._direct))
        api.open()
        message = types.PubsubMessage.pb()(data=body, attributes=headers)
        topic = api.topic(f"dumbwaiter.{queue}")
        await api.ask("publish", types.PublishRequest.pb()(topic=topic, messages=[message]))
        await api.close()

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._wire.cut)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._wire.join)


class TestPubsub(BrokerConformance):
    """All rules. The emulator refuses stale ack ids as Pub/Sub does."""

    @pytest.fixture
    def harness(self, emulator):
        return PubsubHarness(emulator)
