"""NumPy's ``.npy`` files, headers only, without NumPy. Pure.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html (versions 1.0 and 2.0).
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence

import msgspec

from dumbwaiter.errors import DumbwaiterError
from dumbwaiter.gateway.oip.datatypes import BY_NPY, Datatype

_MAGIC = b"\x93NUMPY"
_ALIGNMENT = 64
_LARGEST_HEADER = 4096
#: The header is a Python literal with these three keys; NumPy writes them in this order, and no other is read.
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?)([a-z]\d{1,2})', 'fortran_order': (True|False), 'shape': \(([\d, ]{0,400})\), ?\} *\n?"
)
#: Unsigned letters of ``array`` by the size of what is moved about.
_LETTERS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class NotNpyError(DumbwaiterError):
    """These bytes are no ``.npy`` file, or one of a kind that no datatype of the protocol can express."""


class Npy(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An array: *data* is little-endian and row-major."""

    datatype: Datatype
    shape: tuple[int, ...]
    data: bytes | memoryview


def write_npy(datatype: Datatype, shape: Sequence[int], data: bytes | memoryview) -> bytes:
    """A ``.npy`` file (version 1.0) of *data*: little-endian, row-major elements of ``datatype.npy``."""
    lengths = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    header = f"{{'descr': '{datatype.npy}', 'fortran_order': False, 'shape': ({lengths}), }}".encode()
    room = -(len(_MAGIC) + 4 + len(header) + 1) % _ALIGNMENT
    header += b" " * room + b"\n"
    return b"".join((_MAGIC, b"\x01\x00", len(header).to_bytes(2, "little"), header, data))


def read_npy(body: bytes) -> Npy:
    """The array in *body*. Raises NotNpyError; what the header says is checked against the length of what follows."""
    start, header = _header_of(body)
    found = _HEADER.fullmatch(header)
    if found is None:
        raise NotNpyError("its header is not one that NumPy writes for numbers")
    order, kind, fortran, lengths = found.groups()
    datatype = BY_NPY.get(kind.decode())
    if datatype is None:
        raise NotNpyError(f"no datatype of the protocol is NumPy's {kind.decode()}")
    shape = tuple(int(length) for length in lengths.replace(b" ", b"").split(b",") if length)
    data = memoryview(body)[start:]
    if math.prod(shape) * datatype.nbytes != len(data):
        raise NotNpyError(f"its header says shape {shape}, but {len(data)} bytes follow")
    if fortran == b"True" and len(shape) > 1:
        data = memoryview(to_row_major(data, shape, datatype.nbytes))
    if order == b">" and datatype.nbytes > 1:
        data = memoryview(_swapped(data, datatype.nbytes))
    return Npy(datatype=datatype, shape=shape, data=data)


def is_rearranged(body: bytes) -> bool:
    """Whether read_npy() has to bring the elements, or their bytes, into another order: that takes copies."""
    return b"'fortran_order': True" in body[:_LARGEST_HEADER] or b"'descr': '>" in body[:_LARGEST_HEADER]


def to_row_major(data: bytes | memoryview, shape: Sequence[int], nbytes: int) -> bytes:
    """Column-major elements of *nbytes* each (Fortran's order) as row-major ones."""
    elements = array(_LETTERS[nbytes])
    elements.frombytes(data)
    return _reordered(elements, shape).tobytes()


def _reordered(elements: array[int], shape: Sequence[int]) -> array[int]:
    if len(shape) < 2 or not elements:
        return elements
    moved = array(elements.typecode, elements)
    if shape[0] <= shape[-1]:
        # Every first index has its elements strewn over the source, and one block in the result.
        size = len(elements) // shape[0]
        for place in range(shape[0]):
            moved[place * size : (place + 1) * size] = _reordered(elements[place :: shape[0]], shape[1:])
    else:
        # Every last index has one block in the source, and its elements strewn over the result.
        size = len(elements) // shape[-1]
        for place in range(shape[-1]):
            moved[place :: shape[-1]] = _reordered(elements[place * size : (place + 1) * size], shape[:-1])
    return moved


def _swapped(data: memoryview, nbytes: int) -> bytes:
    elements = array(_LETTERS[nbytes])
    elements.frombytes(data)
    elements.byteswap()
    return elements.tobytes()


def _header_of(body: bytes) -> tuple[int, bytes]:
    """Where the data begins, and the header's text."""
    width = {b"\x01\x00": 2, b"\x02\x00": 4}.get(body[len(_MAGIC) : len(_MAGIC) + 2])
    if width is None or not body.startswith(_MAGIC):
        raise NotNpyError("it does not begin as a .npy file of version 1.0 or 2.0 does")
    begin = len(_MAGIC) + 2 + width
    length = int.from_bytes(body[len(_MAGIC) + 2 : begin], "little")
    if length > _LARGEST_HEADER or begin + length > len(body):
        raise NotNpyError(f"its header of {length} bytes is too long")
    return begin + length, body[begin : begin + length]
