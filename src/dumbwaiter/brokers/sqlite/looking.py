"""Reading without locks: statistics, dead letters, and the probes of waiting receives and inboxes."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from dumbwaiter.brokers.contract import POSITION_LIMIT
from dumbwaiter.brokers.sqlite.rows import decode_leniently, seq_of, text
from dumbwaiter.brokers.sqlite.schema import DEAD, DELAYED, LOCKED, READY, connect
from dumbwaiter.brokers.sqlite.writer import unavailable
from dumbwaiter.errors import DeadLetterNotFoundError, QueueNotFoundError
from dumbwaiter.message import DeadLetter, QueueStats, is_queue_name

if TYPE_CHECKING:
    from pathlib import Path

    from dumbwaiter.brokers.sqlite.location import OpenFile

#: Counting a million messages takes 30 ms. When counting takes longer than this, a count is used for a second.
_COSTLY_COUNT_SECONDS = 0.005
_COUNT_LIFETIME_SECONDS = 1.0

_PROBE = f"""
SELECT
    EXISTS (SELECT 1 FROM header INDEXED BY ready WHERE queue = ?1 AND state = {READY}),
    (SELECT min(until) FROM header INDEXED BY locked WHERE queue = ?1 AND state = {LOCKED}),
    (SELECT min(until) FROM header INDEXED BY delayed WHERE queue = ?1 AND state = {DELAYED})
"""

# The oldest of each priority is the first in the ready index; a recursion hops from priority to priority.
_OLDEST_READY = f"""
WITH RECURSIVE level (priority) AS (
    SELECT (SELECT max(priority) FROM header INDEXED BY ready WHERE queue = ?1 AND state = {READY})
    UNION ALL
    SELECT (
        SELECT max(priority) FROM header INDEXED BY ready
        WHERE queue = ?1 AND state = {READY} AND priority < level.priority
    ) FROM level WHERE level.priority IS NOT NULL
)
SELECT min((
    SELECT sent_at FROM header INDEXED BY ready
    WHERE queue = ?1 AND state = {READY} AND priority = level.priority ORDER BY seq LIMIT 1
)) FROM level WHERE priority IS NOT NULL
"""

_COUNTS = f"""
SELECT
    (SELECT count(*) FROM header INDEXED BY ready WHERE queue = ?1 AND state = {READY}),
    (SELECT count(*) FROM header INDEXED BY locked WHERE queue = ?1 AND state = {LOCKED} AND until > ?2),
    (SELECT count(*) FROM header INDEXED BY locked WHERE queue = ?1 AND state = {LOCKED} AND until <= ?2),
    (SELECT count(*) FROM header INDEXED BY delayed WHERE queue = ?1 AND state = {DELAYED} AND until > ?2),
    (SELECT count(*) FROM header INDEXED BY delayed WHERE queue = ?1 AND state = {DELAYED} AND until <= ?2),
    (SELECT count(*) FROM header INDEXED BY dead WHERE queue = ?1 AND state = {DEAD})
"""

_OLDEST_DUE = f"""
SELECT min(sent_at) FROM (
    SELECT sent_at FROM header INDEXED BY locked WHERE queue = ?1 AND state = {LOCKED} AND until <= ?2
    UNION ALL
    SELECT sent_at FROM header INDEXED BY delayed WHERE queue = ?1 AND state = {DELAYED} AND until <= ?2
)
"""

# Also as ready counts what nobody has freed yet: locks that ran out and delays that ended.
_PLACE = f"""
SELECT seq, priority FROM header WHERE queue = ?1 AND id = ?2 AND (
    state = {READY} OR (state IN ({LOCKED}, {DELAYED}) AND until <= ?3)
)
"""
_AHEAD = f"""
SELECT count(*) FROM (
    SELECT 1 FROM header INDEXED BY ready WHERE queue = ?1 AND state = {READY} AND priority > ?2
    UNION ALL
    SELECT 1 FROM header INDEXED BY ready WHERE queue = ?1 AND state = {READY} AND priority = ?2 AND seq < ?3
    UNION ALL
    SELECT 1 FROM header INDEXED BY locked WHERE queue = ?1 AND state = {LOCKED} AND until <= ?4
        AND (priority > ?2 OR (priority = ?2 AND seq < ?3))
    UNION ALL
    SELECT 1 FROM header INDEXED BY delayed WHERE queue = ?1 AND state = {DELAYED} AND until <= ?4
        AND (priority > ?2 OR (priority = ?2 AND seq < ?3))
    LIMIT {POSITION_LIMIT}
)
"""

_REPLIES = """
SELECT seq, CAST(headers AS BLOB), CAST(body AS BLOB) FROM reply WHERE address = ? AND seq > ? ORDER BY seq LIMIT ?
"""

_DEAD_LETTERS = f"""
SELECT h.seq, CAST(h.id AS BLOB), h.delivery_count, CAST(d.reason AS BLOB), CAST(d.detail AS BLOB), d.dead_at,
    CAST(p.headers AS BLOB), CAST(p.body AS BLOB)
