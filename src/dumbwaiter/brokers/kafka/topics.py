"""Making topics, and knowing which there are."""

from __future__ import annotations

from confluent_kafka import KafkaError
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from dumbwaiter.brokers.kafka.link import ANSWER_WITHIN, Link
from dumbwaiter.brokers.kafka.names import LEDGER, PARTS, inbox_topic, queue_of, topic_of
from dumbwaiter.errors import QueueNotFoundError
from dumbwaiter.policies.lanes import LANES

INBOX_PARTITIONS = 8
INBOX_RETENTION = 3600.0
"""Seconds for which a reply is kept."""

_FOR_EVER = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
#: What is served is deleted by us. The broker's clock is the one that all locks go by.
_SETTINGS = _FOR_EVER | {"message.timestamp.type": "LogAppendTime"}
_INBOX_SETTINGS = {"retention.ms": str(int(INBOX_RETENTION * 1000)), "segment.ms": "600000"}


class Topics:
    """The topics under the prefix of *link*'s location."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: set[str] = set()
        self._inboxes: int | None = None

    @property
    def prefix(self) -> str:
        return self._link.location.prefix

    async def create(self, queue: str) -> None:
        """Make what is missing of *queue*. The ledger comes last: with it there is a queue."""
        there = await self._link.topics()
        missing = {part: topic_of(self.prefix, queue, part) for part in PARTS}
        missing = {part: topic for part, topic in missing.items() if topic not in there}
        for parts in ([part for part in missing if part != LEDGER], [part for part in missing if part == LEDGER]):
            if parts:
                await self._make([self._new(missing[part], self._partitions(part), _SETTINGS) for part in parts])
        self._known.add(queue)

    async def require(self, queue: str) -> None:
        """Raises QueueNotFoundError."""
        if queue not in self._known and not await self.has(queue):
            raise QueueNotFoundError(queue)
        self._link.require_up()

    async def has(self, queue: str) -> bool:
        """Whether *queue* was created."""
        topics = await self._link.topics()
        if all(topic_of(self.prefix, queue, part) in topics for part in PARTS):
            self._known.add(queue)
        else:
            self._known.discard(queue)
        return queue in self._known

    async def queues(self) -> list[str]:
        """The names of all queues. One whose name had to be cut is not among them."""
        found = [queue_of(self.prefix, topic) for topic in await self._link.topics()]
        return sorted(queue for queue in found if queue is not None)

    def forget(self, queue: str) -> None:
        """It may be gone."""
        self._known.discard(queue)

    async def make_inboxes(self) -> int:
        """The number of partitions of the topic for replies, made if it is missing."""
        self._link.require_up()
        if self._inboxes is None:
            topic = inbox_topic(self.prefix)
            partitions = (await self._link.topics()).get(topic, 0)
            if not partitions:
                await self._make([self._new(topic, INBOX_PARTITIONS, _INBOX_SETTINGS)])
                partitions = (await self._link.topics()).get(topic, INBOX_PARTITIONS)
            self._inboxes = partitions
        return self._inboxes

    def lost(self) -> None:
        """The brokers were away: what they have may have changed."""
        self._known.clear()
        self._inboxes = None

    def _partitions(self, part: int) -> int:
        return self._link.location.partitions if part < LANES else 1

    def _new(self, topic: str, partitions: int, settings: dict[str, str]) -> NewTopic:
        replicas = self._link.location.replicas
        return NewTopic(topic, partitions, -1 if replicas is None else replicas, config=settings)

    async def _make(self, topics: list[NewTopic]) -> None:
        futures = self._link.admin.create_topics(topics, request_timeout=ANSWER_WITHIN)
        await self._link.answers("create topics", futures, unless=KafkaError.TOPIC_ALREADY_EXISTS)
