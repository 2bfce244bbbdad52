"""What a consumer holds, as bytes in a file that outlives it. Pure: no file, no clock.

The file is a page, which says all that is held, and changes to it behind one another. Each is a frame: its length and
checksum, and then msgpack. A page always lies at the start, and begins a new generation; what an older one has left
behind it is told by its number. A write that was cut off spoils its own frame alone, and what was cut off is the news
of a moment in which its process died.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable

import msgspec

from dumbwaiter.brokers.contract import Claim

VERSION = 2
LARGEST_NBYTES = 8 * 1024 * 1024
"""More than this is read from no file."""
_LEAST_NBYTES = 64 * 1024
_FRAME = struct.Struct("<II")


class JournalUnreadableError(Exception):
    """What lies in the file is no journal of this version and of this boot of the machine, or was written elsewhere."""


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One that is held: its *number* in the journal, and the claim, whose end is in seconds since the boot."""

    number: int
    queue: str
    token: str
    until: float


class Page(msgspec.Struct, array_like=True, frozen=True):
    """All that is held. *boot* names the run of the machine whose clock is meant, and *file* the one written to: in a
    copy of that nobody can tell whether whoever wrote it is dead.
    """

    version: int
    boot: str
    file: str
    generation: int
    held: list[Entry]


class Change(msgspec.Struct, array_like=True, frozen=True):
    """What is held besides, or for longer; and the numbers of what is held no more."""

    generation: int
    held: list[Entry]
    dropped: list[int]


_encoder = msgspec.msgpack.Encoder()
_read_page = msgspec.msgpack.Decoder(Page).decode
_read_change = msgspec.msgpack.Decoder(Change).decode
_read_version = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class Journal:
    """What is held, and how the file comes to say so. Deliveries are named by their *key*."""

    def __init__(self, boot: str, file: str) -> None:
        self._boot = boot
        self._file = file
        self._held: dict[str, Entry] = {}
        self._changed: list[Entry] = []
        self._dropped: list[int] = []
        self._last_number = 0
        self._generation = 0
        self._end = 0
        self._largest = 0

    def hold(self, key: str, claim: Claim, *, until: float) -> None:
        """*key* is held, or still is, by *claim*; *until* so many seconds since the boot."""
        known = self._held.get(key)
        if known is None:
            number = self._last_number = self._last_number + 1
        else:
            number = known.number
        entry = self._held[key] = Entry(number, claim.queue, claim.token, until)
        self._changed.append(entry)

    def drop(self, keys: Iterable[str]) -> bool:
        """*keys* are held no more. Whether any of them was."""
        before = len(self._dropped)
        for key in keys:
            entry = self._held.pop(key, None)
            if entry is not None:
                self._dropped.append(entry.number)
        return len(self._dropped) > before

    def next_write(self, now: float) -> tuple[int, bytes]:
        """Where to write what, so that the file says what is held *now*, in seconds since the boot.

        A page leaves out what nobody has renewed in time: others may hold that.
        """
        if self._end >= self._largest or len(self._held) <= len(self._changed) + len(self._dropped):
            self._generation += 1
            self._held = {key: entry for key, entry in self._held.items() if entry.until > now}
            page = Page(VERSION, self._boot, self._file, self._generation, list(self._held.values()))
            start, frame = 0, _frame(page)
            self._largest = max(_LEAST_NBYTES, 2 * len(frame))
        else:
            start, frame = self._end, _frame(Change(self._generation, self._changed, self._dropped))
        self._end = start + len(frame)
        self._changed, self._dropped = [], []
        return start, frame


def read(content: bytes, *, boot: str, file: str) -> list[Entry]:
    """What was held when *content* was last written to, which lies in *file*. Raises JournalUnreadableError."""
    payload, position = _payload_at(content, 0)
    if payload is None:
        raise JournalUnreadableError("its first page is damaged")
    try:
        version = msgspec.msgpack.decode(_read_version(payload)[0])
        if version != VERSION:
            raise JournalUnreadableError(f"it is of version {version!r}, and this program writes version {VERSION}")
        page = _read_page(payload)
    except (msgspec.MsgspecError, IndexError) as error:
        raise JournalUnreadableError(f"its first page is damaged: {error}") from None
    if page.boot != boot:
        raise JournalUnreadableError("it was written before this machine was started, or by another machine")
    if page.file != file:
        raise JournalUnreadableError("it is a copy of another file, whose holder may be alive")
    held = {entry.number: entry for entry in page.held}
    while (change := _change_at(content, position)) is not None and change[0].generation == page.generation:
        held.update((entry.number, entry) for entry in change[0].held)
        for number in change[0].dropped:
            held.pop(number, None)
        position = change[1]
    return [entry for entry in held.values() if not math.isnan(entry.until)]


def _frame(content: Page | Change) -> bytes:
    payload = _encoder.encode(content)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _change_at(content: bytes, position: int) -> tuple[Change, int] | None:
    """The change that begins at *position*, and where it ends."""
    payload, end = _payload_at(content, position)
    if payload is None:
        return None
    try:
        return _read_change(payload), end
    except msgspec.MsgspecError:
        return None


def _payload_at(content: bytes, position: int) -> tuple[bytes | None, int]:
    start = position + _FRAME.size
    if start > len(content):
        return None, position
    nbytes, checksum = _FRAME.unpack_from(content, position)
    payload = content[start : start + nbytes]
    is_whole = len(payload) == nbytes and nbytes > 0 and zlib.crc32(payload) == checksum
    return (payload, start + nbytes) if is_whole else (None, position)
