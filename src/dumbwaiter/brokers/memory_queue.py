"""One peek-lock queue as a pure state machine: no clock, no asyncio, no threads; *now* comes in as an argument.

*now* is in seconds on any clock that never runs backwards. Every verb costs O(log n) at most.

    send ──► DELAYED ──► READY ──take──► LOCKED ──complete──► (gone, its id remembered for a while)
                ▲          ▲ ▲             │ │
                │          │ └─lock expiry─┘ ├──dead_letter──► dead ──redrive──► READY
                └──abandon(delay)──abandon───┘                  └──purge──► (gone, its id forgotten)

A lock that ran out still settles while nobody has taken the message since: its work is done, so why do it again.
It cannot be renewed, though.
"""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from collections import OrderedDict
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

from dumbwaiter.errors import DeadLetterNotFoundError
from dumbwaiter.message import DeadLetter, Delivery, Message, QueueStats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

REMEMBER_SECONDS = 600.0
"""How long the id of a message that is gone keeps a resend of it out."""
REMEMBER_COUNT = 100_000
"""At most so many ids are remembered, so that memory stays bounded (some 20 MB)."""


_KEY = re.compile(r"[1-9][0-9]{0,17}")


class _Place(Enum):
    READY = auto()
    DELAYED = auto()
    LOCKED = auto()
    OUT = auto()


class _Entry:
    """A message in the queue. *since* (when it first became ready) and *seq* are its place in line and never change."""

    __slots__ = (
        "count",
        "handed_out",
        "lock_duration",
        "locked_until",
        "message",
        "owner",
        "place",
        "seq",
        "since",
        "token",
    )

    def __init__(self, message: Message, seq: int, since: float) -> None:
        self.message = message
        self.seq = seq
        self.since = since
        self.place = _Place.OUT
        self.count = 0
        self.handed_out = 0
        self.token = ""
        self.locked_until = 0.0
        self.lock_duration = 0.0
        self.owner: object = None


