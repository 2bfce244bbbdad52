"""Tensors in a request and in a response: as JSON, nested or flat, and as binary data. Pure.

A tensor is held as little-endian, row-major bytes, or as a list of byte strings when its datatype is BYTES. What a
shape promises is checked against the text before anything is decoded, and numbers are decoded in pieces, so that a
request costs memory in proportion to its bytes. Source of the binary form:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import codecs
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from dumbwaiter.gateway.http.problems import one_line
from dumbwaiter.gateway.oip.datatypes import BYTES, DATATYPES, Datatype
from dumbwaiter.gateway.oip.numbers import NotJsonError, nested_nbytes, pack_numbers, write_nested
from dumbwaiter.gateway.oip.problems import refused

MOST_STRINGS = 4096
"""A tensor of BYTES has at most so many elements."""
MOST_DIMENSIONS = 32
ELEMENT_NBYTES = 48
"""What an element of BYTES occupies beside its text: a Python object, and its place in a list."""

PIECE_NBYTES = 64 * 1024
"""Data are gone through in pieces of some so many bytes, in memory and on their way out."""

WHITE = b" \t\r\n"
#: All that a list of numbers and booleans consists of, but for brackets and commas.
SCALARS = bytes(sorted(set(b"0123456789+-.eE" + b"true" + b"false" + b"null" + b"NaInfinty" + WHITE)))
_utf8 = codecs.getincrementaldecoder("utf-8")
_decode_string = msgspec.json.Decoder(str).decode
_decoders: Mapping[str, Callable[[bytes], list[Any]]] = {
    "bool": msgspec.json.Decoder(list[bool | int]).decode,
    "int": msgspec.json.Decoder(list[int]).decode,
    "float": msgspec.json.Decoder(list[float]).decode,
}


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """*datatype* is a name of the protocol's; *data* as the module says."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview | list[bytes]

    @property
    def nbytes(self) -> int:
        """What it occupies in memory."""
        if isinstance(self.data, list):
            return sum(ELEMENT_NBYTES + len(one) for one in self.data)
        return len(self.data)

    @property
    def count(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    def elements(self) -> list[bytes]:
        """Those of a tensor of BYTES."""
        if not isinstance(self.data, list):
            raise TypeError(f"tensor {self.name!r} is of {self.datatype}")
        return self.data

    def buffer(self) -> bytes | memoryview:
        """The bytes of a tensor of numbers."""
        if isinstance(self.data, list):
            raise TypeError(f"tensor {self.name!r} is of BYTES")
        return self.data


def check_shape(name: str, datatype: str, shape: Sequence[int]) -> int:
    """How many elements there are. Raises ProblemError (400) for an unknown datatype or an impossible shape."""
    if datatype != BYTES and datatype not in DATATYPES:
        known = ", ".join([*DATATYPES, BYTES])
        raise refused(f"{_input(name)}: unknown datatype {one_line(datatype)[:40]!r}; known: {known}")
    if len(shape) > MOST_DIMENSIONS:
        raise refused(f"{_input(name)} has {len(shape)} dimensions; at most {MOST_DIMENSIONS} are taken")
    count = math.prod(shape)
    if datatype == BYTES and count > MOST_STRINGS:
        raise refused(f"{_input(name)} has more than {MOST_STRINGS} elements of BYTES; split the request")
    return count


def read_binary(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Tensor:
    """The tensor whose binary form *data* is. Raises ProblemError (400) where the two do not fit."""
    count = check_shape(name, datatype, shape)
    if datatype == BYTES:
        strings = _read_strings(name, count, data)
        return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=strings)
    wanted = count * DATATYPES[datatype].nbytes
    if wanted != len(data):
        shown = f"shape {_shown(shape)} of {datatype} is {wanted} bytes"
        raise refused(f"{_input(name)}: {shown}, but binary_data_size is {len(data)}")
    if datatype == "BOOL" and any(part.translate(None, b"\x00\x01") for part in slices(data)):
        raise refused(f"{_input(name)}: a BOOL is a byte of 0 or 1")
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=data)


