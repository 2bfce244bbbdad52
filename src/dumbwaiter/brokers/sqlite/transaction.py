"""What the operations of one commit share: the connection, the time, and whom to wake afterwards."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from dumbwaiter.brokers.sqlite.schema import DONE
from dumbwaiter.errors import QueueNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import apsw

#: A completed message id is remembered for so many seconds, ...
REMEMBER_DONE_SECONDS = 600.0
#: ... as long as fewer than so many messages were sent since (all queues together).
REMEMBER_DONE_MESSAGES = 100_000

_PRUNE_DONE = f"""
DELETE FROM header WHERE seq IN (
    SELECT seq FROM (SELECT seq, until FROM header INDEXED BY done WHERE state = {DONE} ORDER BY seq LIMIT ?)
    WHERE until <= ? OR seq <= (SELECT seq FROM sqlite_sequence WHERE name = 'header') - ?
)
"""


class Transaction:
    """One writer's view of the file; between *begin* and COMMIT it collects what the commit makes true.

    *now* is CLOCK_MONOTONIC, *wall* is seconds since the Unix epoch, *socket_path* is this broker's own socket.
    This broker's receives that found nothing and wait live across commits.
    """

    def __init__(self, connection: apsw.Connection, socket_path: str) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.socket_path = socket_path
        self.now = 0.0
        self.wall = 0.0
        self.made_ready: Counter[int] = Counter()
        self.kicks: set[tuple[str, bytes]] = set()
        self.completed = 0
        self._waiting: dict[int, set[object]] = {}
        self._waiting_changed: set[int] = set()
        self._queue_ids: dict[str, int] = {}

    def begin(self, now: float, wall: float) -> None:
        """Start collecting for one commit."""
        self.now, self.wall, self.completed = now, wall, 0
        self.made_ready.clear()
        self.kicks.clear()

    def committed(self) -> None:
        """What was collected is true now."""
        self._waiting_changed.clear()

    def rolled_back(self, failed: Iterable[object]) -> None:
        """Forget what the failed commit would have made true; the *failed* wait no longer."""
        self._queue_ids.clear()
        lost = set(failed)
        for queue, waiting in self._waiting.items():
            if waiting & lost:
                waiting.difference_update(lost)
                self._waiting_changed.add(queue)

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """All rows of a query."""
        return self.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: tuple[Any, ...] = ()) -> Any:
        """The first row, or None."""
        rows = self.rows(sql, parameters)
        return rows[0] if rows else None

    def changes(self) -> int:
        """Rows changed by the last statement."""
        return self.connection.changes()

    def queue_id(self, name: str) -> int:
        """The number of the queue called *name*. Raises QueueNotFoundError."""
        known = self._queue_ids.get(name)
        if known is None:
            row = self.one("SELECT id FROM queue WHERE name = ?", (name,))
            if row is None:
                raise QueueNotFoundError(name)
            known = self._queue_ids[name] = row[0]
        return known

    def start_waiting(self, queue: int, receive: object) -> None:
        """*receive* found nothing in *queue* and waits."""
        self._waiting.setdefault(queue, set()).add(receive)
        self._waiting_changed.add(queue)

    def stop_waiting(self, queue: int, receive: object) -> None:
        """*receive* waits no longer, if it ever did."""
        waiting = self._waiting.get(queue)
        if waiting and receive in waiting:
            waiting.discard(receive)
            self._waiting_changed.add(queue)

    def settle(self) -> None:
        """Last before COMMIT: register or forget this broker as waiting, choose whom to wake, prune tombstones."""
        for queue in self._waiting_changed:
            if self._waiting.get(queue):
                self.execute("INSERT OR IGNORE INTO waiter VALUES (?, ?)", (queue, self.socket_path))
            else:
                self.execute("DELETE FROM waiter WHERE queue = ? AND path = ?", (queue, self.socket_path))
        for queue, count in self.made_ready.items():
            self.claim_waiters(queue, count)
        if self.completed:
            self.execute(_PRUNE_DONE, (2 * self.completed + 10, self.now, REMEMBER_DONE_MESSAGES))

    def claim_waiters(self, queue: int, count: int) -> None:
        """Choose up to *count* waiting brokers, longest waiting first; they will be woken after the commit."""
        paths = self.rows(
            "DELETE FROM waiter WHERE rowid IN (SELECT rowid FROM waiter WHERE queue = ? ORDER BY rowid LIMIT ?) "
            "RETURNING path",
            (queue, count),
        )
        self.kicks.update((path, b"q%d" % queue) for (path,) in paths)

    def forget_socket(self, path: str) -> None:
        """Whoever listened at *path* is dead: nobody waits there, and nobody reads its inboxes."""
        self.execute("DELETE FROM waiter WHERE path = ?", (path,))
        self.execute("DELETE FROM reply WHERE address IN (SELECT address FROM inbox WHERE path = ?)", (path,))
        self.execute("DELETE FROM inbox WHERE path = ?", (path,))
