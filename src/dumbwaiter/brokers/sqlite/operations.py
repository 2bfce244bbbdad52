"""What the writer thread can do within a commit: sending, receiving, replying. Settling is in settling.py.

An operation that raises a BrokerError fails alone, and whatever it wrote before stays part of the commit;
any other exception rolls the commit back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from typing import TYPE_CHECKING, Any, ClassVar

import apsw

from dumbwaiter.brokers.sqlite.schema import DELAYED, LOCKED, READY
from dumbwaiter.errors import InboxGoneError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from dumbwaiter.brokers.sqlite.rows import Row
    from dumbwaiter.brokers.sqlite.transaction import Transaction

#: A receive stops before its bodies exceed so many bytes together (but takes at least one).
MAX_RECEIVE_NBYTES = 128 * 1024 * 1024


class Operation(ABC):
    """One call on its way through the writer thread and back. *durable*: its commit must reach the disk."""

    durable: ClassVar[bool] = False

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] | None = None
        self.result: Any = None
        self.error: BaseException | None = None

    @abstractmethod
    def run(self, tx: Transaction) -> Any:
        """Do it, within a transaction."""

    def finish(self) -> None:
        """Back on the event loop, after the commit: hand over the result or the error."""
        future = self.future
        if future is None or future.done():
            return
        if self.error is None:
            future.set_result(self.result)
        else:
            future.set_exception(self.error)


class Check(Operation):
    """A row of its own, by the way that all others take: through the thread, the turnstile and a commit.

    An empty transaction would commit on a disk that takes nothing more.
    """

    def run(self, tx: Transaction) -> None:
        tx.execute("REPLACE INTO meta VALUES ('checked_at', ?)", (tx.wall,))


class CreateQueue(Operation):
    """Declare a queue."""

    durable = True

    def __init__(self, queue: str) -> None:
        super().__init__()
        self.queue = queue

    def run(self, tx: Transaction) -> None:
        tx.execute("INSERT OR IGNORE INTO queue (name) VALUES (?)", (self.queue,))


class Send(Operation):
    """Append messages; an id that the queue knows already is dropped."""

    durable = True

    def __init__(self, queue: str, rows: Sequence[Row], delay: float) -> None:
        super().__init__()
        self.queue = queue
        self.rows = rows
        self.delay = delay

    def run(self, tx: Transaction) -> None:
        queue = tx.queue_id(self.queue)
        state, until = (DELAYED, tx.now + self.delay) if self.delay > 0 else (READY, None)
        sent_at = tx.wall + max(self.delay, 0.0)
        for row in self.rows:
            tx.execute(
                "INSERT OR IGNORE INTO header (queue, state, priority, until, sent_at, id) VALUES (?, ?, ?, ?, ?, ?)",
                (queue, state, row.priority, until, sent_at, row.id),
            )
            if tx.changes():
                tx.execute("INSERT INTO payload VALUES (last_insert_rowid(), ?, ?)", (row.headers, row.body))
        tx.made_ready[queue] += len(self.rows)


_FREE_DUE = (
    f"UPDATE header SET state = {READY}, until = NULL WHERE seq IN ("
    f"SELECT seq FROM header INDEXED BY locked WHERE queue = ?1 AND state = {LOCKED} AND until <= ?2 "
    f"UNION ALL SELECT seq FROM header INDEXED BY delayed WHERE queue = ?1 AND state = {DELAYED} AND until <= ?2)"
)
_NEXT_DUE = (
    f"SELECT (SELECT min(until) FROM header INDEXED BY locked WHERE queue = ?1 AND state = {LOCKED}), "
    f"(SELECT min(until) FROM header INDEXED BY delayed WHERE queue = ?1 AND state = {DELAYED})"
)
# Texts are read as bytes: reading one that is not UTF-8 as a text fails, and nobody would get past its row.
_READY = (
    "SELECT h.seq, h.delivery_count, CAST(h.id AS BLOB), CAST(p.headers AS BLOB), CAST(p.body AS BLOB) "
    "FROM header h INDEXED BY ready CROSS JOIN payload p ON p.seq = h.seq "
    f"WHERE h.queue = ? AND h.state = {READY} ORDER BY h.priority DESC, h.seq LIMIT ?"
)
_LOCK = (
    f"UPDATE header SET state = {LOCKED}, token = ?, until = ?, delivery_count = delivery_count + 1 "
    "WHERE seq IN carray(?)"
)
_ANY_READY = f"SELECT 1 FROM header INDEXED BY ready WHERE queue = ? AND state = {READY} LIMIT 1"


class Receive(Operation):
    """Lock ready messages; when there are none and the caller waits, count this broker as waiting, in one go.

    The same operation is submitted again whenever there may be something. *queue_id* and *next_due* (the end of the
    earliest lock or delay, None if none) are set by its run.
    """

    def __init__(self, queue: str, *, limit: int, token: int, lock_duration: float, waits: bool) -> None:
        super().__init__()
        self.queue = queue
        self.limit = limit
        self.token = token
        self.lock_duration = lock_duration
        self.waits = waits
        self.queue_id = 0
        self.until = 0.0
        self.next_due: float | None = None

    def run(self, tx: Transaction) -> list[tuple[Any, ...]]:
        queue = self.queue_id = tx.queue_id(self.queue)
        tx.stop_waiting(queue, self)
        tx.execute(_FREE_DUE, (queue, tx.now))
        rows = self._take(tx, queue)
        if not rows and self.waits:
            tx.start_waiting(queue, self)
            self.next_due = min((due for due in tx.one(_NEXT_DUE, (queue,)) if due is not None), default=None)
        return rows

    def _take(self, tx: Transaction, queue: int) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        nbytes = 0
        cursor = tx.execute(_READY, (queue, self.limit))
        for row in cursor:
            nbytes += len(row[4])
            if rows and nbytes > MAX_RECEIVE_NBYTES:
                break
            rows.append(row)
        cursor.close()
        if rows:
            self.until = tx.now + self.lock_duration
            tx.execute(_LOCK, (self.token, self.until, apsw.carray(array("q", [row[0] for row in rows]))))
        return rows


class StopWaiting(Operation):
    """A receive stopped waiting, empty-handed."""

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self.receive = receive

    def run(self, tx: Transaction) -> None:
        tx.stop_waiting(self.receive.queue_id, self.receive)


class PassOn(Operation):
    """A wake-up arrived where nobody waits any more: wake someone else, if there is something to receive."""

    def __init__(self, queue_id: int) -> None:
        super().__init__()
        self.queue_id = queue_id

    def run(self, tx: Transaction) -> None:
        if has_ready(tx, self.queue_id):
            tx.made_ready[self.queue_id] += 1


def has_ready(tx: Transaction, queue: int) -> bool:
    """Whether there is something to receive."""
    return tx.one(_ANY_READY, (queue,)) is not None


class ForgetSocket(Operation):
    """The broker closes: nobody waits at its socket any more."""

    def run(self, tx: Transaction) -> None:
        tx.forget_socket(tx.socket_path)


class OpenInbox(Operation):
    """Register an address for replies, if it is not known yet."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    def run(self, tx: Transaction) -> None:
        tx.execute("INSERT OR IGNORE INTO inbox (address, path) VALUES (?, ?)", (self.address, tx.socket_path))


