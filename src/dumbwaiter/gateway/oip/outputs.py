"""From answers to the output tensor. Pure.

Arrays (``.npy``), and JSON numbers, booleans or texts in lists that are rectangular, become tensors of their own
shape, stacked when there are several. What does not stack, and all else, is BYTES: an element for each answer, which is
its body.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from dumbwaiter.content_types import parse_content_type
from dumbwaiter.gateway.oip.datatypes import BYTES, DATATYPES
from dumbwaiter.gateway.oip.long_json import find_tensor, holds_objects, turn_to_floats
from dumbwaiter.gateway.oip.npy import NotNpyError, is_rearranged, read_npy
from dumbwaiter.gateway.oip.numbers import pack_numbers
from dumbwaiter.gateway.oip.tensors import ELEMENT_NBYTES, MOST_DIMENSIONS, PIECE_NBYTES, Tensor, slices

_ELEMENT_NBYTES = 8  # of INT64 and of FP64
_FAMILIES = {bool: "BOOL", int: "INT64", float: "FP64", str: BYTES}


class _Part(msgspec.Struct, frozen=True):
    """One answer: numbers as bytes, or with datatype BYTES a list of them."""

    datatype: str
    shape: tuple[int, ...]
    data: Any


def join(lead: Sequence[int], answers: Sequence[tuple[str | None, bytes]], *, name: str) -> Tensor:
    """The output *name* of *answers*, content type and body, in the order of the requests; *lead* as in Split."""
    parts = _alike([_part_of(content_type, body) for content_type, body in answers])
    if parts is None:
        return Tensor(name=name, datatype=BYTES, shape=tuple(lead) or (1,), data=[body for _, body in answers])
    first = parts[0]
    data: Any = [one for part in parts for one in part.data] if first.datatype == BYTES else _joined(parts)
    # Not every client knows tensors without dimensions.
    return Tensor(name=name, datatype=first.datatype, shape=(*lead, *first.shape) or (1,), data=data)


def most_join_nbytes(answers: Sequence[tuple[str | None, bytes]]) -> int:
    """A bound for what join() takes beside *answers*, what it does in between included."""
    nbytes = 0
    for content_type, body in answers:
        said = parse_content_type(content_type)
        if said.is_json:
            nbytes += _most_json_nbytes(body, 1 if len(answers) == 1 else 2)
        elif said.is_npy:
            nbytes += (len(answers) > 1) * len(body) + (3 * len(body) if is_rearranged(body) else 0)
        nbytes += ELEMENT_NBYTES
    return nbytes


def _most_json_nbytes(body: bytes, copies: int) -> int:
    """A bound for what becomes of *body*, of which there are *copies* when it is stacked with others."""
    if holds_objects(body):
        return 0
    commas, brackets, quotes = (sum(part.count(mark) for part in slices(body)) for mark in (b",", b"[", b'"'))
    skeletons = 3 * (commas + 2 * brackets)  # what is there, without its first brackets, and what should be there
    numbers = (commas + 1) * (_ELEMENT_NBYTES * copies + 1)  # a growing array has a little more than it needs
    texts = quotes // 2 * ELEMENT_NBYTES + len(body) if quotes else 0
    return skeletons + numbers + texts


def _joined(parts: Sequence[_Part]) -> bytes | memoryview:
    data: bytes | memoryview = parts[0].data if len(parts) == 1 else b"".join(part.data for part in parts)
    return data


def _alike(parts: Sequence[_Part | None]) -> list[_Part] | None:
    """*parts* with one datatype and shape, or None where they differ."""
    there = [part for part in parts if part is not None]
    if len(there) != len(parts):
        return None
    # A model that says 1 here and 1.5 there speaks of one kind of number.
    if {part.datatype for part in there} == {"INT64", "FP64"}:
        there = [_as_floats(part) for part in there]
    alike = len({(part.datatype, part.shape) for part in there}) == 1
    return there if alike else None


def _as_floats(part: _Part) -> _Part:
    if part.datatype == "FP64":
        return part
    data = bytearray(part.data)
    turn_to_floats(data)
    return _Part("FP64", part.shape, data)


def _part_of(content_type: str | None, body: bytes) -> _Part | None:
    said = parse_content_type(content_type)
    if said.is_npy:
        try:
            npy = read_npy(body)
        except NotNpyError:
            return None
        return _Part(npy.datatype.name, npy.shape, npy.data)
    if said.is_json:
        return _part_of_json(body)
    return _Part(BYTES, (), [body])


def _part_of_json(body: bytes) -> _Part | None:
    if len(body) > PIECE_NBYTES:
        found = find_tensor(body)
        return None if found is None else _Part(*found)
    try:
        value = msgspec.json.decode(body)
        shape = _shape_of(value)
        flat = _flat(value, shape)
    except (msgspec.DecodeError, UnicodeError, RecursionError, _RaggedError):
        return None
    kinds = {type(one) for one in flat}
    if kinds == {int, float}:
        kinds = {float}
    datatype = _FAMILIES.get(kinds.pop() if kinds else float) if len(kinds) < 2 else None
    if datatype is None:
        return None
    try:
        data = [one.encode() for one in flat] if datatype == BYTES else pack_numbers(DATATYPES[datatype], flat)
    except (struct.error, OverflowError, UnicodeEncodeError):
        return None  # a number beyond 64 bits, or half a character
    return _Part(datatype, shape, data)


class _RaggedError(Exception):
    """The lists are of different lengths or depths."""


def _shape_of(value: Any) -> tuple[int, ...]:
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    if len(shape) > MOST_DIMENSIONS:
        raise _RaggedError
    return tuple(shape)


def _flat(value: Any, shape: tuple[int, ...]) -> list[Any]:
    level = [value]
    for length in shape:
        if any(not isinstance(one, list) or len(one) != length for one in level):
            raise _RaggedError
        level = [inner for one in level for inner in one]
    return level
