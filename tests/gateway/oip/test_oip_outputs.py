"""From answers to the output tensor, and the response that carries it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.http import InferResult

from dumbwaiter.gateway.oip.outputs import join, most_join_nbytes
from dumbwaiter.gateway.oip.responses import write_response
from dumbwaiter.models.codecs_array import encode_npy

JSON, NPY = "application/json", "application/x-npy"


def joined(lead, *answers):
    tensor = join(lead, answers, name="output")
    return tensor.datatype, tensor.shape, tensor.data


def of_json(*values, lead=None):
    answers = [(JSON, json.dumps(value).encode()) for value in values]
    return joined((len(values),) if lead is None else lead, *answers)


def test_arrays_of_one_shape_are_stacked():
    one, other = np.arange(6, dtype="<f4").reshape(2, 3), np.ones((2, 3), "<f4")
    datatype, shape, data = joined((2,), (NPY, encode_npy(one)), (NPY, encode_npy(other)))
    assert (datatype, shape, bytes(data)) == ("FP32", (2, 2, 3), np.stack([one, other]).tobytes())


def test_a_transposed_array_comes_out_row_by_row():
    array = np.arange(6, dtype="<i2").reshape(2, 3).T
    datatype, shape, data = joined((), (NPY, encode_npy(array)))
    assert (datatype, shape, bytes(data)) == ("INT16", (3, 2), np.ascontiguousarray(array).tobytes())


def test_arrays_that_do_not_stack_stay_files():
    bodies = [encode_npy(np.zeros(2)), encode_npy(np.zeros(3))]
    assert joined((2,), *((NPY, body) for body in bodies)) == ("BYTES", (2,), bodies)
    body = encode_npy(np.zeros(2, complex))
    assert joined((), (NPY, body)) == ("BYTES", (1,), [body])


def test_json_numbers_become_tensors():
    assert of_json(1, 2) == ("INT64", (2,), np.array([1, 2]).tobytes())
    assert of_json(1, 2.5) == ("FP64", (2,), np.array([1, 2.5]).tobytes())
    assert of_json([1, 2.5], [3, 4]) == ("FP64", (2, 2), np.array([[1, 2.5], [3, 4.0]]).tobytes())
    assert of_json(True, False) == ("BOOL", (2,), b"\x01\x00")
    assert of_json(7, lead=()) == ("INT64", (1,), np.array([7]).tobytes())
    assert of_json([[], []], lead=()) == ("FP64", (2, 0), b"")


def test_json_texts_become_bytes_in_their_shape():
    assert of_json(["a", "b"], ["c", "d"]) == ("BYTES", (2, 2), [b"a", b"b", b"c", b"d"])


@pytest.mark.parametrize(
    "value", [{"a": 1}, [1, [2]], [[1], [1, 2]], [1, "a"], [True, 1], None, [None], 2**70, ["\ud800"]]
)
def test_other_json_stays_its_text(value):
    body = json.dumps(value).encode()
    assert joined((), (JSON, body)) == ("BYTES", (1,), [body])


def test_answers_of_different_kinds_stay_their_bodies():
    assert joined((2,), (JSON, b"[1]"), (JSON, b"[1, 2]")) == ("BYTES", (2,), [b"[1]", b"[1, 2]"])
    assert joined((2,), (JSON, b"1"), ("text/plain", b"a")) == ("BYTES", (2,), [b"1", b"a"])


def test_texts_pictures_and_what_says_nothing_are_bytes():
    assert joined((1,), ("text/plain; charset=utf-8", b"a")) == ("BYTES", (1,), [b"a"])
    assert joined((2, 1), ("image/png", b"\x89"), (None, b"")) == ("BYTES", (2, 1), [b"\x89", b""])


@given(st.sampled_from([JSON, NPY, "text/plain", None]), st.binary(max_size=50))
def test_any_answer_becomes_some_tensor(content_type, body):
    datatype, shape, data = joined((1,), (content_type, body))
    assert shape[0] == 1
    assert len(data) == np.prod(shape) if datatype == "BYTES" else True


JSON_VALUES = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.text(max_size=3) | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
)


@given(st.lists(JSON_VALUES, min_size=1, max_size=3) | JSON_VALUES.map(lambda value: [value] * 3))
def test_joining_json_takes_no_more_than_was_said(values):
    answers = [(JSON, json.dumps(value).encode()) for value in values]
    tensor = join((len(values),), answers, name="output")
    bodies = sum(len(body) for _, body in answers)
    assert tensor.nbytes <= most_join_nbytes(answers) + bodies


@pytest.mark.parametrize("array", [np.zeros((300, 2)), np.zeros((300, 2)).T, np.zeros((300, 2), ">f8")])
@pytest.mark.parametrize("count", [1, 2])
def test_joining_arrays_takes_what_is_copied(array, count):
    answers = [(NPY, encode_npy(array))] * count
    bound = most_join_nbytes(answers)
    nbytes = join((count,), answers, name="output").nbytes
    is_view = count == 1 and array.flags.c_contiguous and array.dtype.isnative
    assert bound < 1000 if is_view else bound >= nbytes


ARRAYS = st.sampled_from(["?", "<i8", "<u1", "<f2", "<f4", "<f8"]).flatmap(
    lambda dtype: arrays.arrays(
        dtype, arrays.array_shapes(), elements={"allow_nan": False, "allow_infinity": False} if "f" in dtype else None
    )
)


@given(ARRAYS, st.booleans(), st.none() | st.text(max_size=5))
def test_tritons_client_reads_the_response(array, binary, id_):
    tensor = join((), [(NPY, encode_npy(array))], name="output")
    response = write_response(tensor, model="m", id_=id_, binary=binary)
    body = b"".join(response.pieces())
    said = {name.decode(): value.decode() for name, value in response.headers}
    assert int(said["content-length"]) == response.nbytes == len(body)
    result = InferResult.from_response_body(body, header_length=said.get("inference-header-content-length"))
    read = result.as_numpy("output")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)
    assert result.get_response().get("id") == id_
