"""Tensors in a request and in a response: as JSON, nested or flat, and as binary data. Pure.

A tensor is held as little-endian, row-major bytes, or as a list of byte strings when its datatype is BYTES. What a
shape promises is checked against the text before anything is decoded, and numbers are decoded in pieces, so that a
request costs memory in proportion to its bytes. Source of the binary form:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from dumbwaiter.gateway.http.problems import one_line
from dumbwaiter.gateway.oip.datatypes import BYTES, DATATYPES, Datatype
from dumbwaiter.gateway.oip.problems import refused

MOST_STRINGS = 4096
"""A tensor of BYTES has at most so many elements."""
MOST_DIMENSIONS = 32

_AT_ONCE = 65536  # characters of JSON that are decoded together
#: Possessive: what could never match otherwise need not be remembered.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_WHITE = b" \t\r\n"
#: All that a list of numbers and booleans consists of, but for brackets and commas.
_SCALARS = bytes(sorted(set(b"0123456789+-.eE" + b"true" + b"false" + b"null" + b"NaInfinty" + _WHITE)))
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
    if datatype == "BOOL" and bytes(data).translate(None, b"\x00\x01"):
        raise refused(f"{_input(name)}: a BOOL is a byte of 0 or 1")
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=data)


def read_json(name: str, datatype: str, shape: Sequence[int], text: bytes) -> Tensor:
    """The tensor that *text*, valid JSON, holds: nested as *shape* says, or flat. Raises ProblemError (400)."""
    count = check_shape(name, datatype, shape)
    if datatype == "BF16":
        raise refused(f"{_input(name)}: JSON has no form for BF16; send it as binary data")
    if datatype == BYTES:
        strings = _find_strings(name, count, text)
        _check_nesting(name, shape, count, _without_strings(text))
        return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=strings)
    _check_nesting(name, shape, count, text.translate(None, _SCALARS))
    flat = text.translate(None, b"[]" + _WHITE)
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=_pack(name, DATATYPES[datatype], count, flat))


def widen(data: bytes | memoryview) -> bytes:
    """Elements of BF16 as those of FP32, exactly: the other half of the fraction is zero."""
    wide = bytearray(2 * len(data))
    wide[2::4] = data[0::2]
    wide[3::4] = data[1::2]
    return bytes(wide)


def write_binary(tensor: Tensor) -> bytes | memoryview:
    """Its binary form."""
    if tensor.datatype != BYTES:
        return tensor.buffer()
    return b"".join(part for one in tensor.elements() for part in (struct.pack("<I", len(one)), one))


def write_json(tensor: Tensor) -> bytes:
    """Its elements as a flat JSON list. Raises ProblemError (400) for what JSON cannot carry."""
    if tensor.datatype == BYTES:
        try:
            return msgspec.json.encode([one.decode() for one in tensor.elements()])
        except UnicodeDecodeError:
            raise refused(
                f'output {tensor.name!r} holds bytes that are no text; ask for them with "binary_data_output": true'
            ) from None
    datatype = DATATYPES[tensor.datatype]
    encoded = msgspec.json.encode(numbers_of(datatype, tensor.buffer()))
    if b"null" in encoded:
        raise refused(
            f"output {tensor.name!r} holds NaN or infinity, which JSON cannot carry; ask for it with"
            ' "binary_data_output": true'
        )
    return encoded


def numbers_of(datatype: Datatype, data: bytes | memoryview) -> tuple[Any, ...]:
    """The elements as Python's numbers or booleans."""
    if datatype.code is None:
        return struct.unpack(f"<{len(data) // datatype.nbytes}f", widen(data))
    return struct.unpack(f"<{len(data) // datatype.nbytes}{datatype.code}", data)


def pack_numbers(datatype: Datatype, values: Sequence[Any]) -> bytes:
    """The little-endian bytes of *values*. Raises OverflowError or struct.error for what does not fit."""
    return struct.pack(f"<{len(values)}{datatype.code}", *values)


def _pack(name: str, datatype: Datatype, count: int, flat: bytes) -> memoryview:
    packed = bytearray()
    decode = _decoders[datatype.family]
    for piece in _pieces(flat if count else flat.strip(b",")):
        try:
            values = decode(b"[" + piece + b"]")
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


def _pieces(flat: bytes) -> Iterator[bytes]:
    """*flat*, numbers with commas between, cut at commas."""
    start = 0
    while start < len(flat):
        end = flat.find(b",", start + _AT_ONCE)
        end = len(flat) if end < 0 else end
        yield flat[start:end]
        start = end + 1


def _check_nesting(name: str, shape: Sequence[int], count: int, skeleton: bytes) -> None:
    """*skeleton*: the text's brackets and commas, and whatever else should not be there."""
    if skeleton.translate(None, b"[],"):
        raise refused(f"{_input(name)}: its data are no (nested) list of what its datatype says")
    # The lengths first, because what the shape promises may be larger than memory.
    flat = 2 + max(count - 1, 0)
    if len(skeleton) == flat and skeleton == b"[" + b"," * (flat - 2) + b"]":
        return
    nested = 0
    for length in reversed(shape):
        nested = 2 + length * nested + max(length - 1, 0)
    if len(skeleton) != nested or skeleton != _nested(shape):
        found = skeleton.count(b",") + 1
        raise refused(
            f"{_input(name)}: its data do not fit shape {_shown(shape)}, {count} elements, neither nested nor flat"
            + (f"; it seems to have {found}" if found != count else "")
        )


def _nested(shape: Sequence[int]) -> bytes:
    text = b""
    for length in reversed(shape):
        text = b"[" + (text + b",") * (length - 1) + text + b"]" if length else b"[]"
    return text


def _find_strings(name: str, count: int, text: bytes) -> list[bytes]:
    strings: list[bytes] = []
    for found in _STRING.finditer(text):
        if len(strings) == count:
            raise refused(f"{_input(name)} has more elements than the {count} of its shape")
        try:
            strings.append(_decode_string(found.group()).encode())
        except (msgspec.DecodeError, UnicodeError) as error:
            raise refused(f"{_input(name)}: element {len(strings)} is no text: {one_line(str(error))}") from None
    if len(strings) != count:
        raise refused(f"{_input(name)} has {len(strings)} strings as its data, not the {count} of its shape")
    return strings


def _without_strings(text: bytes) -> bytes:
    return _STRING.sub(b"", text).translate(None, _WHITE)


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