class CloseInbox(Operation):
    """Forget an address and the replies that nobody took."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    def run(self, tx: Transaction) -> None:
        tx.execute("DELETE FROM inbox WHERE address = ?", (self.address,))
        tx.execute("DELETE FROM reply WHERE address = ?", (self.address,))


class ForgetReplies(Operation):
    """Delete replies that were taken: all those of *address* up to *seq*."""

    def __init__(self, address: str, seq: int) -> None:
        super().__init__()
        self.address = address
        self.seq = seq

    def run(self, tx: Transaction) -> None:
        tx.execute("DELETE FROM reply WHERE address = ? AND seq <= ?", (self.address, self.seq))


class Reply(Operation):
    """Put messages into an inbox. *path* is the asker's socket, None for one that polls."""

    def __init__(self, address: str, rows: Sequence[Row]) -> None:
        super().__init__()
        self.address = address
        self.rows = rows
        self.path: str | None = None

    def run(self, tx: Transaction) -> None:
        inbox = tx.one("SELECT path FROM inbox WHERE address = ?", (self.address,))
        if inbox is None:
            raise InboxGoneError(self.address)
        self.path = inbox[0]
        for row in self.rows:
            tx.execute(
                "INSERT INTO reply (address, headers, body, created_at) VALUES (?, ?, ?, ?)",
                (self.address, row.headers, row.body, tx.wall),
            )
        if self.path is not None:
            tx.kicks.add((self.path, b"i"))
