"""The slots of an open ledger, as one process sees them: looked at, written to and taken. All of it in a turn."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from dumbwaiter.devices.ledger.errors import LedgerFullError, LedgerGoneError, LedgerRefusedError
from dumbwaiter.devices.ledger.file import (
    BLANK,
    FORMAT,
    HEADER_NBYTES,
    LEDGER_NBYTES,
    MOST_SEATS,
    SLOT_NBYTES,
    NoLedgerError,
    Slot,
    next_write,
    read_header,
    read_slot,
    start_of,
)
from dumbwaiter.devices.ledger.locks import Descriptor, TurnLock, hold_range, is_held, whole_range
from dumbwaiter.devices.ledger.opening import checked_header, disk_error, make_room, write_all
from dumbwaiter.devices.ledger.seats import Seat

R = TypeVar("R", bound=msgspec.Struct)
_log = logging.getLogger(__name__)
_SPANS = [whole_range(start_of(place), SLOT_NBYTES) for place in range(MOST_SEATS)]


class Seen(NamedTuple):
    """A slot as it was when it was looked at last, and what its bytes mean.

    *record* is None where there is none, or none can be read; *problem* says what is wrong with a good copy's record.
    """

    raw: bytes
    slot: Slot
    record: Any
    problem: str | None


_UNUSED = Seen(bytes(SLOT_NBYTES), BLANK, None, None)


class Slots(Generic[R]):
    """The slots of the file at *path*, open as *descriptor*, with records of the type *record*. *lock* is the turn.

    Only what has changed since the last look is decoded.
    """

    def __init__(self, path: Path, descriptor: Descriptor, record: type[R], *, patience: float) -> None:
        self.path = path
        self.lock = TurnLock(descriptor, path, patience=patience)
        self._name = os.fspath(path)
        self._descriptor = descriptor
        opened = os.fstat(descriptor.fileno())
        self._identity = opened.st_ino, opened.st_dev
        self._decode = msgspec.msgpack.Decoder(record).decode
        self._seen: list[Seen] = []
        self.lock.take()
        try:
            self.header = checked_header(path, descriptor.fileno(), device=None)
            self._page = os.pread(descriptor.fileno(), HEADER_NBYTES, 0)
        finally:
            self.lock.release()

    def close(self) -> None:
        """Close the file."""
        self._descriptor.close()

    def look(self) -> list[tuple[int, Seen, bool]]:
        """All slots that say something, and whether their owners live."""
        fd = self._descriptor.fileno()
        content = os.pread(fd, min(self._nbytes(), LEDGER_NBYTES), 0)
        if not content.startswith(self._page):
            self._mend_header(fd, content[:HEADER_NBYTES])
        content = self._with_seats_behind_its_end(fd, content)
        count = (len(content) - HEADER_NBYTES) // SLOT_NBYTES
        del self._seen[max(0, count) :]
        looks = []
        for place in range(count):
            start = HEADER_NBYTES + place * SLOT_NBYTES
            seen = self._seen_at(place, content[start : start + SLOT_NBYTES])
            if seen.slot.is_vacant:
                continue
            is_living = is_held(fd, _SPANS[place])
            # Who takes a seat writes to it in the same turn: one who sits in a blank slot has lost a record.
            if is_living or seen.slot is not BLANK:
                looks.append((place, seen, is_living))
        return looks

    def _nbytes(self) -> int:
        """The length of the file, if it is the one that others who open the path see, too. Raises LedgerGoneError."""
        try:
            found = os.stat(self._name)  # noqa: PTH116 - a microsecond less than Path's, in each turn
        except FileNotFoundError:
            found = None
        if found is None or (found.st_ino, found.st_dev) != self._identity:
            reason = "was removed, or begun anew, while it was in use"
            raise LedgerGoneError(self.path, reason, "restart all processes that use the device")
        return found.st_size

    def _with_seats_behind_its_end(self, fd: int, content: bytes) -> bytes:
        """A file that was cut short has lost what those said who sit behind its end: there are zeros, then."""
        end = HEADER_NBYTES + max(0, len(content) - HEADER_NBYTES) // SLOT_NBYTES * SLOT_NBYTES
        if end < LEDGER_NBYTES and is_held(fd, whole_range(end, LEDGER_NBYTES - end)):
            return content.ljust(LEDGER_NBYTES, b"\0")
        return content

    def _seen_at(self, place: int, raw: bytes) -> Seen:
        if place >= len(self._seen):
            self._seen.extend([_UNUSED] * (place + 1 - len(self._seen)))
        seen = self._seen[place]
        if seen.raw != raw:
            seen = self._seen[place] = self._meaning(raw)
        return seen

    def _meaning(self, raw: bytes) -> Seen:
        slot = read_slot(raw)
        if slot is BLANK:
            return _UNUSED
        if not slot.payload:
            return Seen(raw, slot, None, None)
        try:
            return Seen(raw, slot, self._decode(slot.payload), None)
        except msgspec.MsgspecError as error:
            return Seen(raw, slot, None, f"it is no record that this program knows: {error}")

    def _mend_header(self, fd: int, page: bytes) -> None:
        try:
            found = read_header(page)
        except NoLedgerError as error:
            _log.warning("the ledger %s %s; it is written again", self.path, error)
            self._write(fd, self._page, 0)
            return
        same = (found.device, found.capacity, found.boot, found.clock)
        ours = self.header
        if found.oldest_writer > FORMAT or same != (ours.device, ours.capacity, ours.boot, ours.clock):
            reason = "has become another one while it was in use"
            raise LedgerRefusedError(self.path, reason, "restart all processes that use the device, in one version")
        self.header, self._page = found, page

    def put(self, place: int, payload: bytes) -> None:
        """Write *payload* to a slot, and take note of it. Raises LedgerFullError."""
        seen = self._seen[place] if place < len(self._seen) else _UNUSED
        start, content = next_write(seen.slot, payload)
        self._write(self._descriptor.fileno(), content, start_of(place) + start)
        self._seen_at(place, seen.raw[:start] + content + seen.raw[start + len(content) :])

    def _write(self, fd: int, content: bytes, start: int) -> None:
        try:
            write_all(fd, content, start)
        except OSError as error:
            raise disk_error(self.path, error) from error

    def take_free(self) -> Seat:
        """The lowest slot in which nobody sits and of which nobody must be remembered."""
        ours = self._descriptor.fileno()
        # A description of its own, and of this very file, wherever its name points by now.
        descriptor = Descriptor(os.open(f"/proc/self/fd/{ours}", os.O_RDWR | os.O_CLOEXEC), self.path)
        try:
            for place in range(MOST_SEATS):
                slot = self._seen[place].slot if place < len(self._seen) else BLANK
                if slot.is_whole and not slot.payload and hold_range(descriptor.fileno(), _SPANS[place]):
                    make_room(ours, place)
                    return Seat(self.path, place, descriptor)
        except OSError as error:
            descriptor.close()
            raise disk_error(self.path, error) from error
        descriptor.close()
        reason = f"has no free seat: all {MOST_SEATS} are taken"
        raise LedgerFullError(self.path, reason, "end some of the processes that share the device")
