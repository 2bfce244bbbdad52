"""Numbers in JSON, written in pieces."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.utils import triton_to_np_dtype

from dumbwaiter.gateway.oip import numbers
from dumbwaiter.gateway.oip.datatypes import DATATYPES
from dumbwaiter.gateway.oip.numbers import NotJsonError, gather, most_json_nbytes, write_nested


@st.composite
def tensors(draw):
    name = draw(st.sampled_from([name for name in DATATYPES if name != "BF16"]))
    shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5)
    elements = {"allow_nan": False, "allow_infinity": False} if name.startswith("FP") else None
    return name, draw(arrays.arrays(np.dtype(triton_to_np_dtype(name)), shapes, elements=elements))


@given(tensors(), st.sampled_from([1, 3, 8192]))
def test_nested_lists_are_those_of_their_shape_however_small_the_pieces_are(named, at_once):
    name, array = named
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "AT_ONCE", at_once)
        written = gather(write_nested(DATATYPES[name], array.shape, memoryview(array.tobytes())))
    assert json.loads(written) == array.tolist()
    assert len(written) <= most_json_nbytes(DATATYPES[name], array.shape)


EXTREMES = {
    **{name: ["min", "max"] for name in DATATYPES if name.startswith(("INT", "UINT"))},
    "BOOL": [False],
    "FP16": [-5.9604644775390625e-08, -6.097555160522461e-05, -65504.0],
    "FP32": [-1.1754943508222875e-38, -3.4028234663852886e38, -1.401298464324817e-45],
    "FP64": [-2.2250738585072014e-308, -1.7976931348623157e308, -1.2345678901234567e-300],
}


@pytest.mark.parametrize("name", EXTREMES)
def test_the_bound_holds_for_the_longest_numbers(name):
    dtype = np.dtype(triton_to_np_dtype(name))
    for extreme in EXTREMES[name]:
        value = getattr(np.iinfo(dtype), extreme) if isinstance(extreme, str) else extreme
        data = np.full(1000, value, dtype).tobytes()
        written = gather(write_nested(DATATYPES[name], (1000,), data))
        assert len(written) <= most_json_nbytes(DATATYPES[name], (1000,))


def test_an_empty_list_and_a_number_alone():
    assert gather(write_nested(DATATYPES["INT8"], (0,), b"")) == b"[]"
    assert gather(write_nested(DATATYPES["INT8"], (), b"\x07")) == b"7"


@pytest.mark.parametrize("place", [0, 20_000])
def test_nan_is_found_in_whichever_piece_it_is(place):
    values = [0.0] * 20_001
    values[place] = float("nan")
    with pytest.raises(NotJsonError):
        gather(write_nested(DATATYPES["FP64"], (20_001,), struct.pack("<20001d", *values)))
