"""Replies: one topic for all gateways, of some partitions. Each gateway reads one of them, and keeps what is its own.

So nothing needs to be made for an inbox, and nothing stays behind when its owner dies.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from dumbwaiter.brokers.inboxes import LineInbox
from dumbwaiter.brokers.kafka.link import Link
from dumbwaiter.brokers.kafka.names import inbox_topic, new_inbox, partition_of
from dumbwaiter.brokers.kafka.tail import Tail
from dumbwaiter.brokers.kafka.topics import Topics
from dumbwaiter.brokers.kafka.wire import Record, found, headers_of
from dumbwaiter.errors import BrokerError, InboxGoneError
from dumbwaiter.message import Message


class Inboxes:
    """The inboxes of one broker object, which all read the same partition."""

    def __init__(self, link: Link, tail: Tail, topics: Topics, *, require_open: Callable[[], None]) -> None:
        self._link = link
        self._tail = tail
        self._topics = topics
        self._require_open = require_open
        self._topic = inbox_topic(link.location.prefix)
        self._partition: int | None = None
        self._open: dict[str, KafkaInbox] = {}

    async def open(self) -> KafkaInbox:
        """A fresh inbox, which gets all that is sent to it from now on."""
        self._require_open()
        partitions = await self._topics.make_inboxes()
        if self._partition is None:
            partition = random.randrange(partitions)  # noqa: S311 - to spread them
            end = (await self._link.ends([(self._topic, partition)]))[self._topic, partition]
            if self._partition is None:  # nobody else was faster
                self._partition = partition
                self._tail.follow(self._topic, partition, end, self._feed)
        inbox = KafkaInbox(new_inbox(self._link.location.prefix, self._partition), self._require_open, self._forget)
        self._open[inbox.address] = inbox
        return inbox

    async def reply(self, address: str, messages: Sequence[Message]) -> None:
        """As the contract says."""
        partition = partition_of(self._link.location.prefix, address)
        partitions = await self._topics.make_inboxes()
        if partition is None or partition >= partitions:
            raise InboxGoneError(address)
        key = address.encode()
        await self._link.write([Record(self._topic, one.body, headers_of(one), key, partition) for one in messages])

    async def write_nothing(self) -> None:
        """Write a record that nobody reads. Raises BrokerUnavailableError."""
        partitions = await self._topics.make_inboxes()
        partition = secrets.randbelow(partitions)
        await self._link.write([Record(self._topic, b"", [], b"check", partition)])

    def fail(self, error: BrokerError) -> None:
        """Whoever reads gets *error*."""
        for inbox in self._open.values():
            inbox.fail(error)

    async def close(self) -> None:
        """Send readers away."""
        for inbox in list(self._open.values()):
            await inbox.close()

    def _forget(self, inbox: KafkaInbox) -> None:
        self._open.pop(inbox.address, None)

    def _feed(self, records: list[Any]) -> None:
        came: dict[str, list[Message]] = {}
        for record in records:
            address = (record.key() or b"").decode(errors="replace")
            if address in self._open:
                one = found(record.offset(), record.timestamp()[1], record.headers() or (), record.value())
                came.setdefault(address, []).append(one.message(f"{record.partition()}.{record.offset()}"))
        for address, messages in came.items():
            self._open[address].put(messages)


class KafkaInbox(LineInbox):
    """Its own among the replies of the partition."""

    def __init__(self, address: str, require_open: Callable[[], None], on_close: Callable[[KafkaInbox], None]) -> None:
        super().__init__(address, require_open=require_open)
        self._on_close = on_close

    async def close(self) -> None:
        if self._is_open:
            self._on_close(self)
            self.dismiss()