class MemoryQueue:
    """The state of the queue *name* and of its dead letters. *salt* keeps its lock tokens apart from other servers'."""

    def __init__(self, name: str, *, salt: str = "") -> None:
        self.name = name
        self._salt = salt
        self._seq = 0
        # One heap a priority; items are (since, seq, entry), and stale unless the entry is READY.
        self._heaps: dict[int, list[tuple[float, int, _Entry]]] = {}
        self._priorities: list[int] = []
        self._ready = 0
        self._delayed: list[tuple[float, int, _Entry]] = []
        # One line a lock duration: with equal durations, locks run out in the order in which they were taken.
        self._locks: dict[float, OrderedDict[int, _Entry]] = {}
        self._by_token: dict[str, _Entry] = {}
        # By message id; those of the dead too.
        self._present: dict[str, _Entry] = {}
        self._gone: OrderedDict[str, float] = OrderedDict()
        # By number, in the order in which they died.
        self._deaths = 0
        self._dead: dict[int, DeadLetter] = {}

    # --- sending and taking ---

    def send(self, messages: Iterable[Message], *, delay: float, now: float) -> None:
        """Append *messages*, ready *delay* seconds from now; those whose id is or lately was here are dropped."""
        self._forget(now)
        since = now + max(delay, 0.0)
        for message in messages:
            if message.id in self._present or message.id in self._gone:
                continue
            self._append(message, since, now)

    def take(self, max_messages: int, *, lock_duration: float, owner: object, now: float) -> list[Delivery]:
        """Lock up to *max_messages* for *owner*: larger priority first, then the older."""
        self._advance(now)
        deliveries: list[Delivery] = []
        while len(deliveries) < max_messages and (entry := self._pop_ready()) is not None:
            self._by_token.pop(entry.token, None)
            entry.count += 1
            entry.handed_out += 1
            entry.token = f"{self._salt}{entry.seq}.{entry.handed_out}"
            entry.owner = owner
            self._by_token[entry.token] = entry
            self._lock(entry, lock_duration, now)
            deliveries.append(self._delivery(entry))
        return deliveries

    # --- settling: False means that somebody else holds the message by now ---

    def complete(self, delivery: Delivery, *, now: float) -> bool:
        """Remove the message for good; True also when it is gone already."""
        self._advance(now)
        entry = self._pull(delivery)
        if entry is None:
            return delivery.message.id not in self._present
        self._remember(entry.message.id, now)
        return True

    def abandon(self, delivery: Delivery, *, delay: float, counted: bool, now: float) -> bool:
        """Put the message back to its old place, *delay* seconds from now."""
        self._advance(now)
        entry = self._pull(delivery)
        if entry is None:
            return False
        if not counted:
            entry.count -= 1
        self._put(entry, now + delay, now)
        return True

    def dead_letter(self, delivery: Delivery, *, reason: str, detail: str, now: float, dead_at: float) -> bool:
        """Move the message to the dead letters; *dead_at* is in seconds since the Unix epoch."""
        self._advance(now)
        entry = self._pull(delivery)
        if entry is None:
            return False
        self._deaths += 1
        self._dead[self._deaths] = DeadLetter(
            key=str(self._deaths),
            message=entry.message,
            queue=self.name,
            reason=reason,
            detail=detail,
            delivery_count=entry.count,
            dead_at=dead_at,
        )
        return True

    def renew(self, delivery: Delivery, *, lock_duration: float, now: float) -> Delivery | None:
        """Lock the message for another *lock_duration* seconds; None when the lock ran out or moved on."""
        self._advance(now)
        entry = self._by_token.get(delivery.lock_token)
        if entry is None or entry.place is not _Place.LOCKED:
            return None
        del self._locks[entry.lock_duration][entry.seq]
        self._lock(entry, lock_duration, now)
        return self._delivery(entry)

    def release(self, owner: object, *, now: float) -> None:
        """Hand back at once, uncounted, whatever *owner* holds locked."""
        held = [entry for line in self._locks.values() for entry in line.values() if entry.owner is owner]
        for entry in held:
            self.abandon(self._delivery(entry), delay=0.0, counted=False, now=now)

    # --- looking ---

    def next_event(self) -> float | None:
        """When the next lock runs out or delay ends; None if nothing is locked or delayed."""
        times = [next(iter(line.values())).locked_until for line in self._locks.values() if line]
        if self._delayed:
            times.append(self._delayed[0][0])
        return min(times, default=None)

    def stats(self, *, now: float) -> QueueStats:
        """Counts now. O(priorities)."""
        self._advance(now)
        oldest = now
        for heap in self._heaps.values():
            while heap and heap[0][2].place is not _Place.READY:
                heappop(heap)
            if heap:
                oldest = min(oldest, heap[0][0])
        return QueueStats(
            ready=self._ready,
            locked=sum(len(line) for line in self._locks.values()),
            delayed=len(self._delayed),
            dead=len(self._dead),
            oldest_age=now - oldest,
        )

    def position(self, message_id: str, *, limit: int, now: float) -> int | None:
        """How many ready messages are taken before *message_id*, counted up to *limit*; None when it is not ready.

        O(what is counted), and O(n) where many locks ran out before they were settled.
        """
        self._advance(now)
        entry = self._present.get(message_id)
        if entry is None or entry.place is not _Place.READY:
            return None
        # An entry may lie in its heap more than once, see _pull().
        ahead: set[int] = set()
        for priority in reversed(self._priorities):
            if priority < entry.message.priority:
                break
            place = (entry.since, entry.seq) if priority == entry.message.priority else (inf, 0)
            for seq in _before(self._heaps[priority], place):
                ahead.add(seq)
                if len(ahead) >= limit:
                    return limit
        return len(ahead)

    def dead_letters(self, limit: int, *, after: str | None = None) -> list[DeadLetter]:
        """The oldest *limit* dead letters; only those behind the key *after*, which may be gone. O(n) with *after*."""
        if after is None:
            return list(islice(self._dead.values(), max(limit, 0)))
        if not _KEY.fullmatch(after):
            raise DeadLetterNotFoundError(self.name, [after])
        numbers = list(self._dead)
        first = bisect_right(numbers, int(after))
        return [self._dead[number] for number in numbers[first : first + max(limit, 0)]]

    def redrive(self, keys: Sequence[str] | None, *, now: float) -> int:
        """Append dead letters to the queue again, with a fresh delivery count; all if *keys* is None. How many."""
        letters = self._take_dead(keys)
        for letter in letters:
            self._append(letter.message, now, now)
        return len(letters)

    def purge(self, keys: Sequence[str] | None) -> int:
        """Delete dead letters, all if *keys* is None, and forget their ids. How many."""
        letters = self._take_dead(keys)
        for letter in letters:
            self._present.pop(letter.message.id, None)
        return len(letters)

    # --- moving entries ---

    def _append(self, message: Message, since: float, now: float) -> None:
        self._seq += 1
        entry = self._present[message.id] = _Entry(message, self._seq, since)
        self._put(entry, since, now)

    def _put(self, entry: _Entry, ready_at: float, now: float) -> None:
        if ready_at > now:
            entry.place = _Place.DELAYED
            heappush(self._delayed, (ready_at, entry.seq, entry))
            return
        entry.place = _Place.READY
        self._ready += 1
        priority = entry.message.priority
        heap = self._heaps.get(priority)
        if heap is None:
            heap = self._heaps[priority] = []
            insort(self._priorities, priority)
        heappush(heap, (entry.since, entry.seq, entry))

    def _pop_ready(self) -> _Entry | None:
        while self._priorities:
            heap = self._heaps[self._priorities[-1]]
            while heap:
                entry = heappop(heap)[2]
                if entry.place is _Place.READY:
                    self._ready -= 1
                    return entry
            del self._heaps[self._priorities.pop()]
        return None

    def _lock(self, entry: _Entry, lock_duration: float, now: float) -> None:
        entry.place = _Place.LOCKED
        entry.lock_duration = lock_duration
        entry.locked_until = now + lock_duration
        line = self._locks.get(lock_duration)
        if line is None:
            line = self._locks[lock_duration] = OrderedDict()
        line[entry.seq] = entry

    def _pull(self, delivery: Delivery) -> _Entry | None:
        """Take the message out of the queue, if *delivery* is the latest one of it."""
        entry = self._by_token.pop(delivery.lock_token, None)
        if entry is None:
            return None
        if entry.place is _Place.LOCKED:
            del self._locks[entry.lock_duration][entry.seq]
        else:
            self._ready -= 1  # its lock ran out; the item left in the heap is stale from now on
        entry.place = _Place.OUT
        entry.owner = None
        return entry

    def _advance(self, now: float) -> None:
        """Make ready what is due: locks that ran out, delays that ended."""
        for line in self._locks.values():
            while line and (entry := next(iter(line.values()))).locked_until <= now:
                del line[entry.seq]
                self._put(entry, now, now)
        while self._delayed and self._delayed[0][0] <= now:
            self._put(heappop(self._delayed)[2], now, now)

    def _delivery(self, entry: _Entry) -> Delivery:
        return Delivery(
            message=entry.message,
            queue=self.name,
            lock_token=entry.token,
            locked_until=entry.locked_until,
            delivery_count=entry.count,
        )

    # --- ids and dead letters ---

    def _remember(self, message_id: str, now: float) -> None:
        self._present.pop(message_id, None)
        self._gone[message_id] = now + REMEMBER_SECONDS
        if len(self._gone) > REMEMBER_COUNT:
            self._gone.popitem(last=False)

    def _forget(self, now: float) -> None:
        while self._gone and next(iter(self._gone.values())) <= now:
            self._gone.popitem(last=False)

    def _take_dead(self, keys: Sequence[str] | None) -> list[DeadLetter]:
        wanted = list(self._dead) if keys is None else [int(key) for key in keys if _KEY.fullmatch(key)]
        return [self._dead.pop(number) for number in wanted if number in self._dead]


def _before(heap: list[tuple[float, int, _Entry]], place: tuple[float, int]) -> Iterator[int]:
    """The numbers of the ready entries before *place*; a heap lets all that is behind it be passed over."""
    branches = [0]
    while branches:
        index = branches.pop()
        if index < len(heap) and heap[index][:2] < place:
            branches += (2 * index + 1, 2 * index + 2)
            entry = heap[index][2]
            if entry.place is _Place.READY:
                yield entry.seq
