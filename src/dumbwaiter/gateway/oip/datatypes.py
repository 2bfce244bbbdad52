"""The protocol's data types, and what they are in ``.npy`` files and in ``struct``. Pure.

Source: KServe, Open Inference Protocol, "Tensor Data Types"
(https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

BYTES = "BYTES"


class Datatype(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A type of fixed size. *nbytes* is one element's; *npy* the type as ``.npy`` headers write it, little-endian;
    *code* is the letter of ``struct``, None for what Python has no such letter for.
    """

    name: str
    nbytes: int
    npy: str
    code: str | None
    family: Literal["bool", "int", "float"]


_ROWS: tuple[tuple[str, int, str, str | None, Literal["bool", "int", "float"]], ...] = (
    ("BOOL", 1, "|b1", "?", "bool"),
    ("INT8", 1, "|i1", "b", "int"),
    ("INT16", 2, "<i2", "h", "int"),
    ("INT32", 4, "<i4", "i", "int"),
    ("INT64", 8, "<i8", "q", "int"),
    ("UINT8", 1, "|u1", "B", "int"),
    ("UINT16", 2, "<u2", "H", "int"),
    ("UINT32", 4, "<u4", "I", "int"),
    ("UINT64", 8, "<u8", "Q", "int"),
    ("FP16", 2, "<f2", "e", "float"),
    ("FP32", 4, "<f4", "f", "float"),
    ("FP64", 8, "<f8", "d", "float"),
)

#: BF16 has no .npy type of its own: its elements are widened to those of FP32 (tensors.widen).
DATATYPES: Mapping[str, Datatype] = {
    **{
        name: Datatype(name=name, nbytes=nbytes, npy=npy, code=code, family=family)
        for name, nbytes, npy, code, family in _ROWS
    },
    "BF16": Datatype(name="BF16", nbytes=2, npy="<f4", code=None, family="float"),
}

#: ``f4`` -> FP32 and so on: the type of a .npy header without its byte order.
BY_NPY: Mapping[str, Datatype] = {npy[1:]: DATATYPES[name] for name, _, npy, _, _ in _ROWS}
