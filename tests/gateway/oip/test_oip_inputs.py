"""From tensors to what a model's codecs take, by the signatures of real models."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel
from refusals import refusal

from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.gateway.oip.inputs import MOST_REQUESTS, kinds_of, most_split_nbytes, split
from dumbwaiter.gateway.oip.metadata import describe
from dumbwaiter.gateway.oip.outputs import join
from dumbwaiter.gateway.oip.pictures import png
from dumbwaiter.gateway.oip.tensors import Tensor, read_binary
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.models.loading import ServedModel, _inputs
from dumbwaiter.models.signature import read_signature


class Shape(BaseModel):
    sides: int


class Text:
    def __call__(self, prompt: str) -> str: ...


class Texts:
    def __call__(self, prompts: list[str]) -> list[str]: ...


class Bytes:
    def __call__(self, data: bytes) -> bytes: ...


class Array:
    def __call__(self, x: np.ndarray) -> np.ndarray: ...


class Arrays:
    def __call__(self, xs: list[np.ndarray]) -> list[np.ndarray]: ...


class Halves:
    def __call__(self, xs: list[np.ndarray[tuple[int], np.dtype[np.float16]]]) -> list[list[float]]: ...


class Picture:
    def __call__(self, image: Image.Image) -> dict[str, float]: ...


class Number:
    def __call__(self, x: float) -> float: ...


class Numbers:
    def __call__(self, xs: list[float]) -> list[float]: ...


class Row:
    batched = False

    def __call__(self, row: list[float]) -> list[int]: ...


class Object:
    def __call__(self, shape: Shape) -> dict[str, int]: ...


class Anything:
    def __call__(self, x): ...


class Several:
    def __call__(self, image: Image.Image, text: str, x: np.ndarray, top: int = 5, data: bytes = b"", more=None): ...


class Pair:
    def __call__(self, a: float, b: float) -> float: ...


def served(cls):
    signature = read_signature(cls)
    return ServedModel(cls(), signature, _inputs(cls, signature, ModelSpec(name="m", target="m:M")), max_batch=1)


def signature_of(cls):
    return json.loads(json.dumps(served(cls).describe()))


def tensor(value, name="input"):
    if isinstance(value, list):
        return Tensor(name=name, datatype="BYTES", shape=(len(value),), data=value)
    datatype = {"b": "BOOL", "f": "FP", "i": "INT", "u": "UINT"}[value.dtype.kind]
    full = datatype if datatype == "BOOL" else f"{datatype}{8 * value.dtype.itemsize}"
    return read_binary(name, full, value.shape, memoryview(value.tobytes()))


def decoded(cls, *tensors):
    """The lead, and what the model gets in each request."""
    asked = split(signature_of(cls), tensors)
    model = served(cls)
    return asked.lead, [model.decode(content_type, body) for content_type, body in asked.bodies]


FLOATS = np.arange(6, dtype="<f4").reshape(3, 2)


@pytest.mark.parametrize("cls", [Text, Texts])
def test_each_text_is_a_request_and_an_empty_one_too(cls):
    assert decoded(cls, tensor([b"one", b"zwei", b""])) == ((3,), ["one", "zwei", ""])


def test_bytes_and_json_and_anything_go_element_by_element():
    assert decoded(Bytes, tensor([b"\x00", b"{}"])) == ((2,), [b"\x00", b"{}"])
    assert decoded(Object, tensor([b'{"sides": 3}'])) == ((1,), [Shape(sides=3)])
    assert decoded(Anything, tensor([b"[1]", b"text"])) == ((2,), [[1], "text"])


def test_a_tensor_of_bytes_keeps_its_shape_in_front():
    two_by_two = Tensor(name="prompt", datatype="BYTES", shape=(2, 2), data=[b"a", b"b", b"c", b"d"])
    assert decoded(Text, two_by_two) == ((2, 2), ["a", "b", "c", "d"])


def test_an_array_goes_whole_to_a_model_that_takes_one():
    lead, (array,) = decoded(Array, tensor(FLOATS, "x"))
    assert lead == ()
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, FLOATS)
    lead, (anything,) = decoded(Anything, tensor(FLOATS))
    np.testing.assert_array_equal(anything, FLOATS)


def test_an_array_goes_row_by_row_to_a_model_that_takes_many():
    lead, rows = decoded(Arrays, tensor(FLOATS, "xs"))
    assert lead == (3,)
    np.testing.assert_array_equal(np.stack(rows), FLOATS)
    assert [row.dtype for row in decoded(Halves, tensor(FLOATS))[1]] == [np.float16] * 3


def test_bf16_reaches_the_model_as_float32():
    bf16 = Tensor(name="x", datatype="BF16", shape=(2,), data=np.array([1.5, -2.0], "<f4").view("<u2")[1::2].tobytes())
    _, (array,) = decoded(Array, bf16)
    assert (array.dtype, array.tolist()) == (np.float32, [1.5, -2.0])


def test_numbers_go_one_by_one_to_a_model_that_takes_one_number():
    assert decoded(Number, tensor(FLOATS)) == ((3, 2), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert decoded(Numbers, tensor(FLOATS[:, 0])) == ((3,), [0.0, 2.0, 4.0])
    assert decoded(Row, tensor(FLOATS[0], "row")) == ((), [[0.0, 1.0]])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.data())
def test_pixels_become_the_same_pixels(width, height, channels, data):
    pixels = data.draw(st.binary(min_size=width * height * channels, max_size=width * height * channels))
    image = Image.open(io.BytesIO(png(pixels, width=width, height=height, channels=channels)))
    assert image.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    assert image.tobytes() == pixels


@pytest.mark.parametrize(
    ("shape", "lead"), [((4, 5), ()), ((4, 5, 3), ()), ((4, 5, 1), ()), ((2, 4, 5, 3), (2,)), ((1, 4, 5, 4), (1,))]
)
def test_a_picture_may_come_as_pixels(shape, lead):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    got, images = decoded(Picture, tensor(pixels, "image"))
    assert got == lead
    assert {(image.size, image.mode) for image in images} == {((5, 4), "RGB")}
    if shape[-1] == 3:
        np.testing.assert_array_equal(np.stack(images).reshape(shape), pixels)


def test_several_inputs_come_by_name():
    pixels = np.zeros((4, 5, 3), np.uint8)
    nan = np.array([np.nan, 1], "<f2")
    _, (arguments,) = decoded(
        Several,
        tensor(pixels, "image"),
        tensor([b"what?"], "text"),
        tensor(nan, "x"),
        tensor(np.array([[3]]), "top"),
        tensor([b"\xff"], "data"),
        tensor([b'{"a": [1]}'], "more"),
    )
    image, text, x, top, data, more = arguments.by_position
    assert (image.size, text, x.dtype, top, data, more) == ((5, 4), "what?", np.float16, 3, b"\xff", {"a": [1]})
    np.testing.assert_array_equal(x, nan)
    _, (arguments,) = decoded(Pair, tensor(np.array([1.5]), "a"), tensor(np.array(2), "b"))
    assert arguments.by_position == [1.5, 2.0]


def test_the_kinds_of_several_are_also_guessed_from_what_an_older_worker_says():
    described = signature_of(Several)["input"]
    kinds = kinds_of(described)
    assert list(kinds.values()) == ["image", "text", "array", "json", "bytes", "any"]
    assert kinds_of({"schema": described["schema"]}) == kinds


@pytest.mark.parametrize(
    ("cls", "tensors", "reason"),
    [
        (Text, [tensor(FLOATS)], "send it as BYTES"),
        (Text, [tensor([])], "no elements"),
        (Text, [tensor([b""] * (MOST_REQUESTS + 1))], "at most 1024"),
        (Text, [tensor([b"a"], "text")], "takes one input, 'prompt'"),
        (Text, [tensor([b"a"]), tensor([b"a"], "b")], "takes one input, 'prompt'"),
        (Array, [tensor([b"a"])], "is an array"),
        (Arrays, [tensor(np.array(1.0))], "first dimension"),
        (Arrays, [tensor(np.zeros((0, 4)))], "no elements"),
        (Arrays, [tensor(np.zeros((MOST_REQUESTS + 1, 1)))], "at most 1024"),
        (Arrays, [Tensor(name="xs", datatype="FP32", shape=(2**60, 0), data=b"")], "at most 1024"),
        (Number, [tensor(np.array([np.nan]))], "NaN"),
        (Number, [tensor(np.zeros(MOST_REQUESTS + 1))], "at most 1024"),
        (Row, [tensor(np.zeros((2, 0)))], "no elements"),
        (Object, [tensor(FLOATS)], "is no array"),
        (Picture, [tensor(FLOATS)], "UINT8 of shape"),
        (Picture, [tensor(np.zeros((4, 5, 5), np.uint8))], "UINT8 of shape"),
        (Picture, [tensor(np.zeros(4, np.uint8))], "UINT8 of shape"),
        (Picture, [tensor(np.zeros((0, 5, 3), np.uint8))], "without pixels"),
        (Picture, [Tensor(name="input", datatype="UINT8", shape=(0, 4, 5, 3), data=b"")], "no elements"),
        (Picture, [Tensor(name="input", datatype="UINT8", shape=(0, 2**40, 5, 3), data=b"")], "without pixels"),
        (Pair, [tensor(np.array([1.0]), "a")], "missing: b"),
        (Pair, [tensor(np.array([1.0]), "a"), tensor(np.array([1.0]), "c")], "unknown: 'c'"),
        (Pair, [tensor(np.array([1.0, 2.0]), "a"), tensor(np.array([1.0]), "b")], "must have one element"),
        (Pair, [tensor([b"x"], "a"), tensor([b"1"], "b")], "JSON value"),
        (Pair, [tensor([b"[" * 10**5], "a"), tensor([b"1"], "b")], "JSON value"),
    ],
)
def test_what_the_model_cannot_take_is_refused_with_what_it_can(cls, tensors, reason):
    assert reason in refusal(split, signature_of(cls), tensors)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("image", np.zeros((2, 4, 5, 3), np.uint8), "must be one picture"),
        ("text", [b"\xff"], "text in UTF-8"),
        ("text", [b"a", b"b"], "must have one element"),
        ("text", FLOATS, "send it as BYTES"),
        ("x", [b"a"], "is an array"),
        ("more", np.array([np.inf]), "NaN or infinity"),
    ],
)
def test_what_one_of_several_cannot_take_is_refused(name, value, reason):
    good = {"image": np.zeros((4, 5), np.uint8), "text": [b"a"], "x": FLOATS}
    tensors = [tensor(value, name) for name, value in {**good, name: value}.items()]
    assert reason in refusal(split, signature_of(Several), tensors)


def rows(cls):
    described = describe("m", signature_of(cls))
    assert (described["name"], described["versions"], described["platform"]) == ("m", ["1"], "dumbwaiter")
    return [(row["name"], row["datatype"], row["shape"]) for row in described["inputs"] + described["outputs"]]


def test_the_metadata_say_what_is_known():
    assert rows(Text) == [("prompt", "BYTES", [-1]), ("output", "BYTES", [-1])]
    assert rows(Array) == [("x", "FP32", [-1]), ("output", "FP32", [-1])]
    assert rows(Halves) == [("xs", "FP16", [-1, -1]), ("output", "FP64", [-1, -1])]
    assert rows(Picture) == [("image", "BYTES", [-1]), ("output", "BYTES", [-1])]
    assert rows(Number) == [("x", "FP64", [-1]), ("output", "FP64", [-1])]
    assert rows(Row) == [("row", "FP64", [-1]), ("output", "INT64", [-1])]
    assert rows(Pair) == [("a", "FP64", [1]), ("b", "FP64", [1]), ("output", "FP64", [1])]
    assert rows(Anything) == [("x", "BYTES", [-1]), ("output", "BYTES", [-1])]
    assert rows(Several) == [
        ("image", "BYTES", [1]),
        ("text", "BYTES", [1]),
        ("x", "FP32", [-1]),
        ("top", "INT64", [1]),
        ("data", "BYTES", [1]),
        ("more", "BYTES", [1]),
        ("output", "BYTES", [-1]),
    ]


class Letters:
    def __call__(self, text: str) -> Iterator[str]:
        yield from text


class Lengths:
    def __call__(self, text: str) -> Iterator[int]:
        yield from (len(text), 2, 3)


class Rows:
    def __call__(self, text: str) -> Iterator[np.ndarray]:
        yield np.arange(4.0)
        yield np.arange(4.0)


class Objects:
    def __call__(self, text: str) -> Iterator[dict[str, int]]:
        yield {"a": 1}


class Words:
    def __call__(self, text: str) -> list[str]:
        return text.split()


class Untyped:
    def __call__(self, text):
        yield "a"
        yield "b"


@pytest.mark.parametrize("cls", [Letters, Lengths, Rows, Objects, Words, Untyped])
def test_an_output_has_as_many_dimensions_as_the_metadata_say(cls):
    """Also of a generator, whose chunks come in a list."""
    model = served(cls)
    (output,) = model.predict([model.decode("text/plain", b"one two")])
    tensor = join((1,), [model.encode(output)], name="output")
    name, datatype, shape = rows(cls)[-1]
    assert (tensor.name, tensor.datatype, len(tensor.shape)) == (name, datatype, len(shape))


MODELS = [Text, Texts, Bytes, Array, Arrays, Halves, Picture, Number, Numbers, Row, Object, Anything, Several, Pair]
NAMES = ["input", "prompt", "prompts", "data", "x", "xs", "image", "row", "shape", "a", "b", "text", "top", "more"]


@st.composite
def any_tensor(draw):
    shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=5))
    datatype = draw(st.sampled_from(["BYTES", "UINT8", "FP32", "BOOL", "BF16", "INT64", "FP16"]))
    count, nbytes = int(np.prod(shape)), {"FP32": 4, "INT64": 8, "BF16": 2, "FP16": 2}.get(datatype, 1)
    if datatype == "BYTES":
        data = [draw(st.binary(max_size=3) | st.just(b"1")) for _ in range(min(count, 10))]
        data += [b"[1]"] * (count - len(data))
    elif datatype == "BOOL":
        data = bytes(count)
    else:
        data = draw(st.binary(min_size=1, max_size=40)) * (count * nbytes)
        data = data[: count * nbytes]
    return Tensor(name=draw(st.sampled_from(NAMES)), datatype=datatype, shape=tuple(shape), data=data)


@given(st.sampled_from(MODELS), st.lists(any_tensor(), min_size=1, max_size=3))
def test_any_tensors_become_as_many_requests_as_their_lead_says_or_are_refused(cls, tensors):
    with contextlib.suppress(ProblemError):
        asked = split(signature_of(cls), tensors)
        assert len(asked.bodies) == np.prod(asked.lead, dtype=int) > 0
        made = sum(len(body) for _, body in asked.bodies) if tensors[0].datatype != "BYTES" or len(tensors) > 1 else 0
        assert made <= most_split_nbytes(signature_of(cls), tensors)


@given(
    st.dictionaries(
        st.sampled_from(["input", "output", "batched"]),
        st.none()
        | st.booleans()
        | st.fixed_dictionaries({}, optional={"kind": st.sampled_from(["image", "json", "new"]), "schema": st.none()}),
    ),
    any_tensor(),
)
def test_the_signature_of_a_newer_worker_breaks_nothing(signature, one):
    if not isinstance(signature.get("input", {}), dict) or not isinstance(signature.get("output", {}), dict):
        return  # no worker says so
    described = describe("m", signature)
    assert described["inputs"]
    with contextlib.suppress(ProblemError):
        split(signature, [one])
