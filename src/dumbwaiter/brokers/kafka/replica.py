"""A queue's ledger as one broker object knows it: read from its topic, and written to.

What a call has written is done when it comes back from the topic: only then its place among the events of others, and
with it the outcome, is known. The topic would grow for ever, so now and then somebody writes the whole state, and
deletes what came before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast

from confluent_kafka import TopicPartition

from dumbwaiter.brokers.kafka.clock import LedgerClock
from dumbwaiter.brokers.kafka.events import (
    Abandon,
    Bury,
    Complete,
    Event,
    Position,
    Purge,
    Redrive,
    Renew,
    Snapshot,
    Take,
    decode,
    encode,
)
from dumbwaiter.brokers.kafka.ledger import Ledger, Outcome, Taken, snapshot
from dumbwaiter.brokers.kafka.link import ANSWER_WITHIN, Link, now_ms, within
from dumbwaiter.brokers.kafka.names import DEAD, LEDGER, topic_of
from dumbwaiter.brokers.kafka.tail import Tail
from dumbwaiter.brokers.kafka.wire import Record
from dumbwaiter.errors import BrokerError, BrokerUnavailableError, QueueNotFoundError
from dumbwaiter.policies.lanes import LANES

_log = logging.getLogger(__name__)

SNAPSHOT_EVERY = 2000
"""Events after which somebody writes a snapshot: between one and two times as many."""


class Replica:
    """The ledger of *queue*. *owner* begins the names of this object's calls; *stray* gets what a call of ours was
    given that does not wait any more; *unsure* are Takes of which nobody knows what became, also of replicas of this
    ledger that were closed: what they got is stray; *listeners* are called after events were applied.
    """

    def __init__(
        self,
        queue: str,
        link: Link,
        tail: Tail,
        *,
        owner: str,
        spawn: Callable[[Coroutine[Any, Any, object]], object],
        stray: Callable[[Replica, list[Taken]], object],
        unsure: set[str] | None = None,
    ) -> None:
        self.queue = queue
        self._link = link
        self._tail = tail
        self._owner = owner
        self._spawn = spawn
        self._stray = stray
        self._unsure = set() if unsure is None else unsure
        self.listeners: list[Callable[[], object]] = []
        self.topics = {part: topic_of(link.location.prefix, queue, part) for part in (*range(LANES), DEAD, LEDGER)}
        self.ledger: Ledger | None = None
        self._early: list[tuple[int, int, Event | None]] = []
        self._next = 0
        self._count = 0
        self._since_snapshot = 0
        self._snapshot_after = int(SNAPSHOT_EVERY * random.uniform(1, 2))  # noqa: S311 - so that not all do it at once
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._reached: list[tuple[int, asyncio.Future[None]]] = []
        self._partitions: list[tuple[int, int]] = []
        self._lows: dict[tuple[int, int], int] = {}
        self._ahead: dict[tuple[int, int], int] = {}
        self._clock = LedgerClock(guess=now_ms(), here=_here())
        self._begun: dict[str, int] = {}
        self._is_live = False

    # --- open and close ---

    async def open(self) -> None:
        """Read the ledger from its beginning. Raises QueueNotFoundError, BrokerUnavailableError."""
        topics = await self._link.topics()
        missing = [topic for topic in self.topics.values() if topic not in topics]
        if missing:
            raise QueueNotFoundError(self.queue)
        lanes = [(lane, self.topics[lane]) for lane in range(LANES)]
        self._partitions = [(lane, partition) for lane, topic in lanes for partition in range(topics[topic])]
        places = [(self.topics[lane], partition) for lane, partition in self._partitions]
        firsts = await self._link.ends([*places, (self.topics[LEDGER], 0)], first=True)
        self._lows = {key: firsts[place] for key, place in zip(self._partitions, places, strict=True)}
        self._begin(firsts[self.topics[LEDGER], 0])
        self._tail.follow(self.topics[LEDGER], 0, self._next, self._feed)
        await self.catch_up()
        self._is_live = True

    def close(self, error: BrokerError) -> None:
        """Follow no more; whoever waits gets *error*."""
        self._tail.leave(self.topics[LEDGER], 0)
        self.fail(error)

    def fail(self, error: BrokerError) -> None:
        """Whoever waits gets *error*, for nobody knows what became of it."""
        waiting, self._waiting = self._waiting, {}
        reached, self._reached = self._reached, []
        futures: list[asyncio.Future[Any]] = [*waiting.values(), *(future for _, future in reached)]
        for future in futures:
            if not future.done():
                future.set_exception(error)

    # --- looking ---

    async def catch_up(self) -> None:
        """Return when all is known that was written before now, messages too."""
        places = {(self.topics[lane], partition): (lane, partition) for lane, partition in self._partitions}
        ends = await self._link.ends([*places, (self.topics[LEDGER], 0)])
        for place, key in places.items():
            self.see(*key, ends[place])
        end = ends[self.topics[LEDGER], 0]
        await self._reach(end)

    async def _reach(self, end: int) -> None:
        """Return when all events before offset *end* are known."""
        if self.ledger is None or self._next < end:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._reached.append((end, future))
            await within(2 * ANSWER_WITHIN, future, otherwise=self._lag)

    def see(self, lane: int, partition: int, end: int) -> None:
        """There are messages up to this offset."""
        self._ahead[lane, partition] = max(end, self._ahead.get((lane, partition), 0))

    @property
    def ends(self) -> list[tuple[int, int, int, int]]:
        """All that is known of where the lanes end."""
        return [
            (lane, partition, self._lows.get((lane, partition), 0), self._ahead.get((lane, partition), 0))
            for lane, partition in self._partitions
        ]

    @property
    def now(self) -> int:
        """What the broker's clock says now, as far as can be told, in milliseconds since the Unix epoch."""
        return self._clock.now(_here())

    @property
    def known(self) -> Ledger:
        """The ledger. Raises BrokerUnavailableError while it is not read."""
        if self.ledger is None:
            raise self._lag()
        return self.ledger

    # --- writing ---

    def new_op(self) -> str:
        """A name for a call."""
        self._count += 1
        return f"{self._owner}.{self._count:x}"

    async def take(self, limit: int, length: int) -> list[Taken]:
        """Lock up to *limit* messages for *length* milliseconds. Raises BrokerUnavailableError: then nobody knows."""
        take = Take(self.new_op(), limit, length, self.ends)
        try:
            return cast("list[Taken]", await self._call(take))
        except BrokerError:
            self._unsure.add(take.op)  # whoever reads the ledger anew finds it there, or never
            raise

    async def settle(self, event: Complete | Abandon | Bury | Renew) -> list[str]:
        """Write *event*: the tokens that are lost. Raises BrokerUnavailableError: then nobody knows."""
        return cast("list[str]", await self._call(event))

    async def count(self, event: Redrive | Purge) -> int:
        """Write *event*: how many dead letters it was. Raises BrokerUnavailableError: then nobody knows."""
        return cast("int", await self._call(event))

    async def _call(self, event: Take | Complete | Abandon | Bury | Renew | Redrive | Purge) -> Outcome:
        op = event.op
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[op] = future
        self._begun[op] = _here()
        try:
            written = self._link.begin([self._record(event)])
            written.future.add_done_callback(lambda done: _pass_on(done, future))
            return await within(2 * ANSWER_WITHIN, future, otherwise=self._lag)
        finally:
            self._waiting.pop(op, None)
            self._begun.pop(op, None)

    def _record(self, event: Event) -> Record:
        return Record(self.topics[LEDGER], encode(event), [], partition=0)

    # --- what comes ---

    def _begin(self, offset: int) -> None:
        """Read from *offset* on: from the first event that there ever was, or from the next snapshot."""
        self._next = offset
        self._early.clear()
        self.ledger = Ledger() if offset == 0 else None

    def _feed(self, records: list[Any]) -> None:
        for record in records:
            offset, written = record.offset(), record.timestamp()[1]
            if offset != self._next:
                self._begin(offset)
            self._next = offset + 1
            event = decode(record.value())
            self._note_time(written, event)
            if isinstance(event, Snapshot):
                self._find(event, offset)
            if self.ledger is None:
                self._early.append((offset, written, event))
            else:
                self._apply(offset, written, event)
        for end, future in self._reached:
            if self.ledger is not None and end <= self._next and not future.done():
                future.set_result(None)
        self._reached = [(end, future) for end, future in self._reached if not future.done()]
        for listener in self.listeners:
            listener()

    def _note_time(self, written: int, event: Event | None) -> None:
        here, begun = _here(), self._begun.get(getattr(event, "op", ""))
        if begun is not None:
            self._clock.note_ours(written, begun, here)
        elif self._is_live:
            self._clock.note(written, here)
        else:
            self._clock.note_old(written, here)

    def _find(self, event: Snapshot, offset: int) -> None:
        self._since_snapshot = 0
        first = self._early[0][0] if self._early else offset
        if self.ledger is None and first <= event.at <= offset:
            try:
                self.ledger = Ledger.restored(event.state)
            except (ValueError, TypeError, LookupError):  # not written by us; there may be another one
                _log.warning("a snapshot in %s at %d cannot be read", self.topics[LEDGER], offset)
                return
            early, self._early = self._early, []
            for one in early:
                if one[0] >= event.at:
                    self._apply(*one)

    def _apply(self, offset: int, written: int, event: Event | None) -> None:
        try:
            outcome = self.known.apply(offset, written, event)
        except Exception:  # all who read it fail alike, and must read on
            _log.exception("an event in %s at %d cannot be applied", self.topics[LEDGER], offset)
            outcome = 0
        op = getattr(event, "op", None)
        if op is not None and (op.startswith(self._owner) or op in self._unsure):
            self._unsure.discard(op)
            future = self._waiting.get(op)
            if future is not None and not future.done():
                future.set_result(outcome)
            elif isinstance(event, Take) and outcome:
                self._stray(self, cast("list[Taken]", outcome))
        self._since_snapshot += 1
        if self._since_snapshot >= self._snapshot_after:
            self._since_snapshot = 0
            self._spawn(self._trim())

    async def _trim(self) -> None:
        """Write the state, and delete what nobody needs any more."""
        if self.ledger is None:
            return
        at, announced = self._next, snapshot(self.ledger, self._next)
        ((_, offset),) = await self._link.write([self._record(announced)])
        await self._reach(offset + 1)
        # What others buried before they read the announcement lies below it perhaps.
        floors = self.known.floors()
        floors[DEAD, 0] = min(floors[DEAD, 0], announced.graves_from)
        request = [TopicPartition(self.topics[LEDGER], 0, at)]
        request += [
            TopicPartition(self.topics[lane], part, offset) for (lane, part), offset in floors.items() if offset
        ]
        futures = self._link.admin.delete_records(request, request_timeout=ANSWER_WITHIN)
        await self._link.answers("delete records", futures)

    def _lag(self) -> BrokerUnavailableError:
        text = f"{self._link.location.shown}: the ledger of {self.queue!r} ({self.topics[LEDGER]}) cannot be read"
        if self._early:
            text += " from its beginning, and holds no snapshot: were records of it deleted? Delete its topics"
        self._link.suspect()
        return BrokerUnavailableError(text)


def _here() -> int:
    """Milliseconds by a clock that nobody sets."""
    return time.monotonic_ns() // 1_000_000


def _pass_on(written: asyncio.Future[Any], waiting: asyncio.Future[Outcome]) -> None:
    """What was not written will not come back."""
    if not written.cancelled() and (error := written.exception()) is not None and not waiting.done():
        waiting.set_exception(error)


def places_of(replica: Replica, positions: list[Position]) -> list[tuple[str, int, int]]:
    """Where *positions* lie."""
    return [(replica.topics[lane], partition, offset) for lane, partition, offset in positions]
