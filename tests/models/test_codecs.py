"""Which codec: by annotation for inputs, by value for outputs, by content type for answers."""

from __future__ import annotations

import dataclasses
import sys
import typing

import msgspec
import numpy as np
import numpy.typing as npt
import pydantic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pictures import as_file, difference, photograph
from PIL import Image, JpegImagePlugin

from dumbwaiter.content_types import parse_content_type
from dumbwaiter.errors import BadInputError, MissingExtraError, ModelLoadError, PermanentError
from dumbwaiter.models.codecs import (
    decode_output,
    encode_input,
    encode_output,
    input_codec,
    kind_of,
    plain_type,
)


class Point(msgspec.Struct):
    x: int


@dataclasses.dataclass
class Box:
    x: int


class Order(pydantic.BaseModel):
    dish: str


T = typing.TypeVar("T")


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (Image.Image, "image"),
        (JpegImagePlugin.JpegImageFile, "image"),
        (Image.Image | None, "image"),
        (typing.Optional[Image.Image], "image"),  # noqa: UP045 - people write it
        (typing.Annotated[Image.Image, "upright"], "image"),
        (np.ndarray, "array"),
        (npt.NDArray[np.float32], "array"),
        (npt.NDArray[np.float32] | None, "array"),
        (np.ndarray[tuple[int], np.dtype[np.int8]], "array"),
        (torch.Tensor, "tensor"),
        (torch.nn.Parameter, "tensor"),
        (Order, "pydantic"),
        (str, "text"),
        (str | None, "text"),
        (bytes, "bytes"),
        (bytearray, "bytes"),
        (memoryview, "bytes"),
        (typing.Any, "any"),
        (object, "any"),
        (dict, "json"),
        (dict[str, np.ndarray], "json"),
        (int, "json"),
        (Point, "json"),
        (Box, "json"),
        (str | int, "json"),
        (list[Image.Image], "json"),
        (T, "json"),
    ],
)
def test_the_annotation_says_the_kind(annotation, kind):
    assert kind_of(annotation) == kind


def test_a_class_that_is_only_called_image_is_none():
    class Image:
        pass

    assert kind_of(Image) == "json"


def test_the_plain_type_is_what_wrappers_hold():
    assert plain_type(typing.Annotated[npt.NDArray[np.int8] | None, "x"]) is np.ndarray
    assert plain_type(int | str) == int | str
    assert plain_type(list[int]) == list[int]


def codec_of(annotation, name="x", image_mode="RGB"):
    return input_codec(annotation, name, image_mode=image_mode, max_pixels=1_000_000)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pil_image", "image"),
        ("image", "image"),
        ("Photo", "image"),
        ("cat_img", "image"),
        ("imagery", "any"),
        ("data", "any"),
        ("images", "any"),
    ],
)
def test_without_an_annotation_a_name_that_sounds_like_an_image_is_one(name, kind):
    assert codec_of(None, name).kind == kind


def test_an_annotation_outweighs_the_name():
    assert codec_of(str, "image").kind == "text"
    assert codec_of(typing.Any, "image").kind == "any"


@pytest.mark.parametrize(
    ("annotation", "content_type", "body", "value"),
    [
        (str, "text/plain", b"hi", "hi"),
        (bytes, "text/plain", b"hi", b"hi"),
        (int, "application/json", b"3", 3),
        (Point, "application/json", b'{"x": 1}', Point(1)),
        (Box, "application/json", b'{"x": 1}', Box(1)),
        (Order, "application/json", b'{"dish": "soup"}', Order(dish="soup")),
        (typing.Annotated[int, msgspec.Meta(ge=0)], "application/json", b"3", 3),
    ],
)
def test_each_annotation_decodes_its_own(annotation, content_type, body, value):
    assert codec_of(annotation).from_body(parse_content_type(content_type), body) == value


def test_constraints_of_an_annotation_are_enforced():
    with pytest.raises(BadInputError, match="Expected `int` >= 0"):
        codec_of(typing.Annotated[int, msgspec.Meta(ge=0)]).from_body(parse_content_type("application/json"), b"-1")


def test_what_cannot_work_is_found_when_the_model_is_loaded(monkeypatch):
    with pytest.raises(ModelLoadError, match="image_mode 'rgb' is no mode of Pillow's"):
        codec_of(Image.Image, image_mode="rgb")
    assert codec_of(str, image_mode="rgb").kind == "text"
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"dumbwaiter\[image\]"):
        codec_of(None, "pil_image")
    assert codec_of(str).kind == "text"


def test_an_array_without_numpy_and_a_tensor_without_torch_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingExtraError, match=r"dumbwaiter\[numpy\]"):
        codec_of(npt.NDArray[np.int8])
    with pytest.raises(MissingExtraError, match=r"dumbwaiter\[numpy\]"):
        codec_of(np.ndarray).from_json([1])
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"dumbwaiter\[torch\]"):
        codec_of(torch.Tensor).from_json([1])


