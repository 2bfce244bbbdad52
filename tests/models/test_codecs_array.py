"""NumPy arrays and torch tensors; a .npy header is believed only as far as the body behind it reaches."""

from __future__ import annotations

import base64
import io
import json
import struct
import typing

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dumbwaiter.content_types import parse_content_type
from dumbwaiter.errors import BadInputError, ModelLoadError, PermanentError
from dumbwaiter.models.codecs import input_codec
from dumbwaiter.models.codecs_array import ArrayCodec, TensorCodec, decode_npy, encode_npy, is_npy, tensor_to_array

NPY = parse_content_type("application/x-npy")
JSON = parse_content_type("application/json")
DTYPES = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.floating_dtypes(endianness="?"),
    arrays.complex_number_dtypes(endianness="?"),
)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)


def npy(header, data=b"", version=b"\x01\x00"):
    """A .npy file whose header says what the test wants it to say."""
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def header(shape, descr="'<f8'", fortran_order=False):
    return f"{{'descr': {descr}, 'fortran_order': {fortran_order}, 'shape': {shape}, }}"


def complaint(body, codec=None):
    with pytest.raises(BadInputError) as caught:
        (codec or ArrayCodec()).from_body(NPY, body)
    return str(caught.value)


@given(arrays.arrays(DTYPES, SHAPES), st.booleans())
def test_an_array_of_any_number_type_and_shape_comes_back_as_it_went(array, fortran_order):
    sent = np.array(array, order="F" if fortran_order else "C")
    came = decode_npy(memoryview(encode_npy(sent)))
    np.testing.assert_array_equal(came, array)
    assert came.shape == array.shape
    assert came.dtype == array.dtype.newbyteorder("=")
    assert came.dtype.isnative
    assert came.flags.writeable


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ("(1000000000000,)", "(1000000000000,) of float64, 8000000000000 bytes; the body has 8"),
        ("(100000, 100000, 100000)", "8000000000000000 bytes; the body has 8"),
        ("(0,)", "0 bytes; the body has 8"),
        ("(2,)", "16 bytes; the body has 8"),
        ("(-1,)", "impossible shape: (-1,)"),
        ("(-1, -1)", "impossible shape: (-1, -1)"),
        (f"({'1,' * 65})", "impossible shape"),
        ("(True,)", "impossible shape"),
        ("(1.0,)", "damaged header"),
        ("1", "damaged header"),
        ("('1',)", "damaged header"),
    ],
)
def test_a_shape_that_the_body_does_not_hold_is_refused_before_anything_is_allocated(shape, reason):
    assert reason in complaint(npy(header(shape), bytes(8)))


@pytest.mark.parametrize("shape", [f"(0, {10**30})", "(0, 1099511627776, 1099511627776)", f"({2**63 - 1}, 0)"])
def test_a_length_that_cannot_be_counted_hides_behind_no_zero(shape):
    assert "the .npy body has an impossible shape" in complaint(npy(header(shape)))


def test_nor_one_that_can_be_counted_only_in_items_smaller_than_the_model_wants():
    empty = npy(header(f"(0, {2**62})", "'|i1'"))
    assert ArrayCodec().from_body(NPY, empty).size == 0
    assert "expected an array of float32" in complaint(empty, ArrayCodec(np.dtype("float32")))


@pytest.mark.parametrize(
    "descr",
    ["'|O'", "'<U4'", "'|S8'", "'|V8'", "'<M8[s]'", "[('a', '<f4'), ('b', '<f4')]", "('<f4', (2,))"],
)
def test_only_numbers_and_booleans_are_taken(descr):
    assert "only numbers and booleans are taken" in complaint(npy(header("(1,)", descr), bytes(8)))


