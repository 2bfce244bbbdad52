"""Which tensor the text of a long JSON answer is, found piece by piece and without Python's lists. Pure.

Of short ones outputs.py makes lists: that is simpler, and the two agree.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from dumbwaiter.gateway.oip.datatypes import BYTES, DATATYPES
from dumbwaiter.gateway.oip.numbers import AT_ONCE, nested_nbytes, pack_numbers
from dumbwaiter.gateway.oip.tensors import (
    MOST_DIMENSIONS,
    SCALARS,
    WHITE,
    nested,
    number_lists,
    slices,
    strings_in,
)

Found = tuple[str, tuple[int, ...], Any]
"""Datatype, shape and data."""

_BOOL, _INT, _FLOAT = DATATYPES["BOOL"], DATATYPES["INT64"], DATATYPES["FP64"]
_decode_string = msgspec.json.Decoder(str).decode
_decode_valid = msgspec.json.Decoder(msgspec.Raw).decode


def holds_objects(text: bytes) -> bool:
    """Whether *text* begins as an object, or as a list of them: then it is no tensor."""
    return text[:64].lstrip(b"[" + WHITE).startswith(b"{")


def find_tensor(text: bytes) -> Found | None:
    """The tensor of numbers, of booleans or of texts that *text* is; None when it is anything else."""
    if holds_objects(text):
        return None
    try:
        _decode_valid(text)
        return _find_texts(text) if b'"' in text else _find_numbers(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError, struct.error, OverflowError):
        return None  # no JSON, lists of different lengths, a number beyond 64 bits, or half a character


def turn_to_floats(integers: bytearray) -> None:
    """Make elements of INT64 those of FP64, in place."""
    for start in range(0, len(integers), 8 * AT_ONCE):
        part = integers[start : start + 8 * AT_ONCE]
        integers[start : start + len(part)] = pack_numbers(_FLOAT, struct.unpack(f"<{len(part) // 8}q", part))


def _find_numbers(text: bytes) -> Found | None:
    skeleton = b"".join(part.translate(None, SCALARS) for part in slices(text))
    is_empty = not any(part.translate(None, b"[]," + WHITE) for part in slices(text))
    shape = _shape_of(skeleton, is_empty=is_empty)
    if shape is None:
        return None
    if is_empty:
        return _FLOAT.name, shape, b""
    numbers = _Numbers()
    for piece in number_lists(text):
        if not numbers.add(msgspec.json.decode(piece)):
            return None
    found = numbers.datatype
    if len(numbers.packed) != math.prod(shape) * found.nbytes or not numbers.is_sound:
        return None
    return found.name, shape, memoryview(numbers.packed)


class _Numbers:
    """Numbers of one kind, or whole ones and others mixed, which are FP64 then."""

    def __init__(self) -> None:
        self.packed = bytearray()
        self.datatype = _FLOAT
        self._kinds: set[type] = set()
        self._is_too_large = False

    @property
    def is_sound(self) -> bool:
        """Whole numbers beyond 64 bits are no INT64, but among others they are FP64."""
        return float in self._kinds or not self._is_too_large

    def add(self, values: list[Any]) -> bool:
        """Take *values*; False when they go with none of the datatypes, or not with those before."""
        before = self._kinds
        self._kinds = kinds = before | set(map(type, values))
        if kinds == {bool}:
            self.datatype = _BOOL
        elif not kinds <= {int, float}:
            return False
        elif float in kinds or self._is_too_large:
            self._become_floats(before)
        else:
            self.datatype = _INT
        try:
            self.packed += pack_numbers(self.datatype, values)
        except struct.error:
            self._is_too_large = True
            self._become_floats(before)
            self.packed += pack_numbers(_FLOAT, values)
        return True

    def _become_floats(self, before: set[type]) -> None:
        if before == {int} and self.datatype is _INT:
            turn_to_floats(self.packed)
        self.datatype = _FLOAT


def _find_texts(text: bytes) -> Found | None:
    strings: list[bytes] = []
    skeleton = bytearray()
    for beside, string in _parts(text):
        if beside.translate(None, b"[],"):
            return None
        skeleton += beside
        if string:
            strings.append(_decode_string(string).encode())
    shape = _shape_of(bytes(skeleton), is_empty=False)
    return (BYTES, shape, strings) if shape is not None and math.prod(shape) == len(strings) else None


def _parts(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What stands before a string, and the string; the last one is empty."""
    end = 0
    for begin, after in strings_in(text):
        yield text[end:begin].translate(None, WHITE), text[begin:after]
        end = after
    yield text[end:].translate(None, WHITE), b""


def _shape_of(skeleton: bytes, *, is_empty: bool) -> tuple[int, ...] | None:
    """The shape whose brackets and commas are *skeleton*, if there is one: from the first list of each depth."""
    depth = len(skeleton) - len(skeleton.lstrip(b"["))
    if depth > MOST_DIMENSIONS:
        return None
    lengths: list[int] = []
    inner = 0
    for level in range(1, depth + 1):
        outer = skeleton.find(b"]" * level) + 2 * level - depth
        lengths.append((outer - 1) // (inner + 1))
        inner = outer
    if lengths and is_empty:
        lengths[0] = 0
    shape = tuple(reversed(lengths))
    fits = len(skeleton) == nested_nbytes(shape) and skeleton == nested(shape)
    return shape if fits else None
