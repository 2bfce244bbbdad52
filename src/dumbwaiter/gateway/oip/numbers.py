"""Numbers as little-endian bytes, as Python's own, and as JSON. Pure.

A Python number takes up to 16 times the bytes of what it was made from, and making many of them in one call keeps the
interpreter from all else. So long runs of numbers are turned from one form into another in pieces.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from dumbwaiter.errors import DumbwaiterError
from dumbwaiter.gateway.oip.datatypes import Datatype

AT_ONCE = 8192
"""So many numbers are Python objects at a time."""

#: The most characters of JSON that one element takes, with a comma. BF16, FP16 and FP32 are written as doubles.
_WIDTHS: Mapping[str, int] = {
    "BOOL": 6,
    "INT8": 5,
    "INT16": 7,
    "INT32": 12,
    "INT64": 21,
    "UINT8": 4,
    "UINT16": 6,
    "UINT32": 11,
    "UINT64": 21,
    **dict.fromkeys(("FP16", "FP32", "FP64", "BF16"), 25),
}


class NotJsonError(DumbwaiterError):
    """NaN or infinity, which JSON cannot carry."""


def widen(data: bytes | memoryview) -> memoryview:
    """Elements of BF16 as those of FP32, exactly: the other half of the fraction is zero."""
    wide = bytearray(2 * len(data))
    for start in range(0, len(data), 2 * AT_ONCE):
        part = bytes(data[start : start + 2 * AT_ONCE])
        begin, end = 2 * start, 2 * (start + len(part))
        wide[begin + 2 : end : 4] = part[0::2]
        wide[begin + 3 : end : 4] = part[1::2]
    return memoryview(wide)


def numbers_of(datatype: Datatype, data: bytes | memoryview) -> tuple[Any, ...]:
    """The elements as Python's numbers or booleans; *data* is one piece, or short."""
    if datatype.code is None:
        return struct.unpack(f"<{len(data) // datatype.nbytes}f", widen(data))
    return struct.unpack(f"<{len(data) // datatype.nbytes}{datatype.code}", data)


def pack_numbers(datatype: Datatype, values: Sequence[Any]) -> bytes:
    """The little-endian bytes of *values*. Raises OverflowError or struct.error for what does not fit."""
    return struct.pack(f"<{len(values)}{datatype.code}", *values)


def nested_nbytes(shape: Sequence[int]) -> int:
    """How many brackets and commas JSON has for *shape*."""
    nbytes = 0
    for length in reversed(shape):
        nbytes = 2 + length * nbytes + max(length - 1, 0)
    return nbytes


def most_json_nbytes(datatype: Datatype, shape: Sequence[int]) -> int:
    """A bound for the length of what write_nested() writes."""
    return nested_nbytes(shape) + math.prod(shape) * _WIDTHS[datatype.name]


def write_nested(datatype: Datatype, shape: Sequence[int], data: bytes | memoryview) -> Iterator[bytes]:
    """The elements in JSON lists, nested as *shape* says (not at all for ``()``), piece by piece.

    *shape* has elements, or is ``(0,)``. Raises NotJsonError.
    """
    if not shape:
        yield _encode(numbers_of(datatype, data)[0])
        return
    row = math.prod(shape[1:])
    if row > AT_ONCE:
        size = row * datatype.nbytes
        for place in range(shape[0]):
            yield b"," if place else b"["
            yield from write_nested(datatype, shape[1:], data[place * size : (place + 1) * size])
        yield b"]"
        return
    size = max(1, AT_ONCE // row) * row * datatype.nbytes
    yield b"["
    for start in range(0, len(data), size):
        rows = _nest(numbers_of(datatype, data[start : start + size]), shape[1:])
        yield (b"," if start else b"") + _encode(rows)[1:-1]
    yield b"]"


def gather(pieces: Iterable[bytes]) -> bytes:
    """All of *pieces* as one; unlike with a join, no second copy of them is there for a while."""
    file = io.BytesIO()
    file.writelines(pieces)
    return file.getvalue()


def _nest(values: Sequence[Any], shape: Sequence[int]) -> Sequence[Any]:
    for length in reversed(shape):
        values = [values[start : start + length] for start in range(0, len(values), length)]
    return values


def _encode(value: Any) -> bytes:
    encoded = msgspec.json.encode(value)
    if b"null" in encoded:
        raise NotJsonError("NaN and infinity have no form in JSON")
    return encoded
