"""One queue as one broker object sees it: its ledger, those who wait for it, its counts and its dead letters."""

from __future__ import annotations

from collections.abc import Sequence

from dumbwaiter.brokers.kafka.events import Position, Purge, Redrive
from dumbwaiter.brokers.kafka.names import DEAD
from dumbwaiter.brokers.kafka.reader import Reader
from dumbwaiter.brokers.kafka.reception import Reception
from dumbwaiter.brokers.kafka.replica import Replica, places_of
from dumbwaiter.brokers.kafka.wire import is_key, key_of, letter_of, offsets_of
from dumbwaiter.errors import DeadLetterNotFoundError
from dumbwaiter.message import DeadLetter, QueueStats


class Queue:
    """*replica*'s queue."""

    def __init__(self, replica: Replica, reader: Reader, reception: Reception) -> None:
        self.replica = replica
        self.reception = reception
        self._reader = reader
        self._written: dict[Position, int | None] = {}

    async def stats(self) -> QueueStats:
        """As the contract says."""
        await self.replica.catch_up()
        now = self.replica.now
        counts = self.replica.known.counts(now, self.replica.ends)
        return QueueStats(
            ready=counts.ready,
            locked=counts.locked,
            delayed=counts.delayed,
            dead=counts.dead,
            oldest_age=await self._oldest_age(now) if counts.ready else 0.0,
        )

    async def _oldest_age(self, now: int) -> float:
        oldest = self.replica.known.oldest(now, self.replica.ends)
        missing = [position for position in oldest if position not in self._written]
        found = await self._reader.read(places_of(self.replica, missing))
        pairs = zip(missing, found, strict=True)
        written = {position: None if one is None else one.written for position, one in pairs}
        self._written = {position: self._written.get(position) for position in oldest} | written
        times = [one for one in self._written.values() if one is not None]
        return max(0.0, (now - min(times)) / 1000) if times else 0.0

    # --- dead letters ---

    async def dead_letters(self, limit: int, after: str | None) -> list[DeadLetter]:
        """As the contract says."""
        queue = self.replica.queue
        if after is not None and not is_key(after):
            raise DeadLetterNotFoundError(queue, [after])
        await self.replica.catch_up()
        behind = -1 if after is None else int(after)
        offsets = sorted(offset for offset in self.replica.known.dead if offset > behind)[: max(0, limit)]
        found = await self._reader.read(places_of(self.replica, [(DEAD, 0, offset) for offset in offsets]))
        pairs = zip(offsets, found, strict=True)
        return [letter_of(queue, key_of(offset), one) for offset, one in pairs if one is not None]

    async def is_dead_letter(self, key: str) -> bool:
        """As the contract says."""
        await self.replica.catch_up()
        return is_key(key) and int(key) in self.replica.known.dead

    async def redrive(self, keys: Sequence[str] | None) -> int:
        """As the contract says. They are served from the topic of dead letters, so nothing is sent twice."""
        offsets = None if keys is None else offsets_of(keys)
        return await self.replica.count(Redrive(self.replica.new_op(), offsets)) if offsets != [] else 0

    async def purge(self, keys: Sequence[str] | None) -> int:
        """As the contract says."""
        offsets = None if keys is None else offsets_of(keys)
        return await self.replica.count(Purge(self.replica.new_op(), offsets)) if offsets != [] else 0
