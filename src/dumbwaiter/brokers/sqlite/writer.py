"""The writer thread: everything that is queued becomes one commit (group commit), under the turnstile."""

from __future__ import annotations

import contextlib
import errno
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import apsw

from dumbwaiter.brokers.sqlite.location import FileReplacedError
from dumbwaiter.brokers.sqlite.operations import Operation, Reply
from dumbwaiter.brokers.sqlite.schema import connect
from dumbwaiter.brokers.sqlite.transaction import Transaction
from dumbwaiter.brokers.sqlite.turnstile import Turnstile
from dumbwaiter.brokers.sqlite.wakeups import Kicker
from dumbwaiter.errors import BrokerError, BrokerUnavailableError, InboxGoneError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from pathlib import Path

    from dumbwaiter.brokers.sqlite.location import OpenFile

_MAX_GROUP = 1000
_CHECKPOINT_PAGES = 1000
_CHECKPOINT_SECONDS = 0.1
# Beyond so many pages a checkpoint does not wait for its time.
_CHECKPOINT_PAGES_AT_ONCE = 8000
# Closing waits no longer than this for other processes to let the writer in: whoever closes has a grace period to keep,
# and what it could not hand back is free when its locks run out.
_CLOSE_SECONDS = 3.0


def unavailable(path: Path, error: Exception) -> BrokerUnavailableError:
    """The error for people: which file, why, what to do."""
    advice = "see the reason; the same call may succeed later"
    if isinstance(error, FileReplacedError):
        return BrokerUnavailableError(f"{path}: {error}; restart the processes that share it")
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        advice = "mount its file system writable, or name another file"
    elif isinstance(error, apsw.FullError):
        advice = "free some space on its disk; then the same call succeeds"
    elif isinstance(error, (apsw.NotADBError, apsw.CorruptError)):
        advice = "move the file away, or name another one, and restart the processes that share it"
    elif isinstance(error, (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError, PermissionError)):
        advice = "make it writable for this user, with its folder and file system, or name another file"
    elif isinstance(error, apsw.BusyError):
        advice = "another program holds a transaction open on it; end that one"
    return BrokerUnavailableError(f"{path}: {error}; {advice}")


