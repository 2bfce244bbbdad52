"""Who holds which message of a queue: what follows from the events of its ledger, in their order. Pure.

Everybody who serves a queue reads the same events in the same order, and so comes to the same result. Nobody decides
by a clock of its own: time is what the broker wrote beside the events, and never goes back.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec

from dumbwaiter.brokers.kafka.events import (
    Abandon,
    Bury,
    Complete,
    Event,
    Lock,
    Part,
    Position,
    Postpone,
    Purge,
    Redrive,
    Renew,
    Seen,
    Snapshot,
    State,
    Take,
)
from dumbwaiter.brokers.kafka.names import DEAD
from dumbwaiter.policies.lanes import LANES, order

_REMEMBERED = 2000
"""So many tokens that were settled for good are known still."""


class Taken(msgspec.Struct, frozen=True, gc=False):
    """A message that a Take got: its *token* and *position*, and which delivery it is, counted from 1."""

    token: str
    position: Position
    count: int


class Counts(msgspec.Struct, frozen=True, gc=False):
    """How many messages are in which state."""

    ready: int
    locked: int
    delayed: int
    dead: int


Outcome: TypeAlias = list[Taken] | list[str] | int
"""What a Take got; the tokens that were lost, of those that a settlement named; or how many dead letters it was."""


class Ledger:
    """The state of one queue, after the events that were given to apply()."""

    def __init__(self) -> None:
        self.now = 0
        self._turn = 0
        self._parts: dict[tuple[int, int], Part] = {}
        self._ready: list[list[tuple[int, int, Position]]] = [[] for _ in range(LANES)]
        self._delayed: list[tuple[int, Position, int]] = []
        self._locks: dict[str, Lock] = {}
        self._ends: list[tuple[int, str]] = []
        self._counts: dict[Position, int] = {}
        self._settled: OrderedDict[str, None] = OrderedDict()
        self.dead: dict[int, int] = {}
        self._graves_from = self._graves_to = 0
        self._offset = 0
        self._doing: dict[type, Callable[[Any], Outcome]] = {
            Seen: lambda event: self._see((lane, part, 0, end) for lane, part, _, end in event.ends),
            Postpone: self._postpone,
            Take: self._take,
            Complete: self._complete,
            Abandon: self._abandon,
            Bury: self._bury,
            Renew: self._renew,
            Redrive: self._redrive,
            Purge: self._purge,
            Snapshot: self._announce,
        }

    def apply(self, offset: int, time: int, event: Event | None) -> Outcome:
        """Note *event*, which stands at *offset* of the ledger and was written at *time*."""
        self._advance(max(self.now, time))
        self._offset = offset
        do = self._doing.get(type(event))
        return 0 if do is None else do(event)

    # --- looking ---

    def is_held(self, token: str) -> bool:
        """Whether a message is locked under *token*."""
        return token in self._locks

    def counts(self, now: int, ends: Iterable[tuple[int, int, int, int]] = ()) -> Counts:
        """How things stand at *now*, no event written since; *ends* are messages that the ledger may not know of."""
        over = sum(lock.until <= now for lock in self._locks.values())
        due = sum(until <= now for until, _, _ in self._delayed)
        return Counts(
            ready=self._fresh(ends) + sum(map(len, self._ready)) + over + due,
            locked=len(self._locks) - over,
            delayed=len(self._delayed) - due,
            dead=len(self.dead),
        )

    def has_ready(self, now: int, ends: Iterable[tuple[int, int, int, int]] = ()) -> bool:
        """Whether counts() has any that are ready."""
        change = self.next_change()
        return any(self._ready) or (change is not None and change <= now) or self._fresh(ends) > 0

    def next_change(self) -> int | None:
        """When the next lock or delay ends, if any."""
        while self._ends and not self._is_end(*self._ends[0]):
            heapq.heappop(self._ends)
        return min((heap[0][0] for heap in (self._ends, self._delayed) if heap), default=None)

    def oldest(self, now: int, ends: Iterable[tuple[int, int, int, int]] = ()) -> list[Position]:
        """Ready messages at *now* among which the oldest one is; *ends* as above."""
        oldest: dict[tuple[int, int], int] = {}
        for lane, partition, low, end in ends:
            part = self._parts.get((lane, partition), Part(low, end, set()))
            first = max(low, part.next)
            while first in part.skipped:
                first += 1
            if first < max(end, part.end):
                oldest[lane, partition] = first
        waiting = [position for lane in self._ready for _, _, position in lane]
        waiting += [lock.position for lock in self._locks.values() if lock.until <= now]
        waiting += [position for until, position, _ in self._delayed if until <= now]
        for lane, partition, offset in waiting:
            oldest[lane, partition] = min(offset, oldest.get((lane, partition), offset))
        return [(lane, partition, offset) for (lane, partition), offset in oldest.items()]

    def floors(self) -> dict[tuple[int, int], int]:
        """For each lane (and DEAD) and partition, the offset below which nothing is needed any more."""
        floors = {key: part.next for key, part in self._parts.items()} | {(DEAD, 0): self._graves_to}
        used = [position for lane in self._ready for _, _, position in lane]
        used += [lock.position for lock in self._locks.values()]
        used += [position for _, position, _ in self._delayed]
        used += [(DEAD, 0, offset) for offset in self.dead]
        for lane, partition, offset in used:
            floors[lane, partition] = min(offset, floors.get((lane, partition), offset))
        return floors

    # --- snapshots ---

    def state(self) -> State:
        """All of it."""
        return State(
            now=self.now,
            turn=self._turn,
            parts={f"{lane}.{partition}": part for (lane, partition), part in self._parts.items()},
            ready=self._ready,
            delayed=self._delayed,
            locks=self._locks,
            counts=list(self._counts.items()),
            settled=list(self._settled),
            dead=self.dead,
            graves_from=self._graves_from,
            graves_to=self._graves_to,
        )

    @classmethod
    def restored(cls, state: State) -> Ledger:
        """The ledger whose state() this is; *state* was read, and belongs to it from now on."""
        ledger = cls()
        ledger.now, ledger._turn = state.now, state.turn
        for name, part in state.parts.items():
            lane, _, partition = name.partition(".")
            ledger._parts[int(lane), int(partition)] = part
        ledger._ready, ledger._delayed, ledger._locks = state.ready, state.delayed, state.locks
        ledger._ends = [(lock.until, token) for token, lock in state.locks.items()]
        heapq.heapify(ledger._ends)
        ledger._counts = dict(state.counts)
        ledger._settled = OrderedDict.fromkeys(state.settled)
        ledger.dead = state.dead
        ledger._graves_from, ledger._graves_to = state.graves_from, state.graves_to
        return ledger

    # --- events ---

    def _advance(self, now: int) -> None:
        """Locks and delays that are over by *now* end."""
        self.now = now
        while self._delayed and self._delayed[0][0] <= now:
            _, position, lane = heapq.heappop(self._delayed)
            self._make_ready(position, lane)
        while self._ends and self._ends[0][0] <= now:
            until, token = heapq.heappop(self._ends)
            if self._is_end(until, token):
                self._release(token, counted=True, delay=0)

    def _is_end(self, until: int, token: str) -> bool:
        """A lock that was renewed stands in the heap a second time, and the first time is no end."""
        lock = self._locks.get(token)
        return lock is not None and lock.until == until

    def _see(self, ends: Iterable[tuple[int, int, int, int]]) -> int:
        for lane, partition, low, end in ends:
            part = self._parts.setdefault((lane, partition), Part(0, 0, set()))
            part.end = max(part.end, end)
            if low > part.next:  # what is not kept any more, nobody can be given
                part.next = low
                part.skipped = {offset for offset in part.skipped if offset >= low}
        return 0

    def _postpone(self, event: Postpone) -> int:
        for lane, partition, offset in event.positions:
            self._see([(lane, partition, 0, offset + 1)])
            part = self._parts[lane, partition]
            if offset >= part.next and offset not in part.skipped:  # otherwise somebody has it, and reads the delay
                part.skipped.add(offset)
                heapq.heappush(self._delayed, (event.until, (lane, partition, offset), lane))
        return 0

    def _take(self, event: Take) -> list[Taken]:
        self._see(event.ends)
        taken: list[Taken] = []
        until = self.now + event.length
        while len(taken) < event.limit and (found := self._pop()) is not None:
            position, lane = found
            # The offset alone is that of another Take where the topic was deleted and made anew.
            token = f"{event.op}.{self._offset:x}.{len(taken):x}"
            count = self._counts.pop(position, 0) + 1
            self._locks[token] = Lock(position, lane, until, count)
            heapq.heappush(self._ends, (until, token))
            taken.append(Taken(token, position, count))
        return taken

    def _pop(self) -> tuple[Position, int] | None:
        for lane in order(self._turn):
            if (position := self._pop_of(lane)) is not None:
                self._turn += 1
                return position, lane
        return None

    def _pop_of(self, lane: int) -> Position | None:
        if self._ready[lane]:
            return heapq.heappop(self._ready[lane])[2]
        fresh = [(key[1], part) for key, part in self._parts.items() if key[0] == lane and _has_fresh(part)]
        if not fresh:
            return None
        fresh.sort(key=lambda one: one[0])
        partition, part = fresh[self._turn % len(fresh)]
        part.next += 1
        return lane, partition, part.next - 1

    def _complete(self, event: Complete) -> list[str]:
        lost = self._lost(event.tokens)
        for token in event.tokens:
            self._settle(token)
        return lost

    def _abandon(self, event: Abandon) -> list[str]:
        lost = self._lost(event.tokens)
        for token in event.tokens:
            if token in self._locks:
                self._release(token, counted=event.counted, delay=event.delay)
        return lost

    def _bury(self, event: Bury) -> list[str]:
        # A copy that waited too long for its burial may be deleted already: then its message is not dead yet.
        lost = [token for token, grave in event.graves if grave < self._graves_from and token in self._locks]
        lost += self._lost([token for token, _ in event.graves])
        for token, grave in event.graves:
            if token in self._locks and grave >= self._graves_from:
                self.dead[grave] = self._locks[token].lane
                self._graves_to = max(self._graves_to, grave + 1)
                self._settle(token)
        return lost

    def _announce(self, event: Snapshot) -> int:
        self._graves_from = max(self._graves_from, event.graves_from)
        return 0

    def _renew(self, event: Renew) -> list[str]:
        until = self.now + event.length
        for token in event.tokens:
            if (lock := self._locks.get(token)) is not None and until > lock.until:
                lock.until = until
                heapq.heappush(self._ends, (until, token))
        return [token for token in event.tokens if token not in self._locks]

    def _redrive(self, event: Redrive) -> int:
        count = 0
        for offset in self._named(event.offsets):
            lane = self.dead.pop(offset, None)
            if lane is not None:
                self._make_ready((DEAD, 0, offset), lane)
                count += 1
        return count

    def _purge(self, event: Purge) -> int:
        return sum(self.dead.pop(offset, None) is not None for offset in self._named(event.offsets))

    def _named(self, offsets: list[int] | None) -> list[int]:
        return list(self.dead) if offsets is None else offsets

    def _lost(self, tokens: list[str]) -> list[str]:
        return [token for token in tokens if token not in self._locks and token not in self._settled]

    def _settle(self, token: str) -> None:
        if self._locks.pop(token, None) is not None:
            self._settled[token] = None
            if len(self._settled) > _REMEMBERED:
                self._settled.popitem(last=False)

    def _release(self, token: str, *, counted: bool, delay: int) -> None:
        lock = self._locks.pop(token)
        if count := lock.count - (0 if counted else 1):
            self._counts[lock.position] = count
        if delay > 0:
            heapq.heappush(self._delayed, (self.now + delay, lock.position, lock.lane))
        else:
            self._make_ready(lock.position, lock.lane)

    def _make_ready(self, position: Position, lane: int) -> None:
        # What was dead is older than all that its lane holds; the others have their old place.
        heapq.heappush(self._ready[lane], (int(position[0] != DEAD), position[2], position))

    def _fresh(self, ends: Iterable[tuple[int, int, int, int]]) -> int:
        known = {key: part.end for key, part in self._parts.items()}
        lows: dict[tuple[int, int], int] = {}
        for lane, partition, low, end in ends:
            known[lane, partition] = max(known.get((lane, partition), 0), end)
            lows[lane, partition] = low
        return sum(self._fresh_of(key, lows.get(key, 0), end) for key, end in known.items())

    def _fresh_of(self, key: tuple[int, int], low: int, end: int) -> int:
        part = self._parts.get(key)
        if part is None:
            return end - low
        return max(0, end - max(low, part.next) - len(part.skipped))


def _has_fresh(part: Part) -> bool:
    """Whether *part* has a message that nobody has taken yet; *next* is one then."""
    while part.next < part.end and part.next in part.skipped:
        part.skipped.discard(part.next)
        part.next += 1
    return part.next < part.end


def snapshot(ledger: Ledger, at: int) -> Snapshot:
    """*ledger*, which has applied all events before *at*."""
    return Snapshot(at, ledger.state(), ledger.floors()[DEAD, 0])
