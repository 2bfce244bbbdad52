"""The suite on two emulators of SQS, each of which hides another fault.

SQS itself lives on when a connection to it breaks, and the emulators keep all in memory. So "the server was killed"
is here: the way to it is cut, and joined again.
"""

from __future__ import annotations

import asyncio
import base64
from typing import ClassVar

import pytest
from aiobotocore.session import get_session

from dumbwaiter.testing import BrokerConformance, ServerHarness
from dumbwaiter.testing.conformance.locking import LockingRules


class SqsHarness(ServerHarness):
    most_headers = 9  # SQS takes ten; one says that the body, which is no text, stands in base64
    longest_header = 100_000

    def __init__(self, emulator, **options: object) -> None:
        super().__init__(emulator.url(**options), lock_duration=1.0)
        self._endpoint = emulator.server.endpoint
        self._wire = emulator.wire

    async def send_foreign(self, queue, headers, body):
        text = base64.b64encode(body).decode()
        attributes = {
            name: {"DataType": "String", "StringValue": value}
            for name, value in {**headers, "dumbwaiter.body": "base64"}.items()
        }
        creating = get_session().create_client("sqs", region_name="eu-central-1", endpoint_url=self._endpoint)
        async with creating as client:
            url = (await client.get_queue_url(QueueName=f"dumbwaiter_{queue}"))["QueueUrl"]
            await client.send_message(QueueUrl=url, MessageBody=text, MessageAttributes=attributes)

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._wire.cut)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._wire.join)


class TestMinistack(BrokerConformance):
    """All rules. Ministack refuses receipt handles that are stale, which SQS does not."""

    @pytest.fixture
    def harness(self, ministack):
        return SqsHarness(ministack)


@pytest.mark.trial
class TestMoto(LockingRules):
    """The rules of locks, for moto takes stale receipt handles as SQS does. It is too slow for the whole suite, and
    hands a message to several receives of one moment.
    """

    pytestmark: ClassVar = [pytest.mark.anyio]

    @pytest.fixture
    def harness(self, moto):
        return SqsHarness(moto, max_message_size=1_048_576)