def test_a_pickled_array_is_refused_without_running_it(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    file = io.BytesIO()
    np.save(file, np.array([Hostile()], dtype=object), allow_pickle=True)
    assert complaint(file.getvalue()) == "the .npy body holds object; only numbers and booleans are taken"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"not an array",
        npy("{"),
        npy("[]"),
        npy("{'descr': '<f8'}"),
        npy(header("(1,)", "'no such type'")),
        npy(header("(1,)", fortran_order=7), bytes(8)),
        npy("(" * 3000),
        npy("-" * 9000 + "1"),
        npy("{'a':" * 2000),
        npy(header("(1,)") + "#" * 20_000),
        npy("__import__('os').abort()"),
    ],
)
def test_a_damaged_or_hostile_header_is_an_error(body):
    assert complaint(body).startswith("the .npy body has a damaged header: ")


def test_a_version_for_records_is_refused_and_the_larger_header_is_read():
    assert "version (3, 0)" in complaint(npy(header("(1,)"), bytes(8), b"\x03\x00"))
    file = io.BytesIO()
    np.lib.format.write_array(file, np.arange(3), version=(2, 0))
    assert decode_npy(file.getvalue()).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("body", "shape"),
    [(b"1", ()), (b"[]", (0,)), (b"[[1, 2], [3, 4]]", (2, 2)), (b"true", ()), (b"[[], []]", (2, 0))],
)
def test_nested_json_lists_are_an_array(body, shape):
    for content_type in ("application/json", "text/plain", None):
        assert ArrayCodec().from_body(parse_content_type(content_type), body).shape == shape


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[[1, 2], [3]]", "nested JSON lists of numbers: "),
        (b'["1"]', "these lists hold something else"),
        (b"[null]", "these lists hold something else"),
        (b"[18446744073709551616]", "numbers beyond 64 bits"),
        (b"[{}]", "these lists hold something else"),
        (b"{}", "got a JSON object"),
        (b"null", "got JSON null"),
        (b'"abc"', "got the JSON string 'abc'"),
        (b"[NaN]", "NaN and Infinity are not JSON"),
        (b"[" * 100 + b"]" * 100, "maximum number of dimension"),
        (b"[" * 2000 + b"]" * 2000, "nested too deeply"),
    ],
)
def test_json_that_is_no_array_of_numbers_says_so(body, reason):
    for codec in (ArrayCodec(), TensorCodec()):
        with pytest.raises(BadInputError) as caught:
            codec.from_body(JSON, body)
        assert reason in str(caught.value)


def test_a_body_of_another_type_says_what_is_expected():
    with pytest.raises(BadInputError, match=r"expected an array as application/x-npy or nested JSON lists.*image/png"):
        ArrayCodec().from_body(parse_content_type("image/png"), b"1")


def test_a_npy_body_with_no_said_type_is_known_by_its_first_bytes():
    body = encode_npy(np.arange(3))
    assert is_npy(memoryview(body))
    assert not is_npy(b"[1]")
    assert ArrayCodec().from_body(parse_content_type(None), body).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (np.float32, [1, 2.5], [1.0, 2.5]),
        (np.uint8, [0, 255], [0, 255]),
        (np.int8, [-128, 127], [-128, 127]),
        (np.complex64, [1.5], [1.5 + 0j]),
        (np.float64, [True], [1.0]),
    ],
)
def test_an_array_is_cast_to_the_annotated_type_where_its_values_fit(dtype, value, expected):
    array = ArrayCodec(dtype).from_json(value)
    assert array.tolist() == expected
    assert array.dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.int8, [300]),
        (np.uint8, [-1]),
        (np.uint8, [256]),
        (np.int64, [1.5]),
        (np.int64, [2**63]),
        (np.bool_, [1]),
        (np.float32, [1e300]),
        (np.float16, [70_000]),
    ],
)
def test_values_that_do_not_fit_the_annotated_type_are_refused_and_never_wrapped(dtype, value):
    with pytest.raises(BadInputError) as caught:
        ArrayCodec(dtype).from_json(value)
    assert str(caught.value).startswith(f"expected an array of {np.dtype(dtype)}; these values are ")
    assert str(caught.value).endswith("do not fit")


def test_values_of_a_npy_body_are_not_wrapped_either():
    body = encode_npy(np.array([300], np.uint16))
    assert "expected an array of uint8; these values are uint16" in complaint(body, ArrayCodec(np.uint8))
    assert ArrayCodec(np.int64).from_body(NPY, body).tolist() == [300]


