"""The turnstile: one process at a time writes or checkpoints, and none that is stopped keeps the others out."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import threading
import time
import weakref
from pathlib import Path
from typing import Self

_log = logging.getLogger(__name__)
_LOOK_EVERY = 0.25
_STOPPED = "T"


class Turnstile:
    """Lets one process at a time in: first come, first served, unlike SQLite's busy waiting.

    A process that is stopped (SIGSTOP, Ctrl-Z) inside would stall every other one, and nothing but its death frees
    its locks. So whoever has waited for *patience* seconds, the length of a message's lock, kills it: it could not
    have kept its messages longer anyway, and kill -9 loses nothing. A holder that merely is slow is left alone.
    """

    def __init__(self, path: Path, *, patience: float) -> None:
        self._fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._file = os.fstat(self._fd)
        self._path = path
        self._patience = patience
        self._waiting_since: float | None = None
        self._contended = threading.Event()
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None
        _open_turnstiles.add(self)

    def __enter__(self) -> Self:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the descriptor."""
        self._closing.set()
        self._contended.set()
        self.let_go()

    def let_go(self) -> None:
        """Close the descriptor, if it is open."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _wait(self) -> None:
        self._waiting_since = time.monotonic()
        self._contended.set()
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="dumbwaiter-sqlite-turnstile", daemon=True)
            self._watcher.start()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        finally:
            self._waiting_since = None

    def _watch(self) -> None:
        suspect = None
        while not self._closing.is_set():
            self._contended.wait()  # without a clock: an idle system does nothing
            self._contended.clear()
            while (since := self._waiting_since) is not None and not self._closing.wait(_LOOK_EVERY):
                is_long = time.monotonic() - since > self._patience
                holder = self._stopped_holder() if is_long else None
                if holder is not None and holder == suspect:
                    self._evict(holder)
                suspect = holder

    def _stopped_holder(self) -> int | None:
        pid = holder_of(self._file, Path("/proc/locks").read_text())
        return pid if pid is not None and pid != os.getpid() and state_of(pid) == _STOPPED else None

    def _evict(self, pid: int) -> None:
        # The only thing that an adapter logs: somebody must be able to find out who killed that process.
        _log.error(
            "process %d was stopped while it held the write lock of %s, and everybody waited for %.1f s: killing it",
            *(pid, self._path, self._patience),
        )
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


_open_turnstiles: weakref.WeakSet[Turnstile] = weakref.WeakSet()


def _let_go_in_child() -> None:
    # A forked child shares the lock itself: it would hold the turnstile after its parent was killed inside.
    for turnstile in list(_open_turnstiles):
        turnstile.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)


def holder_of(file: os.stat_result, locks: str) -> int | None:
    """The process that holds an flock on *file*; None if there is none, or it lives in another container.

    *locks* is the text of /proc/locks: ``1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF``; who waits has ``->`` there.
    """
    wanted = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    for line in locks.splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5] == wanted:
            return int(fields[4]) or None
    return None


def state_of(pid: int) -> str | None:
    """The kernel's letter for what the process does (``R``, ``S``, ``T`` ...); None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[0]
