"""Letting those who wait for messages know of what was sent: a record in the ledger for all sends of one moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from dumbwaiter.brokers.kafka.events import Position, Postpone, Seen, encode
from dumbwaiter.brokers.kafka.link import Link
from dumbwaiter.brokers.kafka.names import LEDGER, topic_of
from dumbwaiter.brokers.kafka.wire import Record
from dumbwaiter.errors import BrokerError


class Telling:
    """What this broker object has sent. Should a word of it get lost, those who wait look by themselves soon."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._unsaid: dict[str, dict[tuple[int, int], int]] = {}

    def sent(self, queue: str, positions: Iterable[Position]) -> None:
        """These are there. It is said in the next turn of the event loop, for each record costs all who serve."""
        if not self._unsaid:
            asyncio.get_running_loop().call_soon(self._say)
        ends = self._unsaid.setdefault(queue, {})
        for lane, partition, offset in positions:
            ends[lane, partition] = max(offset + 1, ends.get((lane, partition), 0))

    def postponed(self, queue: str, positions: list[Position], until: float) -> None:
        """These are there, and may not be taken before *until*, in seconds since the Unix epoch."""
        self._write(queue, Postpone(positions, round(until * 1000)))

    def _say(self) -> None:
        unsaid, self._unsaid = self._unsaid, {}
        for queue, ends in unsaid.items():
            self._write(queue, Seen([(*key, 0, behind) for key, behind in ends.items()]))

    def _write(self, queue: str, event: Seen | Postpone) -> None:
        topic = topic_of(self._link.location.prefix, queue, LEDGER)
        with contextlib.suppress(BrokerError):
            self._link.begin([Record(topic, encode(event), [], partition=0)])