FROM header h INDEXED BY dead CROSS JOIN death d ON d.seq = h.seq CROSS JOIN payload p ON p.seq = h.seq
WHERE h.queue = ? AND h.state = {DEAD} AND h.seq > ? ORDER BY h.seq LIMIT ?
"""

_IS_DEAD = f"SELECT 1 FROM header WHERE seq = ?2 AND queue = ?1 AND state = {DEAD}"


class Count(msgspec.Struct, frozen=True, gc=False):
    """What was counted, when (CLOCK_MONOTONIC), at what cost, and until when it holds if nobody writes."""

    ready: int
    locked: int
    delayed: int
    dead: int
    oldest_sent_at: float | None
    version: int
    counted_at: float
    cost: float
    valid_until: float

    def stats(self, wall: float) -> QueueStats:
        """The statistics at the wall-clock time *wall*."""
        age = 0.0 if self.oldest_sent_at is None else max(0.0, wall - self.oldest_sent_at)
        return QueueStats(ready=self.ready, locked=self.locked, delayed=self.delayed, dead=self.dead, oldest_age=age)


def is_fresh(count: Count, version: int, now: float) -> bool:
    """Whether *count* may be shown at *now*, when the file's data version is *version*."""
    if count.version == version and now < count.valid_until:
        return True
    return count.cost > _COSTLY_COUNT_SECONDS and now - count.counted_at < _COUNT_LIFETIME_SECONDS


class Reader:
    """One read-only connection. Each call is a read transaction of its own, so that checkpoints are never held up.

    Calls may come from several threads; they take turns.
    """

    def __init__(self, path: Path, file: OpenFile) -> None:
        self._path = path
        self._file = file
        self._lock = threading.Lock()
        self._counts: dict[str, Count] = {}
        self._connection = connect(path, read_only=True)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def _rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except apsw.Error as error:
            self._file.note(error)
            raise unavailable(self._path, error) from error

    def _check_file(self) -> None:
        try:
            self._file.check()
        except OSError as error:
            raise unavailable(self._path, error) from error

    def probe(self, queue_id: int) -> tuple[bool, float | None]:
        """Whether something is ready in the queue, and the end of its earliest lock or delay."""
        with self._lock:
            self._check_file()
            return self._probe(queue_id)

    def _probe(self, queue_id: int) -> tuple[bool, float | None]:
        is_ready, locked_until, delayed_until = self._rows(_PROBE, (queue_id,))[0]
        return bool(is_ready), min((due for due in (locked_until, delayed_until) if due is not None), default=None)

    def replies(self, address: str, after: int, limit: int) -> list[tuple[int, bytes | None, bytes]]:
        """Number, headers and body of replies later than *after*, oldest first."""
        with self._lock:
            return self._rows(_REPLIES, (address, after, limit))

    def queues(self) -> list[str]:
        """The names of all queues, sorted, without those that no call could name."""
        with self._lock:
            self._check_file()
            rows = self._rows("SELECT CAST(name AS BLOB) FROM queue WHERE typeof(name) = 'text' ORDER BY name")
        return [name for (raw,) in rows if is_queue_name(name := text(raw))]

    def stats(self, queue: str) -> QueueStats:
        """Counts of *queue*; may take a while when there are millions. Raises QueueNotFoundError."""
        with self._lock:
            self._check_file()
            now = time.monotonic()
            version = self._rows("PRAGMA data_version")[0][0]
            count = self._counts.get(queue)
            if count is None or not is_fresh(count, version, now):
                count = self._counts[queue] = self._count(queue, version, now)
            return count.stats(time.time())

    def _count(self, queue: str, version: int, now: float) -> Count:
        queue_id = self._queue_id(queue)
        _, due = self._probe(queue_id)
        ready, locked, expired, delayed, due_now, dead = self._rows(_COUNTS, (queue_id, now))[0]
        oldest = [self._rows(_OLDEST_READY, (queue_id,))[0][0], self._rows(_OLDEST_DUE, (queue_id, now))[0][0]]
        return Count(
            ready=ready + expired + due_now,
            locked=locked,
            delayed=delayed,
            dead=dead,
            oldest_sent_at=min((moment for moment in oldest if moment is not None), default=None),
            version=version,
            counted_at=now,
            cost=time.monotonic() - now,
            valid_until=float("inf") if due is None else due,
        )

    def position(self, queue: str, message_id: str) -> int | None:
        """How many are served before *message_id*, at most POSITION_LIMIT. Raises QueueNotFoundError."""
        with self._lock:
            self._check_file()
            now = time.monotonic()
            queue_id = self._queue_id(queue)
            place = self._rows(_PLACE, (queue_id, message_id, now))
            if not place:
                return None
            seq, priority = place[0]
            count: int = self._rows(_AHEAD, (queue_id, priority, seq, now))[0][0]
        return count

    def _queue_id(self, queue: str) -> int:
        rows = self._rows("SELECT id FROM queue WHERE name = ?", (queue,))
        if not rows:
            raise QueueNotFoundError(queue)
        queue_id: int = rows[0][0]
        return queue_id

    def is_dead_letter(self, queue: str, key: str) -> bool:
        """Whether *key* is a dead letter of *queue*. Raises QueueNotFoundError."""
        with self._lock:
            self._check_file()
            rows = self._rows(_IS_DEAD, (self._queue_id(queue), seq_of(key)))
        return bool(rows)

    def dead_letters(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        """The oldest *limit* dead letters, from behind the key *after* on."""
        with self._lock:
            self._check_file()
            queue_id = self._queue_id(queue)
            seq = 0 if after is None else seq_of(after)
            if seq is None:
                raise DeadLetterNotFoundError(queue, [str(after)])
            rows = self._rows(_DEAD_LETTERS, (queue_id, seq, max(limit, 0)))
        return [
            DeadLetter(
                key=str(seq),
                message=decode_leniently(headers, body, message_id),
                queue=queue,
                reason=text(reason),
                detail=text(detail),
                delivery_count=delivery_count,
                dead_at=dead_at,
            )
            for seq, message_id, delivery_count, reason, detail, dead_at, headers, body in rows
        ]
