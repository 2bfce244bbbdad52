"""Reading records by their offsets: the bodies of what somebody has got already.

Whoever serves a queue alone reads on and on; among several each reads with gaps. So what lies shortly behind what was
asked for is kept for the next question, and a gap of some length is jumped over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from dumbwaiter.brokers.kafka.codes import END_OF_PARTITION
from dumbwaiter.brokers.kafka.link import ANSWER_WITHIN, Link
from dumbwaiter.brokers.kafka.tail import begin, consumer_of
from dumbwaiter.brokers.kafka.wire import Found, found
from dumbwaiter.errors import BrokerError, BrokerUnavailableError

Place: TypeAlias = tuple[str, int, int]
"""Topic, partition, offset."""
Open: TypeAlias = dict[tuple[str, int], set[int]]
"""Offsets that were asked for and not read yet, by topic and partition."""

_GAP = 256
"""So many records are rather read than jumped over."""
_KEPT_NBYTES = 16 * 1024 * 1024
_IDLE = 2.0
_POLL = 0.05


class Reader:
    """The reader of one broker object. One thread reads for all who ask at the same time."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._thread = ThreadPoolExecutor(1, "kafka-reader")
        self._reading: Reading | None = None
        self._wanted: dict[Place, asyncio.Future[Found | None]] = {}
        self._running: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def read(self, places: Iterable[Place]) -> list[Found | None]:
        """What lies at *places*; None for what is gone. Raises BrokerUnavailableError."""
        self._link.require_up()
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Found | None]] = []
        for place in places:
            future = self._wanted.get(place)
            if future is None:
                future = self._wanted[place] = loop.create_future()
                future.add_done_callback(_seen)
            futures.append(future)
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await asyncio.gather(*map(asyncio.shield, futures))

    async def close(self) -> None:
        """End; whoever waits gets an error."""
        while self._running is not None:
            await asyncio.wait([self._running])
        if self._idle is not None:  # set by the end of what ran
            self._idle.cancel()
        if self._reading is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._reading.close)
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, {}
                await self._answer(wanted)
        finally:
            self._running = None
        self._idle = asyncio.get_running_loop().call_later(_IDLE, self._rest)

    async def _answer(self, wanted: dict[Place, asyncio.Future[Found | None]]) -> None:
        try:
            if self._reading is None:
                self._reading = Reading(self._link)
            answers = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._reading.read, list(wanted), ANSWER_WITHIN
            )
        except (BrokerError, KafkaException) as error:
            ours = error if isinstance(error, BrokerError) else self._link.error_of("read", error.args[0])
            for future in wanted.values():
                future.set_exception(ours)
            return
        for place, future in wanted.items():
            if place in answers:
                future.set_result(answers[place])
            else:
                self._link.suspect()
                future.set_exception(BrokerUnavailableError(f"{self._link.location.shown} gave no record in time"))

    def _rest(self) -> None:
        # A fetch that waits at the end of a topic would stand in the way of the next one, and bring what others take.
        if self._reading is not None and self._running is None:
            self._thread.submit(self._reading.rest)


class Reading:
    """A consumer that jumps about. All of it belongs to one thread."""

    def __init__(self, link: Link) -> None:
        self._consumer: Consumer = consumer_of(
            link,
            **{
                "enable.partition.eof": True,
                "queued.min.messages": 500,
                "fetch.queue.backoff.ms": 5,
                "queued.max.messages.kbytes": 8192,
                "fetch.message.max.bytes": 131_072,
                "fetch.wait.max.ms": min(50, int(link.location.fetch_wait * 1000)),
            },
        )
        self._at: dict[tuple[str, int], int] = {}
        self._kept: OrderedDict[Place, Found] = OrderedDict()
        self._kept_nbytes = 0
        self._doubted: set[Place] = set()

    def read(self, places: list[Place], within: float) -> dict[Place, Found | None]:
        """What lies at *places*, as far as it comes within so many seconds."""
        answers: dict[Place, Found | None] = {}
        open_: Open = {}
        for place in places:
            if (kept := self._take_kept(place)) is not None:
                answers[place] = kept
            else:
                open_.setdefault(place[:2], set()).add(place[2])
        for part, offsets in open_.items():
            self._go_to(part, min(offsets))
        give_up_at = time.monotonic() + within
        self._doubted.clear()
        while open_ and time.monotonic() < give_up_at:
            first = self._consumer.poll(_POLL)
            for record in () if first is None else (first, *self._consumer.consume(100, 0)):
                self._note(record, open_, answers)
        return answers

    def rest(self) -> None:
        """Nobody asks now."""
        with contextlib.suppress(KafkaException, RuntimeError):
            self._consumer.unassign()
        self._at.clear()
        self._kept.clear()
        self._kept_nbytes = 0

    def close(self) -> None:
        """End."""
        self._consumer.close()

    def _go_to(self, part: tuple[str, int], offset: int) -> None:
        at = self._at.get(part)
        if at is not None and at <= offset <= at + _GAP:
            return
        self._jump(part, offset)

    def _jump(self, part: tuple[str, int], offset: int) -> None:
        topic, partition = part
        if part in self._at:
            self._consumer.incremental_unassign([TopicPartition(topic, partition)])
            self._consumer.incremental_assign([TopicPartition(topic, partition, offset)])
        else:
            begin(self._consumer, topic, partition, offset)
        self._at[part] = offset

    def _note(self, record: Any, open_: Open, answers: dict[Place, Found | None]) -> None:
        error = record.error()
        if error is not None and error.code() != END_OF_PARTITION:
            if error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaException(error)
            return
        part, offset = (record.topic(), record.partition()), record.offset()
        if offset < self._at.get(part, 0):
            return  # fetched before we jumped
        missing = open_.get(part, set())
        if not self._pass_over(part, [one for one in missing if one < offset], answers):
            return
        missing.difference_update([one for one in missing if one < offset])
        if error is None:
            self._at[part] = offset + 1
            read = found(offset, record.timestamp()[1], record.headers() or (), record.value())
            if offset in missing:
                answers[*part, offset] = read
                missing.discard(offset)
            else:
                self._keep((*part, offset), read)
        if not missing:
            open_.pop(part, None)

    def _pass_over(self, part: tuple[str, int], gone: list[int], answers: dict[Place, Found | None]) -> bool:
        """Whether what was passed over does not exist: it was deleted, or belongs to a transaction."""
        places = [(*part, offset) for offset in gone]
        if not self._doubted.issuperset(places):
            # Or does this answer belong to an older question? Nothing is given up for a mistake: ask once more.
            self._doubted.update(places)
            self._jump(part, min(gone))
            return False
        answers.update(dict.fromkeys(places))
        return True

    def _keep(self, place: Place, one: Found) -> None:
        self._kept[place] = one
        self._kept_nbytes += len(one.body)
        while self._kept_nbytes > _KEPT_NBYTES:
            self._kept_nbytes -= len(self._kept.popitem(last=False)[1].body)

    def _take_kept(self, place: Place) -> Found | None:
        one = self._kept.pop(place, None)
        if one is not None:
            self._kept_nbytes -= len(one.body)
        return one


def _seen(future: asyncio.Future[Any]) -> None:
    """Whoever asked may have left."""
    if not future.cancelled():
        future.exception()
