"""Reading what is written as it comes: ledgers and inboxes, in one consumer and one thread for a broker object.

There is no consumer group: each reads all of it, from where it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

from confluent_kafka import Consumer, KafkaException, TopicPartition

from dumbwaiter.brokers.kafka.link import Link
from dumbwaiter.errors import BrokerUnavailableError

_POLL = 0.02
"""Seconds after which an order is seen at the latest."""
_MANY = 1000

Feed: TypeAlias = Callable[[list[Any]], object]
"""Gets records in their order, in the event loop."""


def consumer_of(link: Link, **more: object) -> Consumer:
    """A consumer that says for itself what it reads. Raises BrokerUnavailableError."""
    settings = link.settings() | {
        "group.id": f"{link.location.prefix}-reader",  # librdkafka wants one; nothing is ever committed to it
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": int(link.location.fetch_wait * 1000),
        "fetch.error.backoff.ms": 100,
    }
    try:
        return Consumer(settings | more)
    except KafkaException as error:
        raise BrokerUnavailableError(f"no client for {link.location.shown}: {error.args[0].str()}") from error


def begin(consumer: Consumer, topic: str, partition: int, offset: int) -> None:
    """Let *consumer* read there from *offset* on. In the consumer's thread."""
    with contextlib.suppress(KafkaException):
        # A topic that it does not know yet it would look up within a second only.
        consumer.list_topics(topic, timeout=1.0)
    consumer.incremental_assign([TopicPartition(topic, partition, offset)])


class Tail:
    """What comes to some partitions, for as long as somebody wants it. *on_fault* is called with a topic that cannot be
    read on: it was deleted, or is shorter than it was.
    """

    def __init__(self, link: Link, *, on_fault: Callable[[str], object]) -> None:
        self._link = link
        self._on_fault = on_fault
        self._feeds: dict[tuple[str, int], Feed] = {}
        # A consumer belongs to its thread: a call from another one while it polls may never return.
        self._orders: queue.SimpleQueue[tuple[str, int, int | None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_open = True

    def follow(self, topic: str, partition: int, offset: int, feed: Feed) -> None:
        """Give *feed* all records from *offset* on."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            reading = (consumer_of(self._link),)
            self._thread = threading.Thread(target=self._read, args=reading, name="kafka-tail", daemon=True)
            self._thread.start()
        self._feeds[topic, partition] = feed
        self._orders.put((topic, partition, offset))

    def leave(self, topic: str, partition: int) -> None:
        """No more of that."""
        if self._feeds.pop((topic, partition), None) is not None:
            self._orders.put((topic, partition, None))

    async def close(self) -> None:
        """End."""
        self._is_open = False
        self._feeds.clear()
        self._orders.put(("", 0, None))
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _read(self, consumer: Consumer) -> None:
        followed: set[tuple[str, int]] = set()
        while self._is_open:
            while self._is_open and not (self._orders.empty() and followed):
                _obey(consumer, self._orders.get(), followed)
            first = consumer.poll(_POLL)
            if first is None:
                continue
            # consume() waits for as many as it was asked for, unless it may not wait at all.
            came = [first, *consumer.consume(_MANY, 0)]
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self._hand_out, came)
        consumer.close()

    def _hand_out(self, came: list[Any]) -> None:
        good: dict[tuple[str, int], list[Any]] = {}
        for record in came:
            error = record.error()
            if error is None:
                good.setdefault((record.topic(), record.partition()), []).append(record)
            else:
                self._link.suspect()
                if record.topic():
                    self._on_fault(record.topic())
        for place, records in good.items():
            if (feed := self._feeds.get(place)) is not None:
                self._link.answered()
                feed(records)


def _obey(consumer: Consumer, order: tuple[str, int, int | None], followed: set[tuple[str, int]]) -> None:
    topic, partition, offset = order
    if (topic, partition) in followed:
        consumer.incremental_unassign([TopicPartition(topic, partition)])
        followed.discard((topic, partition))
    if offset is not None:
        begin(consumer, topic, partition, offset)
        followed.add((topic, partition))
