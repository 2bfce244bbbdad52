"""librdkafka's mock cluster as a process: it says where it listens, and ends with its stdin.

It makes a topic, of four partitions, when somebody asks for it by name, and knows no request to make one.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

from confluent_kafka import Producer

from dumbwaiter.brokers.kafka import KafkaBroker
from dumbwaiter.brokers.kafka.names import PARTS, inbox_topic, topic_of


class MockKafkaBroker(KafkaBroker):
    """Asks for the topics that it makes by name first, so that they are there."""

    async def _create_queue(self, queue: str) -> None:
        self.require_open()
        prefix = self._location.prefix
        await self._touch([topic_of(prefix, queue, part) for part in PARTS])
        await super()._create_queue(queue)

    async def _connect(self) -> None:
        await super()._connect()
        await self._touch([inbox_topic(self._location.prefix)])

    async def _touch(self, topics: list[str]) -> None:
        def touch() -> None:
            client = Producer({"bootstrap.servers": self._location.servers, "log_level": 0})
            for topic in topics:
                client.list_topics(topic, timeout=5)

        await asyncio.to_thread(touch)


class MockCluster:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.servers = self._process.stdout.readline().decode().strip()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    producer = Producer({"bootstrap.servers": "x", "test.mock.num.brokers": 3, "log_level": 0})
    brokers = producer.list_topics(timeout=10).brokers.values()
    sys.stdout.write(",".join(f"{one.host}:{one.port}" for one in brokers) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
