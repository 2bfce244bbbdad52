"""Opening a device's ledger: made by whoever comes first, refused where it is another one's, begun anew when it is old.

What is made is written beside the ledger, synced, and renamed: nobody ever sees a part of it. Whoever makes one holds
an flock on the folder; whoever replaces one has its turn, too, so that nobody takes a seat in it meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from dumbwaiter.boot import this_boot
from dumbwaiter.devices.ledger.errors import LedgerError, LedgerFullError, LedgerRefusedError
from dumbwaiter.devices.ledger.file import (
    FORMAT,
    HEADER_NBYTES,
    LEDGER_NBYTES,
    MOST_SEATS,
    OLDEST_WRITER,
    SLOT_NBYTES,
    Header,
    NoLedgerError,
    header_page,
    read_header,
    read_slot,
    start_of,
)
from dumbwaiter.devices.ledger.locks import Descriptor, TurnLock, is_held, whole_range
from dumbwaiter.file_systems import require_local
from dumbwaiter.folders import require_own, sync_folder

ALL_SEATS = whole_range(HEADER_NBYTES, LEDGER_NBYTES - HEADER_NBYTES)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ELSEWHERE = "give each device a file of its own"


class Opening:
    """Opens the ledger of *device*, which has *capacity* bytes, at *path*. Turns are waited for *patience* seconds."""

    def __init__(self, path: Path, *, device: str, capacity: int, patience: float) -> None:
        self._path = path
        self._patience = patience
        boot, _, clock = this_boot().partition("/")
        self._wanted = Header(
            format=FORMAT, oldest_writer=OLDEST_WRITER, device=device, capacity=capacity, boot=boot, clock=clock
        )
        self._page = header_page(self._wanted)

    def open(self) -> Descriptor:
        """The file, which is there and is this device's, of this boot. Raises LedgerError and OSError."""
        self._require_folder()
        descriptor = self._open_fitting(may_make=False)
        if descriptor is not None:
            return descriptor
        folder = Descriptor(os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), self._path)
        try:
            with _turn(folder, self._path.parent, self._patience):
                made = self._open_fitting(may_make=True) or self._open_fitting(may_make=False)
        finally:
            folder.close()
        if made is None:
            raise LedgerRefusedError(self._path, "is removed again and again", "see who else writes to its folder")
        return made

    def _require_folder(self) -> None:
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            require_own(folder, folder.stat())
            require_local(folder)
        except OSError as error:
            what = f"cannot lie there: {error}"
            raise LedgerRefusedError(self._path, what, "choose a folder of this user alone, on this machine") from error

    def _open_fitting(self, *, may_make: bool) -> Descriptor | None:
        """None when there is no file, or an old one; if we *may_make* one, it is made then."""
        try:
            descriptor = open_regular(self._path)
        except FileNotFoundError:
            if may_make:
                self._make(b"")
            return None
        try:
            with _turn(descriptor, self._path, self._patience):
                fd = descriptor.fileno()
                found = checked_header(self._path, fd, device=self._wanted.device)
                outdated = self._why_outdated(found)
                if outdated is None:
                    return descriptor
                kept = self._what_to_keep(fd, found, outdated)
                if may_make:
                    self._make(kept)
        except BaseException:
            descriptor.close()
            raise
        descriptor.close()
        return None

    def _why_outdated(self, found: Header) -> str | None:
        wanted = self._wanted
        if found.boot != wanted.boot:
            return "was begun before this machine was started"
        if found.clock != wanted.clock:
            return "is kept by another clock (a time namespace)"
        if found.capacity != wanted.capacity:
            return f"says that {wanted.device} has {found.capacity} bytes, and not {wanted.capacity}"
        return None

    def _what_to_keep(self, fd: int, found: Header, outdated: str) -> bytes:
        """The slots that a new file takes over: the dead of this boot may hold memory still."""
        if is_held(fd, ALL_SEATS):
            reason = f"{outdated}, and living processes have seats in it"
            raise LedgerRefusedError(self._path, reason, "start them all alike, or end them first")
        slots = os.pread(fd, LEDGER_NBYTES, HEADER_NBYTES)
        dead = found.boot == self._wanted.boot and any(
            read_slot(slots[start : start + SLOT_NBYTES]).payload != b"" for start in range(0, len(slots), SLOT_NBYTES)
        )
        if dead and found.clock != self._wanted.clock:
            reason = f"{outdated}, and it says that processes which have died may hold memory still"
            raise LedgerRefusedError(self._path, reason, "remove it if none of them uses the device any more")
        return slots if dead else b""

    def _make(self, slots: bytes) -> None:
        beside = self._path.with_name(f"{self._path.name}.new")
        with contextlib.suppress(FileNotFoundError):  # of one that died here
            beside.unlink()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(beside, flags, 0o600)
            try:
                write_all(fd, self._page + slots, 0)
                os.fsync(fd)
            finally:
                os.close(fd)
            beside.rename(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise disk_error(self._path, error) from error


def open_regular(path: Path) -> Descriptor:
    """The file at *path*, which must be there, be no link, and be this user's alone. Raises LedgerRefusedError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LedgerRefusedError(path, f"cannot be opened: {error.strerror}", _ELSEWHERE) from error
    descriptor = Descriptor(fd, path)
    try:
        found = os.fstat(fd)
        require_own(path, found)
    except PermissionError as error:
        descriptor.close()
        raise LedgerRefusedError(path, f"cannot be used: {error}", "or remove it if nobody uses the device") from error
    if not stat.S_ISREG(found.st_mode):
        descriptor.close()
        raise LedgerRefusedError(path, "is no regular file", _ELSEWHERE)
    return descriptor


def checked_header(path: Path, fd: int, *, device: str | None) -> Header:
    """The header of the file, which this program may write to and which is *device*'s. Raises LedgerRefusedError."""
    try:
        found = read_header(os.pread(fd, HEADER_NBYTES, 0))
    except NoLedgerError as error:
        raise LedgerRefusedError(path, str(error), "remove it if no process uses it, or name another file") from None
    if found.oldest_writer > FORMAT:
        reason = f"is of format {found.format}, which a program of format {FORMAT} must not write to"
        raise LedgerRefusedError(path, reason, "upgrade this one as those that use it were")
    if device is not None and found.device != device:
        raise LedgerRefusedError(path, f"is that of the device {found.device}, and not of {device}", _ELSEWHERE)
    return found


def write_all(fd: int, content: bytes, start: int) -> None:
    """Write all of *content* from *start* on. Raises OSError, also when only a part could be written."""
    if os.pwrite(fd, content, start) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def make_room(fd: int, place: int) -> None:
    """See to it that the disk has room for the slot number *place*. Raises OSError."""
    os.posix_fallocate(fd, start_of(place), SLOT_NBYTES)


def disk_error(path: Path, error: OSError) -> LedgerError:
    """What to raise for an *error* of writing to the ledger, or to its folder."""
    reason = f"cannot be written to: {error.strerror or error}"
    if error.errno in _NO_ROOM:
        return LedgerFullError(path, reason, f"free some KiB there (a ledger of {MOST_SEATS} seats takes 260)")
    return LedgerRefusedError(path, reason, "choose a folder on a disk that can be written to")


@contextlib.contextmanager
def _turn(descriptor: Descriptor, path: Path, patience: float) -> Iterator[None]:
    lock = TurnLock(descriptor, path, patience=patience)
    lock.take()
    try:
        yield
    finally:
        lock.release()
