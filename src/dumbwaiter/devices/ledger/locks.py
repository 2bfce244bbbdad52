"""The kernel's locks on a ledger, and descriptors that a forked child does not keep.

There are two kinds, which know nothing of each other. A *turn* is an flock on a description of its own, which nobody
inherits: /proc/locks names its holder, as it does for no OFD lock, and it ends with the process that had the turn even
where that process's runner lives on. A *seat* is an OFD lock on the slot's bytes, which whoever inherits the
description holds too, across containers; the kernel frees it with the last of them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from dumbwaiter.devices.ledger.errors import LedgerBusyError, LedgerGoneError

_RANGE = struct.Struct("@hhqqi4x")
_FREE = _RANGE.pack(fcntl.F_UNLCK, 0, 0, 0, 0)[:2]
_EAGER_TRIES = 6
_EAGER_PAUSE = 0.000_02
_PAUSES = (0.0005, 0.001, 0.002, 0.005)


class Descriptor:
    """An open file that is closed in a forked child: a lock of its description must not outlive the parent there."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        _open.add(self)

    def fileno(self) -> int:
        """The number of the descriptor. Raises LedgerGoneError when it is closed."""
        if self._fd < 0:
            raise LedgerGoneError(self._path, "is closed in this process", "open it again: a forked child must, too")
        return self._fd

    def close(self) -> None:
        """Close it. Closing twice is no error."""
        fd, self._fd = self._fd, -1
        _open.discard(self)
        if fd >= 0:
            os.close(fd)


#: Not weak: what nobody refers to any more is open, and locked, all the same.
_open: set[Descriptor] = set()


def _close_all() -> None:
    for descriptor in list(_open):
        descriptor.close()


os.register_at_fork(after_in_child=_close_all)


def whole_range(start: int, nbytes: int) -> bytes:
    """So many bytes from *start* on, as the kernel wants to be asked for an exclusive lock of them."""
    return _RANGE.pack(fcntl.F_WRLCK, os.SEEK_SET, start, nbytes, 0)


def hold_range(fd: int, span: bytes) -> bool:
    """Lock a whole_range for the description of *fd*; whether that could be, for another one may hold it."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, span)
    except BlockingIOError:
        return False
    return True


def is_held(fd: int, span: bytes) -> bool:
    """Whether another description than that of *fd* holds any of a whole_range."""
    return fcntl.fcntl(fd, fcntl.F_OFD_GETLK, span)[:2] != _FREE


class TurnLock:
    """One at a time, of all processes and of those in this one, for the file at *path*, open as *descriptor*.

    Waiting is trying again: a turn takes a few tens of microseconds, flock knows no time-out, and a thread that is
    blocked in it could not be called back. It ends after *patience* seconds with LedgerBusyError.
    """

    def __init__(self, descriptor: Descriptor, path: Path, *, patience: float) -> None:
        self._descriptor = descriptor
        self._path = path
        self._patience = patience
        self._ours = threading.Lock()

    def take(self) -> None:
        """Lock, and block meanwhile. Raises LedgerBusyError, and LedgerGoneError when the file is closed."""
        if not self._try_eagerly():
            for pause in self._pauses():
                time.sleep(pause)
                if self._try():
                    return

    async def take_without_blocking(self) -> None:
        """Lock, and let the loop run meanwhile, but for half a millisecond. Raises LedgerBusyError; when cancelled it
        holds nothing.
        """
        if not self._try_eagerly():
            for pause in self._pauses():
                await asyncio.sleep(pause)
                if self._try():
                    return

    def release(self) -> None:
        """Unlock."""
        try:
            fcntl.flock(self._descriptor.fileno(), fcntl.LOCK_UN)
        finally:
            self._ours.release()

    def _try_eagerly(self) -> bool:
        """Try, and let others have this core in between: most turns are over before a loop's timer would ring."""
        for _ in range(_EAGER_TRIES):
            if self._try():
                return True
            time.sleep(_EAGER_PAUSE)
        return self._try()

    def _try(self) -> bool:
        if not self._ours.acquire(blocking=False):
            return False
        try:
            fcntl.flock(self._descriptor.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            self._ours.release()
            if isinstance(error, BlockingIOError):
                return False
            raise
        return True

    def _pauses(self) -> Iterator[float]:
        began = time.monotonic()
        tries = 0
        while (waited := time.monotonic() - began) < self._patience:
            yield _PAUSES[min(tries, len(_PAUSES) - 1)]
            tries += 1
        raise LedgerBusyError(self._path, waited, _holder(os.fstat(self._descriptor.fileno())))


def _holder(file: os.stat_result) -> str | None:
    """The process that holds an flock on *file*, for people; None when it lives in a container that is not seen here.

    A line of /proc/locks: ``1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF``.
    """
    wanted = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        for fields in map(str.split, lines):
            if fields[1:2] == ["FLOCK"] and fields[5] == wanted and int(fields[4]) > 0:
                stat = Path(f"/proc/{fields[4]}/stat").read_text(encoding="utf-8", errors="replace")
                is_stopped = stat.rpartition(")")[2].split()[0] in {"T", "t"}
                return f"process {fields[4]}{', which is stopped' if is_stopped else ''}"
    except (OSError, ValueError, IndexError):
        return None
    return None