@pytest.mark.parametrize(
    ("output", "annotation", "content_type"),
    [
        ("hi", None, "text/plain; charset=utf-8"),
        (b"hi", None, "application/octet-stream"),
        (memoryview(b"hi"), None, "application/octet-stream"),
        (Image.new("RGB", (1, 1)), None, "image/png"),
        (np.eye(2), None, "application/json"),
        (np.eye(2), dict, "application/json"),
        (np.eye(2), np.ndarray, "application/x-npy"),
        (np.eye(2), torch.Tensor, "application/x-npy"),
        (torch.eye(2), torch.Tensor, "application/x-npy"),
        (torch.eye(2), npt.NDArray[np.float32] | None, "application/x-npy"),
        (torch.eye(2), None, "application/json"),
        ({"a": 1}, dict, "application/json"),
        (None, None, "application/json"),
        (Point(1), Point, "application/json"),
        (3, np.ndarray, "application/json"),
    ],
)
def test_an_output_goes_by_its_value_and_arrays_by_their_annotation(output, annotation, content_type):
    assert encode_output(output, annotation)[0] == content_type


def test_an_output_that_cannot_be_encoded_is_a_permanent_error():
    with pytest.raises(PermanentError, match="not valid Unicode: surrogates not allowed at character 1"):
        encode_output("a\ud800")
    with pytest.raises(PermanentError, match="JSON cannot carry this object"):
        encode_output(object())
    with pytest.raises(PermanentError, match=r"as \.npy"):
        encode_output(np.array([{}]), np.ndarray)


def test_answers_become_python_values_again():
    assert decode_output("image/png", as_file(photograph("chelsea"), "PNG")).size == (451, 300)
    assert decode_output("application/json", b"[1]") == [1]
    assert decode_output("application/x-npy", encode_output(np.arange(3), np.ndarray)[1]).tolist() == [0, 1, 2]
    assert decode_output("text/plain; charset=latin1", b"\xfc") == "ü"
    assert decode_output("application/pdf", memoryview(b"%PDF")) == b"%PDF"
    assert decode_output(None, b"x") == b"x"
    with pytest.raises(BadInputError, match="the body is not valid JSON"):
        decode_output("application/json", b"")


@given(
    st.text().filter(lambda text: not text.startswith("\ufeff"))
    | st.lists(st.integers(-(2**63), 2**64 - 1) | st.text() | st.none() | st.booleans())
    | st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False))
)
def test_texts_and_json_values_come_back_from_a_model_that_echoes(value):
    content_type, body = encode_input(value)
    came = codec_of(None).from_body(parse_content_type(content_type), body)
    assert came == value
    assert decode_output(*encode_output(came)) == value


@given(arrays.arrays(st.sampled_from(["f4", "f8", "i2", "u8", "?", "c16"]), arrays.array_shapes(max_side=4)))
def test_arrays_and_tensors_come_back_from_a_model_that_echoes(array):
    content_type, body = encode_input(array)
    came = codec_of(np.ndarray).from_body(parse_content_type(content_type), body)
    np.testing.assert_array_equal(decode_output(*encode_output(came, np.ndarray)), array)
    assert encode_input(torch.from_numpy(array.copy())) == (content_type, body)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "1", "P", "I;16", "LA"])
def test_pictures_come_back_from_a_model_that_echoes(mode):
    image = Image.new(mode, (3, 2), 1)
    content_type, body = encode_input(image)
    came = codec_of(Image.Image, image_mode=None).from_body(parse_content_type(content_type), body)
    assert (came.mode, came.tobytes()) == (mode, image.tobytes())
    assert decode_output(*encode_output(came)).tobytes() == image.tobytes()


@given(st.binary())
def test_bytes_come_back_from_a_model_that_echoes(body):
    content_type, sent = encode_input(body)
    assert codec_of(bytes).from_body(parse_content_type(content_type), sent) == body
    assert encode_input(bytearray(body)) == encode_input(memoryview(body)) == (content_type, sent)


def test_the_bytes_of_a_picture_are_sent_as_one():
    body = as_file(photograph("chelsea"), "JPEG")
    assert encode_input(body) == ("image/jpeg", body)
    assert difference(decode_output(*encode_input(body)), photograph("chelsea")) < 10


@pytest.mark.parametrize(
    ("name", "content", "content_type"),
    [
        ("array.npy", b"whatever", "application/x-npy"),
        ("cat.jpeg", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("cat.jpeg", b"", "image/jpeg"),
        ("data.json", b"{}", "application/json"),
        ("notes.txt", b"hi", "text/plain"),
        ("thing", b"hi", "application/octet-stream"),
    ],
)
def test_a_file_is_sent_as_what_it_is(tmp_path, name, content, content_type):
    (tmp_path / name).write_bytes(content)
    assert encode_input(tmp_path / name) == (content_type, content)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"cannot read .*/missing\.jpg: No such file or directory"):
        encode_input(tmp_path / "missing.jpg")
    with pytest.raises(BadInputError, match="Is a directory"):
        encode_input(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), "\ud800", object(), np.array([{}]), Image.new("RGB", (0, 0))])
def test_what_no_body_can_carry_is_refused_before_it_is_sent(value):
    with pytest.raises(BadInputError, match="this input cannot be sent: "):
        encode_input(value)
