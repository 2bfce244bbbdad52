"""Slots: files in a folder of this machine, each held by one living process at a time.

A slot is held by a lock of the kernel's, which ends with its process and by nothing else: whoever gets it knows that
the process that had it is dead, or has left. A process that is merely stopped still holds it. No process ids are
compared, and the files are never removed, for one that is could be held under two names.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from pathlib import Path

from dumbwaiter.file_systems import require_local
from dumbwaiter.folders import require_own

MOST_SLOTS = 1000
"""No more than this many processes of a machine have a slot in one folder."""
_log = logging.getLogger(__name__)
_NAME = re.compile(r"slot-(0|[1-9][0-9]{0,3})")


class Slot:
    """The slot in the file at *path*, held by this process until close(). What can fail raises OSError.

    *file* names that file, wherever it is moved on its file system, and none that is a copy of it.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        found = os.fstat(fd)
        self.file = f"{found.st_dev}:{found.st_ino}"
        _open.add(self)

    def read(self, most: int) -> bytes:
        """What lies in the file, at most so many bytes."""
        return os.pread(self._fd, most, 0)

    def write(self, start: int, content: bytes) -> None:
        """Write *content* from *start* on.

        It is not synced: it must outlive this process, and not the machine, whose clock its times are of.
        """
        if os.pwrite(self._fd, content, start) != len(content):
            raise OSError(f"{self.path} took only a part of {len(content)} bytes")

    def empty(self) -> None:
        """Nothing lies in the file any more."""
        os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Let the slot go. Closing twice is no error."""
        fd, self._fd = self._fd, -1
        _open.discard(self)
        if fd >= 0:
            os.close(fd)


#: A lock of the kernel's is also held by whoever inherits the open file: a child must not keep its parent's slots.
#: Programs that are executed lose them anyway. One that nobody refers to is still held.
_open: set[Slot] = set()


def _close_all() -> None:
    for slot in list(_open):
        slot.close()


os.register_at_fork(after_in_child=_close_all)


def take_free(folder: Path) -> list[Slot]:
    """All slots of *folder* that nobody holds, the lowest first; a new one, if there are none. They are held now.

    The folder is made. Raises OSError when that cannot be, or it cannot be used, or is not this user's alone, or lies
    on a file system that other machines may share: of their processes nothing is known here.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_own(folder, folder.stat())
    require_local(folder)
    numbers = sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
    free = [slot for number in numbers if (slot := _taken(folder / f"slot-{number}")) is not None]
    if free:
        return free
    for number in range(MOST_SLOTS):
        if number not in numbers:
            with contextlib.suppress(BlockingIOError):  # another process came first
                return [_take(folder / f"slot-{number}")]
    raise OSError(f"all {MOST_SLOTS} slots in {folder} are taken")


def _taken(path: Path) -> Slot | None:
    """The slot at *path*; None while another process holds it, or where it cannot be used."""
    try:
        return _take(path)
    except PermissionError as error:
        _log.warning("%s is passed over: %s", path, error)
        return None
    except OSError:
        return None


def _take(path: Path) -> Slot:
    """The slot at *path*, which is made where it is missing. Raises BlockingIOError while another process holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        require_own(path, os.fstat(fd))
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return Slot(path, fd)