def read_json(name: str, datatype: str, shape: Sequence[int], text: bytes) -> Tensor:
    """The tensor that *text*, valid JSON, holds: nested as *shape* says, or flat. Raises ProblemError (400)."""
    count = check_shape(name, datatype, shape)
    if datatype == "BF16":
        raise refused(f"{_input(name)}: JSON has no form for BF16; send it as binary data")
    if datatype == BYTES:
        strings, skeleton = _find_strings(name, count, text)
        _check_nesting(name, shape, count, skeleton)
        return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=strings)
    _check_nesting(name, shape, count, b"".join(part.translate(None, SCALARS) for part in slices(text)))
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=_pack(name, DATATYPES[datatype], count, text))


def most_reading_nbytes(datatype: str, count: int, text: bytes) -> int:
    """A bound for what read_json() takes beside *text* for *count* elements."""
    if datatype == BYTES:
        # One character beyond ASCII can make each of a text's characters four bytes long in memory.
        return (3 if text.isascii() and b"\\u" not in text else 6) * len(text)
    return len(text) + min(count, len(text) // 2 + 1) * DATATYPES[datatype].nbytes


def binary_nbytes(tensor: Tensor) -> int:
    """The length of its binary form."""
    if tensor.datatype != BYTES:
        return len(tensor.buffer())
    return sum(4 + len(one) for one in tensor.elements())


def write_binary(tensor: Tensor) -> Iterator[bytes]:
    """Its binary form, piece by piece."""
    if tensor.datatype != BYTES:
        yield from slices(tensor.buffer())
        return
    for one in tensor.elements():
        yield struct.pack("<I", len(one))
        yield from slices(one)


def write_json(tensor: Tensor) -> Iterator[bytes]:
    """Its elements as a flat JSON list, piece by piece. Raises ProblemError (400) for what JSON cannot carry."""
    try:
        if tensor.datatype == BYTES:
            yield from _write_texts(tensor.elements())
        else:
            yield from write_nested(DATATYPES[tensor.datatype], (tensor.count,), tensor.buffer())
    except UnicodeDecodeError:
        raise refused(
            f'output {tensor.name!r} holds bytes that are no text; ask for them with "binary_data_output": true'
        ) from None
    except NotJsonError:
        raise refused(
            f"output {tensor.name!r} holds NaN or infinity, which JSON cannot carry; ask for it with"
            ' "binary_data_output": true'
        ) from None


def slices(data: bytes | memoryview) -> Iterator[bytes]:
    """*data* in pieces of PIECE_NBYTES."""
    for start in range(0, len(data), PIECE_NBYTES):
        yield bytes(data[start : start + PIECE_NBYTES])


def _write_texts(elements: Sequence[bytes]) -> Iterator[bytes]:
    yield b"["
    for place, element in enumerate(elements):
        yield b',"' if place else b'"'
        decoder = _utf8()
        for part in slices(element):
            yield msgspec.json.encode(decoder.decode(part))[1:-1]
        decoder.decode(b"", final=True)
        yield b'"'
    yield b"]"


def _pack(name: str, datatype: Datatype, count: int, text: bytes) -> memoryview:
    packed = bytearray()
    decode = _decoders[datatype.family]
    for piece in number_lists(text) if count else ():
        try:
            values = decode(piece)
            if datatype.family == "bool" and any(value not in (0, 1) for value in values):
                raise refused(f"{_input(name)}: a BOOL is true or false")
            packed += pack_numbers(datatype, values)
        except (OverflowError, struct.error):
            raise refused(f"{_input(name)}: some of its numbers do not fit {datatype.name}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            reason = one_line(str(error)).partition(" - at ")[0]
            raise refused(f"{_input(name)}: its data are no {datatype.name}: {reason}") from None
    if len(packed) != count * datatype.nbytes:
        raise refused(f"{_input(name)}: its data are no {count} elements of {datatype.name}")
    return memoryview(packed)


def number_lists(text: bytes) -> Iterator[bytes]:
    """The numbers of *text*, nested lists of them in JSON, as short flat JSON lists."""
    start = 0
    while start < len(text):
        end = text.find(b",", start + PIECE_NBYTES)
        end = len(text) if end < 0 else end
        yield b"[" + text[start:end].translate(None, b"[]" + WHITE) + b"]"
        start = end + 1


def _check_nesting(name: str, shape: Sequence[int], count: int, skeleton: bytes) -> None:
    """*skeleton*: the text's brackets and commas, and whatever else should not be there."""
    if skeleton.translate(None, b"[],"):
        raise refused(f"{_input(name)}: its data are no (nested) list of what its datatype says")
    # The lengths first, because what the shape promises may be larger than memory.
    flat = 2 + max(count - 1, 0)
    if len(skeleton) == flat and skeleton == b"[" + b"," * (flat - 2) + b"]":
        return
    if len(skeleton) != nested_nbytes(shape) or skeleton != nested(shape):
        found = skeleton.count(b",") + 1
        raise refused(
            f"{_input(name)}: its data do not fit shape {_shown(shape)}, {count} elements, neither nested nor flat"
            + (f"; it seems to have {found}" if found != count else "")
        )


def nested(shape: Sequence[int]) -> bytes:
    """The brackets and commas of JSON lists of *shape*."""
    text = b""
    for length in reversed(shape):
        text = b"[" + (text + b",") * (length - 1) + text + b"]" if length else b"[]"
    return text


def _find_strings(name: str, count: int, text: bytes) -> tuple[list[bytes], bytes]:
    """The elements, and what is there beside them."""
    strings: list[bytes] = []
    beside: list[bytes] = []
    end = 0
    for begin, after in strings_in(text):
        if len(strings) == count:
            raise refused(f"{_input(name)} has more elements than the {count} of its shape")
        beside.append(text[end:begin].translate(None, WHITE))
        end = after
        try:
            strings.append(_decode_string(text[begin:after]).encode())
        except (msgspec.DecodeError, UnicodeError) as error:
            raise refused(f"{_input(name)}: element {len(strings)} is no text: {one_line(str(error))}") from None
    if len(strings) != count:
        raise refused(f"{_input(name)} has {len(strings)} strings as its data, not the {count} of its shape")
    beside.append(text[end:].translate(None, WHITE))
    return strings, b"".join(beside)


def strings_in(text: bytes) -> Iterator[tuple[int, int]]:
    """Where the strings of *text*, valid JSON, begin and end. A regular expression would go over a long one in one
    step, for as long as it takes.
    """
    begin = text.find(b'"')
    while begin >= 0:
        start = begin + 1
        while True:
            end = text.find(b'"', start)
            if end < 0:
                return
            part = text[start:end]
            start = end + 1
            if (len(part) - len(part.rstrip(b"\\"))) % 2 == 0:
                break
        yield begin, start
        begin = text.find(b'"', start)


def _read_strings(name: str, count: int, data: memoryview) -> list[bytes]:
    strings: list[bytes] = []
    offset = 0
    while offset < len(data):
        start = offset + 4
        offset = start + int.from_bytes(data[offset:start], "little")
        if start > len(data) or offset > len(data):
            raise refused(f"{_input(name)}: element {len(strings)} says that it ends beyond the binary data")
        if len(strings) == count:
            break
        strings.append(bytes(data[start:offset]))
    else:
        if len(strings) == count:
            return strings
    more = "more than " if len(strings) == count else ""
    raise refused(f"{_input(name)} has {more}{len(strings)} elements of BYTES, not the {count} of its shape")


def _input(name: str) -> str:
    return f"input {one_line(name)[:80]!r}"


def _shown(shape: Sequence[int]) -> str:
    return one_line(str(list(shape)))[:120]
