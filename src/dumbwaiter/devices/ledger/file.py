"""The bytes of a device's ledger: a header and slots of fixed size. Pure: no file, no clock.

A slot holds its record twice, in copies that are written in turn: copy A when the record's number is even, copy B when
it is odd. Each has its number and a checksum over all of its bytes, so that a write that was cut off, or a bit that
flipped, spoils one copy and is noticed. Both copies are good, and their numbers follow each other, in every slot that
is *whole*; one that was never used is all zeros.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import msgspec

FORMAT = 1
"""The format of the ledgers that this program makes."""
OLDEST_WRITER = 1
"""The oldest format whose programs may write to a ledger that this program makes."""
MOST_SEATS = 256
"""No more than this many processes share a device."""
HEADER_NBYTES = 1024
SLOT_NBYTES = 1024
LEDGER_NBYTES = HEADER_NBYTES + MOST_SEATS * SLOT_NBYTES
"""The largest that a ledger grows: it is as long as the highest slot that was ever taken needs."""
_COPY_NBYTES = SLOT_NBYTES // 2
_COPY = struct.Struct("<QH")
_HEADER = struct.Struct("<15sxI")
_CHECKSUM = struct.Struct("<I")
_MAGIC = b"dumbwaiter-book"
_ZEROS = bytes(_COPY_NBYTES)
MOST_RECORD_NBYTES = _COPY_NBYTES - _COPY.size - _CHECKSUM.size
"""A record is at most so long, as msgpack."""


class NoLedgerError(Exception):
    """These bytes are no ledger's; the text says why, as the end of a sentence about the file."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Whose ledger it is, in all versions of the format alike; only fields with defaults may be added.

    *device* is the device's name and *capacity* its bytes; *boot* names the run of the machine and *clock* its clock of
    boots, which the times in records are of. Programs of a format before *oldest_writer* must leave the file alone.
    """

    format: int
    oldest_writer: int
    device: str
    capacity: int
    boot: str
    clock: str


class Slot(NamedTuple):
    """What lies in a slot: the newest good record and its *number*.

    *payload* is empty in a slot that holds no record, and None when none can be read. Where the slot is not whole, what
    was written last may be another record than *payload*.
    """

    number: int
    payload: bytes | None
    is_whole: bool

    @property
    def is_vacant(self) -> bool:
        """Whether it holds no record for certain, though it was used before."""
        return self.is_whole and not self.payload and self.number > 0


BLANK = Slot(0, b"", is_whole=True)
"""A slot that was never used."""
_encode = msgspec.msgpack.Encoder().encode
_read_header = msgspec.msgpack.Decoder(Header).decode


def header_page(header: Header) -> bytes:
    """The bytes of *header*. Raises ValueError when the device's name is too long."""
    payload = _encode(header)
    page = _HEADER.pack(_MAGIC, len(payload)) + payload
    if len(page) > HEADER_NBYTES - _CHECKSUM.size:
        raise ValueError(f"the device's name {header.device[:40]!r}... is too long for a ledger")
    return _sealed(page, HEADER_NBYTES)


def read_header(page: bytes) -> Header:
    """The header that *page*, the first HEADER_NBYTES of a file, holds. Raises NoLedgerError."""
    if page[: len(_MAGIC)] != _MAGIC:
        raise NoLedgerError("is no ledger")
    if len(page) < HEADER_NBYTES or not _is_sealed(page):
        raise NoLedgerError("has a damaged header")
    _, nbytes = _HEADER.unpack_from(page)
    try:
        return _read_header(page[_HEADER.size : _HEADER.size + nbytes])
    except msgspec.MsgspecError as error:
        raise NoLedgerError(f"has a header of another kind ({error})") from None


def start_of(place: int) -> int:
    """Where the slot number *place* begins in the file."""
    return HEADER_NBYTES + place * SLOT_NBYTES


def read_slot(slot: bytes) -> Slot:
    """What the SLOT_NBYTES bytes of a slot say."""
    halves = slot[:_COPY_NBYTES], slot[_COPY_NBYTES:]
    if halves[0] == _ZEROS == halves[1]:
        return BLANK
    copies = [copy for place, half in enumerate(halves) if (copy := _read_copy(half, place)) is not None]
    if not copies:
        return Slot(0, None, is_whole=False)
    number, payload = max(copies)
    is_whole = len(copies) == 2 and number - min(copies)[0] == 1
    return Slot(number, payload, is_whole)


def next_write(slot: Slot, payload: bytes) -> tuple[int, bytes]:
    """Where in *slot* to write what, so that it holds *payload*. Raises ValueError when that is too long.

    A slot that is not whole is written as a whole; so is a new one, in which a copy of zeros would be no copy.
    """
    if len(payload) > MOST_RECORD_NBYTES:
        raise ValueError(f"a record of {len(payload)} bytes is too long for a ledger (at most {MOST_RECORD_NBYTES})")
    number = slot.number + 1
    if slot.is_whole and slot.number:
        return number % 2 * _COPY_NBYTES, _copy(number, payload)
    odd = number + 1 - number % 2
    return 0, _copy(odd + 1, payload) + _copy(odd, payload)


def _copy(number: int, payload: bytes) -> bytes:
    return _sealed(_COPY.pack(number, len(payload)) + payload, _COPY_NBYTES)


def _read_copy(half: bytes, place: int) -> tuple[int, bytes] | None:
    if not _is_sealed(half):
        return None
    number, nbytes = _COPY.unpack_from(half)
    return (number, half[_COPY.size : _COPY.size + nbytes]) if number % 2 == place else None


def _sealed(content: bytes, nbytes: int) -> bytes:
    padded = content.ljust(nbytes - _CHECKSUM.size, b"\0")
    return padded + _CHECKSUM.pack(zlib.crc32(padded))


def _is_sealed(content: bytes) -> bool:
    end = len(content) - _CHECKSUM.size
    (checksum,) = _CHECKSUM.unpack_from(content, end)
    return bool(zlib.crc32(memoryview(content)[:end]) == checksum)
