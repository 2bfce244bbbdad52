"""Tensors as JSON and as binary data."""

from __future__ import annotations

import contextlib
import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from refusals import refusal
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.gateway.oip.datatypes import DATATYPES
from dumbwaiter.gateway.oip.numbers import widen
from dumbwaiter.gateway.oip.tensors import (
    Tensor,
    binary_nbytes,
    most_reading_nbytes,
    read_binary,
    read_json,
    strings_in,
)
from dumbwaiter.gateway.oip.tensors import write_binary as write_binary_pieces
from dumbwaiter.gateway.oip.tensors import write_json as write_json_pieces

NUMBERS = [name for name in DATATYPES if name != "BF16"]


def write_json(tensor):
    return b"".join(write_json_pieces(tensor))


def write_binary(tensor):
    written = b"".join(write_binary_pieces(tensor))
    assert len(written) == binary_nbytes(tensor)
    return written


SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensors(draw, **options):
    name = draw(st.sampled_from(NUMBERS))
    return name, draw(arrays.arrays(np.dtype(triton_to_np_dtype(name)), SHAPES, **options))


FINITE = tensors(elements={"allow_nan": False, "allow_infinity": False})


@given(tensors())
def test_binary_data_are_taken_as_they_are_and_given_back(named):
    name, array = named
    tensor = read_binary("x", name, array.shape, memoryview(array.tobytes()))
    assert (tensor.shape, bytes(write_binary(tensor))) == (array.shape, array.tobytes())


@given(FINITE, st.booleans(), st.sampled_from([None, 1]))
def test_json_nested_or_flat_is_the_same_tensor(named, flat, indent):
    name, array = named
    value = array.reshape(-1).tolist() if flat else array.tolist()
    tensor = read_json("x", name, array.shape, json.dumps(value, indent=indent).encode())
    assert tensor.data == array.tobytes()


@given(FINITE)
def test_what_json_says_comes_back_in_json(named):
    name, array = named
    text = write_json(Tensor(name="x", datatype=name, shape=array.shape, data=array.tobytes()))
    assert read_json("x", name, array.shape, text).data == array.tobytes()


@given(arrays.arrays(object, SHAPES, elements=st.binary(max_size=9)))
def test_byte_strings_in_binary_are_as_tritons_client_writes_them(array):
    written = serialize_byte_tensor(array).item() if array.size else b""
    tensor = read_binary("x", "BYTES", array.shape, memoryview(written))
    assert tensor.elements() == list(array.reshape(-1))
    assert write_binary(tensor) == written


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@given(arrays.arrays(object, SHAPES, elements=TEXTS), st.booleans(), st.booleans())
def test_texts_in_json_may_hold_anything(array, flat, ascii_only):
    value = array.reshape(-1).tolist() if flat else array.tolist()
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    tensor = read_json("x", "BYTES", array.shape, text)
    assert tensor.elements() == [one.encode() for one in array.reshape(-1)]
    assert json.loads(write_json(tensor)) == array.reshape(-1).tolist()


def test_no_piece_is_long_however_long_the_tensor_is():
    """So no step takes long, and little is held beside the tensor."""
    data = np.linspace(0, 1, 200_000).tobytes()
    numbers = Tensor(name="x", datatype="FP64", shape=(200_000,), data=data)
    text = Tensor(name="x", datatype="BYTES", shape=(1,), data=[b"\x01" * 1_000_000])
    for tensor in (numbers, text):
        for pieces in (write_binary_pieces(tensor), write_json_pieces(tensor)):
            assert max(map(len, pieces)) < 400_000


@given(st.lists(st.text('ab\\"[]{},', max_size=6), max_size=6))
def test_strings_are_found_whatever_is_in_them(texts):
    text = json.dumps(texts).encode()
    assert [json.loads(text[begin:end]) for begin, end in strings_in(text)] == texts


@given(tensors(), st.booleans())
def test_reading_takes_no_more_than_was_said(named, flat):
    name, array = named
    text = json.dumps(array.reshape(-1).tolist() if flat else array.tolist()).encode()
    assert array.nbytes <= most_reading_nbytes(name, array.size, text)


def test_bf16_widens_exactly():
    every = np.arange(2**16, dtype="<u2")
    wide = np.frombuffer(widen(every.tobytes()), "<f4")
    np.testing.assert_array_equal(wide, every.view(ml_dtypes.bfloat16).astype(np.float32))


