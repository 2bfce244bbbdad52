"""The queues of the double, in an SQLite file, so that a restart finds them; locks live as long as its process.

Times are seconds since the Unix epoch, and come in as arguments.
"""

from __future__ import annotations

import heapq
import itertools
import sqlite3
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from dumbwaiter.testing.servers.servicebus.kept import Kept
from dumbwaiter.testing.servers.servicebus.queue_settings import Settings

DEAD = "/$deadletterqueue"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS queues (name TEXT PRIMARY KEY, shown TEXT, settings TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    entity TEXT, number INTEGER, raw BLOB, enqueued REAL, due REAL, count INTEGER, reason TEXT, description TEXT,
    PRIMARY KEY (entity, number)) WITHOUT ROWID;
"""


class LockLostError(Exception):
    """No such lock is held, or no more."""


@dataclass(slots=True)
class Entity:
    """A queue, or its dead-letter queue: *name* is in lower case, for names are told apart without regard to that."""

    name: str
    settings: Settings
    kept: dict[int, Kept] = field(default_factory=dict)
    ready: list[int] = field(default_factory=list)
    scheduled: list[tuple[float, int]] = field(default_factory=list)
    locks: dict[uuid.UUID, tuple[int, float]] = field(default_factory=dict)

    @property
    def is_dead_letters(self) -> bool:
        return self.name.endswith(DEAD)


class Store:
    """All queues. Any thread may call; what it returns is live, so hold *lock* while you look at it."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self.entities: dict[str, Entity] = {}
        self.shown: dict[str, str] = {}
        self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # Kill -9 of this process costs nothing that was committed; that of the whole machine is no matter of a test.
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = NORMAL")
        self._file.executescript(_SCHEMA)
        for name, shown, settings in self._file.execute("SELECT name, shown, settings FROM queues"):
            self._add(name, shown, Settings.read(settings))
        rows = self._file.execute("SELECT * FROM messages ORDER BY number").fetchall()
        for entity, *values in rows:
            kept = Kept(*values)
            self._place(self.entities[entity], kept)
        self._numbers = itertools.count(1 + max((row[1] for row in rows), default=0))

    # --- queues ---

    def create(self, name: str, settings: Settings) -> bool:
        """Make a queue; False if there is one of that name already."""
        with self.lock:
            if name.lower() in self.entities:
                return False
            self._add(name.lower(), name, settings)
            self._file.execute("INSERT INTO queues VALUES (?, ?, ?)", (name.lower(), name, settings.written()))
            return True

    def delete(self, name: str) -> bool:
        """Drop a queue and all in it; False if there is none."""
        with self.lock:
            if name.lower() not in self.shown:
                return False
            for entity in (name.lower(), name.lower() + DEAD):
                del self.entities[entity]
                self._file.execute("DELETE FROM messages WHERE entity = ?", (entity,))
            del self.shown[name.lower()]
            self._file.execute("DELETE FROM queues WHERE name = ?", (name.lower(),))
            return True

    def _add(self, name: str, shown: str, settings: Settings) -> None:
        self.shown[name] = shown
        for entity in (name, name + DEAD):
            self.entities[entity] = Entity(entity, settings)

    # --- messages ---

    def send(self, entity: Entity, messages: list[tuple[bytes, float]], now: float) -> list[int]:
        """Keep *messages*, each with the time when it is due: all or none. Returns their sequence numbers."""
        kept = [Kept(next(self._numbers), raw, max(now, due), due if due > now else 0.0) for raw, due in messages]
        with self.lock:
            rows = [(entity.name, one.number, one.raw, one.enqueued, one.due, 0, "", "") for one in kept]
            self._file.execute("BEGIN")
            self._file.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._file.execute("COMMIT")
            for one in kept:
                self._place(entity, one)
        return [one.number for one in kept]

    def cancel(self, entity: Entity, number: int) -> bool:
        """Forget a message that is scheduled; False if there is none of that number."""
        with self.lock:
            if number not in entity.kept or not entity.kept[number].due:
                return False
            self._forget(entity, number)
            return True

    def take(self, entity: Entity, now: float) -> tuple[uuid.UUID, Kept] | None:
        """Lock the oldest message that is ready."""
        with self.lock:
            while entity.ready:
                number = heapq.heappop(entity.ready)
                if number in entity.kept:
                    token = uuid.uuid4()
                    entity.locks[token] = (number, now + entity.settings.lock_seconds)
                    return token, entity.kept[number]
            return None

    def locked_until(self, entity: Entity, token: uuid.UUID) -> float:
        return entity.locks[token][1]

    def renew(self, entity: Entity, token: uuid.UUID, now: float) -> float:
        """Lock for another while; until when. Raises LockLostError."""
        with self.lock:
            number = self._held(entity, token, now)
            entity.locks[token] = (number, now + entity.settings.lock_seconds)
            return entity.locks[token][1]

    def complete(self, entity: Entity, token: uuid.UUID, now: float) -> None:
        """Remove the message. Raises LockLostError, as the other two do."""
        with self.lock:
            number = self._held(entity, token, now)
            del entity.locks[token]
            self._forget(entity, number)

    def abandon(self, entity: Entity, token: uuid.UUID, now: float, *, counted: bool = True) -> None:
        """Hand the message back to its place."""
        with self.lock:
            self._held(entity, token, now)
            self._hand_back(entity, token, counted=counted)

    def dead_letter(self, entity: Entity, token: uuid.UUID, now: float, reason: str, description: str) -> None:
        """Move the message to the dead-letter queue."""
        with self.lock:
            number = self._held(entity, token, now)
            del entity.locks[token]
            self._bury(entity, number, reason, description)

    def tick(self, now: float) -> list[Entity]:
        """End the locks that are over, and enqueue what is due. Returns those that have something ready now."""
        changed: list[Entity] = []
        with self.lock:
            for entity in list(self.entities.values()):
                over = [token for token, (_, until) in entity.locks.items() if until <= now]
                for token in over:
                    self._hand_back(entity, token, counted=True)
                while entity.scheduled and entity.scheduled[0][0] <= now:
                    _, number = heapq.heappop(entity.scheduled)
                    if number in entity.kept:
                        entity.kept[number].due = 0.0
                        self._place(entity, entity.kept[number])
                if entity.ready:
                    changed.append(entity)
        return changed

    def _held(self, entity: Entity, token: uuid.UUID, now: float) -> int:
        number, until = entity.locks.get(token, (0, 0.0))
        if until <= now or number not in entity.kept:
            raise LockLostError
        return number

    def _hand_back(self, entity: Entity, token: uuid.UUID, *, counted: bool) -> None:
        number, _ = entity.locks.pop(token)
        kept = entity.kept.get(number)
        if kept is None:
            return
        if counted:
            kept.count += 1
            self._file.execute(
                "UPDATE messages SET count = ? WHERE entity = ? AND number = ?", (kept.count, entity.name, number)
            )
            if kept.count >= entity.settings.max_delivery_count and not entity.is_dead_letters:
                text = f"Message could not be consumed after {kept.count} delivery attempts."
                self._bury(entity, number, "MaxDeliveryCountExceeded", text)
                return
        heapq.heappush(entity.ready, number)

    def _bury(self, entity: Entity, number: int, reason: str, description: str) -> None:
        dead = self.entities[entity.name.removesuffix(DEAD) + DEAD]
        kept = entity.kept.pop(number)
        kept.reason, kept.description = reason, description
        self._file.execute(
            "UPDATE messages SET entity = ?, reason = ?, description = ? WHERE entity = ? AND number = ?",
            (dead.name, reason, description, entity.name, number),
        )
        self._place(dead, kept)

    def _forget(self, entity: Entity, number: int) -> None:
        del entity.kept[number]
        self._file.execute("DELETE FROM messages WHERE entity = ? AND number = ?", (entity.name, number))

    def _place(self, entity: Entity, kept: Kept) -> None:
        entity.kept[kept.number] = kept
        if kept.due:
            heapq.heappush(entity.scheduled, (kept.due, kept.number))
        else:
            heapq.heappush(entity.ready, kept.number)