class Writer:
    """Runs operations in its thread, and their finish() on *loop*. *commits* and *operations* count what it did."""

    def __init__(
        self,
        path: Path,
        file: OpenFile,
        socket_path: str,
        loop: asyncio.AbstractEventLoop,
        *,
        lock_duration: float,
    ) -> None:
        self.commits = 0
        self.operations = 0
        self._path = path
        self._file = file
        self._socket_path = socket_path
        self._loop = loop
        self._lock_duration = lock_duration
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._wal_pages = 0
        self._last_checkpoint = time.monotonic()
        self._is_full_sync = False

    def submit(self, operation: Operation) -> None:
        """Queue *operation* for the next commit."""
        self._queue.put(operation)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dumbwaiter-sqlite-writer", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Finish what is queued, then stop; after a few seconds let the thread do so by itself.

        Blocks: call it off the event loop.
        """
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_CLOSE_SECONDS)

    # --- in the writer thread ---

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            try:
                self._turnstile = Turnstile(self._path, patience=self._lock_duration)
                stack.callback(self._turnstile.close)
                self._connection = connect(self._path)
                stack.callback(self._connection.close)
            except (OSError, apsw.Error) as error:
                self._refuse_all(unavailable(self._path, error))
                return
            self._connection.set_wal_hook(self._note_wal_pages)
            self._kicker = Kicker()
            stack.callback(self._kicker.close)
            self._tx = Transaction(self._connection, self._socket_path)
            self._serve()
            self._checkpoint()

    def _serve(self) -> None:
        while True:
            group, is_last = self._drain()
            if group:
                self._commit_and_wake(group)
                self._resolve(group)
                self._checkpoint_when_due()
            if is_last:
                return

    def _refuse_all(self, error: BrokerUnavailableError) -> None:
        while (operation := self._queue.get()) is not None:
            operation.error = error
            self._resolve([operation])

    def _drain(self) -> tuple[list[Operation], bool]:
        group: list[Operation] = []
        operation = self._queue.get()
        while operation is not None:
            group.append(operation)
            if len(group) == _MAX_GROUP:
                return group, False
            try:
                operation = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _resolve(self, group: Sequence[Operation]) -> None:
        # The loop may be closed already when a program ends without closing its broker.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_finish, group)

    def _commit_and_wake(self, group: Sequence[Operation]) -> None:
        try:
            self._commit(group)
        except (apsw.FullError, apsw.IOError, apsw.BusyError, OSError) as error:
            # An OSError is the turnstile's: no operation of the group is at fault.
            self._fail(group, self._unavailable(error))
            return
        except Exception as error:
            if len(group) > 1:
                # One of them is at fault; alone it cannot harm the others.
                for operation in group:
                    self._commit_and_wake([operation])
                return
            self._fail(group, self._unavailable(error) if isinstance(error, apsw.Error) else error)
            return
        self.commits += 1
        self.operations += len(group)
        if self._tx.kicks:
            self._wake(group)

    def _unavailable(self, error: Exception) -> BrokerUnavailableError:
        self._file.note(error)
        return unavailable(self._path, error)

    def _fail(self, group: Sequence[Operation], error: Exception) -> None:
        for operation in group:
            operation.error = error

    def _commit(self, group: Sequence[Operation]) -> None:
        tx = self._tx
        with self._turnstile:
            try:
                self._file.check()
                self._begin(durable=any(operation.durable for operation in group))
                for operation in group:
                    operation.error = None
                    try:
                        operation.result = operation.run(tx)
                    except BrokerError as error:
                        operation.error = error
                tx.settle()
                tx.execute("COMMIT")
            except BaseException:
                self._roll_back(group)
                raise
        tx.committed()

    def _begin(self, *, durable: bool) -> None:
        if durable is not self._is_full_sync:
            self._connection.execute("PRAGMA synchronous = FULL" if durable else "PRAGMA synchronous = NORMAL")
            self._is_full_sync = durable
        self._connection.execute("BEGIN IMMEDIATE")
        self._tx.begin(time.monotonic(), time.time())

    def _roll_back(self, group: Sequence[Operation] = ()) -> None:
        self._tx.rolled_back(group)
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _wake(self, group: Sequence[Operation]) -> None:
        kicks, made_ready = set(self._tx.kicks), dict(self._tx.made_ready)
        while dead := self._kicker.kick(kicks):
            kicks = self._forget_sockets(dead, made_ready)
            for operation in group:
                if isinstance(operation, Reply) and operation.path in dead:
                    operation.error = InboxGoneError(operation.address)

    def _forget_sockets(self, dead: set[str], made_ready: dict[int, int]) -> set[tuple[str, bytes]]:
        """Remove what dead receivers left behind; whom to wake in their stead."""
        try:
            with self._turnstile:
                try:
                    self._file.check()
                    self._begin(durable=False)
                    for path in dead:
                        self._tx.forget_socket(path)
                    for queue_id in made_ready:
                        self._tx.claim_waiters(queue_id, len(dead))
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._roll_back()
                    raise
        except (apsw.Error, OSError) as error:
            self._file.note(error)
            # The commit before this one stands; the safety poll of the living finds what it made ready.
            return set()
        return set(self._tx.kicks)

    # --- checkpoints ---

    def _note_wal_pages(self, _connection: Any, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return 0

    def _checkpoint_when_due(self) -> None:
        is_urgent = self._wal_pages >= _CHECKPOINT_PAGES_AT_ONCE
        is_due = self._wal_pages >= _CHECKPOINT_PAGES and (
            time.monotonic() - self._last_checkpoint >= _CHECKPOINT_SECONDS
        )
        if is_urgent or (is_due and self._queue.empty()):
            self._checkpoint()

    def _checkpoint(self) -> None:
        try:
            with self._turnstile:
                self._file.check()
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.Error, OSError) as error:
            # Nothing is lost: the WAL still holds every commit, and the next checkpoint tries again.
            self._file.note(error)
        self._wal_pages = 0
        self._last_checkpoint = time.monotonic()


def _finish(group: Sequence[Operation]) -> None:
    for operation in group:
        operation.finish()