def test_numbers_are_read_in_pieces_without_losing_any():
    values = list(range(100_000))
    tensor = read_json("x", "INT32", [2, 50_000], json.dumps(values).encode())
    assert tensor.data == np.array(values, "<i4").tobytes()


@pytest.mark.parametrize(
    ("datatype", "shape", "text"),
    [
        ("INT8", [2], "[1]"),
        ("INT8", [2], "[1,2,3]"),
        ("INT8", [2, 2], "[[1,2],[3]]"),
        ("INT8", [2, 2], "[[1,2,3],[4]]"),
        ("INT8", [2, 2], "[1,[2,3],4]"),
        ("INT8", [4], "[[1,2],[3,4]]"),
        ("INT8", [1], "1"),
        ("INT8", [1], "[128]"),
        ("INT8", [1], "[1.5]"),
        ("INT8", [1], "[true]"),
        ("INT8", [1], "[null]"),
        ("INT8", [1], '["1"]'),
        ("INT8", [1], '[{"a":1}]'),
        ("INT8", [2], '["1,2"]'),
        ("INT8", [1], "[[]]"),
        ("UINT8", [1], "[-1]"),
        ("UINT64", [1], "[18446744073709551616]"),
        ("BOOL", [1], "[2]"),
        ("BOOL", [1], '["true"]'),
        ("FP16", [1], "[65536]"),
        ("FP32", [1], "[1e39]"),
        ("FP64", [1], "[true]"),
        ("BF16", [1], "[1]"),
        ("BYTES", [1], "[1]"),
        ("BYTES", [2], '["a"]'),
        ("BYTES", [1], '["a","b"]'),
        ("BYTES", [2, 1], '["a",["b"]]'),
        ("BYTES", [1], '[{"a":"b"}]'),
        ("BYTES", [1], '["\\ud800"]'),
        ("INT8", [10**9, 0], "[[]]"),
        ("INT8", [2**63 - 1] * 32, "[1]"),
        ("INT8", [1] * 33, "[1]"),
        ("BYTES", [10**6], "[]"),
        ("FP8", [1], "[1]"),
        ("", [1], "[1]"),
        ("x" * 100_000, [1], "[1]"),
    ],
)
def test_data_that_are_not_what_shape_and_datatype_say_are_refused(datatype, shape, text):
    assert refusal(read_json, "x", datatype, shape, text.encode()).startswith("input 'x'")


def bytes_of(*lengths):
    return b"".join(struct.pack("<I", length) for length in lengths)


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("INT16", [2], b"123"),
        ("INT16", [0], b"1"),
        ("INT16", [2**62, 2**62], b""),
        ("FP32", [1], b""),
        ("BOOL", [2], b"\x01\x02"),
        ("BYTES", [1], b"\x01"),
        ("BYTES", [1], bytes_of(2**32 - 1)),
        ("BYTES", [1], bytes_of(1)),
        ("BYTES", [2], bytes_of(0)),
        ("BYTES", [1], bytes_of(0, 0)),
        ("BYTES", [0], bytes_of(0)),
        ("BYTES", [1], b""),
        ("BYTES", [2**40], b""),
    ],
)
def test_binary_data_of_another_length_are_refused(datatype, shape, data):
    assert refusal(read_binary, "x", datatype, shape, memoryview(data)).startswith("input 'x'")


@given(
    st.sampled_from([*NUMBERS, "BYTES"]),
    st.lists(st.integers(0, 3), max_size=3),
    st.text('[],1.5-etru"a{}: ', max_size=30),
)
def test_any_json_is_read_or_refused(datatype, shape, text):
    try:
        json.loads(text)
    except ValueError:
        return  # only valid JSON gets there
    with contextlib.suppress(ProblemError):
        tensor = read_json("x", datatype, shape, text.encode())
        assert np.array(json.loads(text)).size == tensor.count


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_cannot_carry_nan_and_the_error_says_what_can(value):
    tensor = Tensor(name="output", datatype="FP32", shape=(1,), data=struct.pack("<f", value))
    assert "binary_data_output" in refusal(write_json, tensor)


def test_bytes_that_are_no_text_need_binary():
    tensor = Tensor(name="output", datatype="BYTES", shape=(1,), data=[b"\xff"])
    assert "binary_data_output" in refusal(write_json, tensor)