def test_nan_in_a_npy_body_stays_what_it_is():
    body = encode_npy(np.array([np.nan, np.inf]))
    came = ArrayCodec(np.float32).from_body(NPY, body)
    assert np.isnan(came[0])
    assert np.isinf(came[1])


@pytest.mark.parametrize(
    ("annotation", "dtype"),
    [
        (npt.NDArray[np.float32], np.float32),
        (npt.NDArray[np.uint8] | None, np.uint8),
        (None | npt.NDArray[np.uint8], np.uint8),
        (typing.Annotated[npt.NDArray[np.uint8], "pixels"] | None, np.uint8),
        (np.ndarray[tuple[int, int], np.dtype[np.int16]], np.int16),
        (npt.NDArray[np.floating], np.float64),
        (np.ndarray, np.float64),
    ],
)
def test_the_annotation_says_the_dtype(annotation, dtype):
    codec = input_codec(annotation, "x", image_mode="RGB", max_pixels=1)
    value = [1.5] if np.dtype(dtype).kind == "f" else [1]
    assert codec.from_json(value).dtype == dtype


def test_a_dtype_that_no_input_can_have_is_found_when_the_model_is_loaded():
    with pytest.raises(ModelLoadError, match="no input can be decoded as an array of <U0; only numbers and booleans"):
        ArrayCodec(np.str_)


def test_an_array_of_objects_cannot_be_encoded():
    with pytest.raises(PermanentError, match=r"cannot encode this array of object as \.npy: "):
        encode_npy(np.array([{}]))


@given(arrays.arrays(st.sampled_from([np.dtype(name) for name in ("f4", "f8", "i8", "u1", "?", "c8")]), SHAPES))
def test_a_tensor_keeps_the_exact_type_of_a_npy_body(array):
    tensor = TensorCodec().from_body(NPY, encode_npy(array))
    np.testing.assert_array_equal(tensor_to_array(tensor), array)
    assert tensor_to_array(tensor).dtype == array.dtype


def test_json_numbers_become_torch_default_types():
    assert TensorCodec().from_json([1.5]).dtype == torch.float32
    assert TensorCodec().from_body(JSON, b"[1]").dtype == torch.int64
    assert TensorCodec().from_json(True).dtype == torch.bool
    assert json.dumps(TensorCodec().schema()) == json.dumps(ArrayCodec().schema())


def test_json_numbers_too_large_for_the_default_type_are_refused_and_not_made_infinite():
    with pytest.raises(BadInputError, match=r"expected numbers that fit torch\.float32; some of these are too large"):
        TensorCodec().from_json([1.0, 1e300])


def test_a_type_that_torch_lacks_is_an_error():
    with pytest.raises(BadInputError, match="torch has no tensors of "):
        TensorCodec().from_body(NPY, encode_npy(np.zeros(1, np.longdouble)))


def test_tensors_of_all_kinds_become_arrays():
    assert tensor_to_array(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    assert tensor_to_array(torch.eye(2).to_sparse()).tolist() == [[1, 0], [0, 1]]
    assert tensor_to_array(torch.tensor([1 + 2j]).conj()).tolist() == [1 - 2j]
    assert tensor_to_array(torch.zeros(1, requires_grad=True)).tolist() == [0]


@pytest.mark.parametrize("content_type", ["application/x-npy", "application/octet-stream", ""])
def test_inside_json_an_array_may_be_an_npy_file_and_keeps_its_type(content_type):
    array = np.array([np.nan, 0.1], np.float16)
    url = f"data:{content_type};base64,{base64.b64encode(encode_npy(array)).decode()}"
    assert ArrayCodec().from_json(url).dtype == np.float16
    np.testing.assert_array_equal(ArrayCodec().from_json(url), array)
    assert str(TensorCodec().from_json(url).dtype) == "torch.float16"


@pytest.mark.parametrize(
    "url", ["hello", "data:,", "data:text/plain,[1]", "data:application/json,[1]", "data:;base64,AAAA"]
)
def test_another_string_inside_json_is_no_array(url):
    with pytest.raises(BadInputError, match="expected an array"):
        ArrayCodec().from_json(url)
