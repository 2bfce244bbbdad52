"""No byte string, under no content type, makes any codec raise anything but BadInputError."""

from __future__ import annotations

import functools
import json
import typing

import msgspec
import numpy as np
import numpy.typing as npt
import pydantic
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import as_file, photograph
from PIL import Image

from dumbwaiter.content_types import parse_content_type
from dumbwaiter.errors import BadInputError
from dumbwaiter.models.arguments import SeveralInputs, SingleInput
from dumbwaiter.models.codecs import encode_input, input_codec
from dumbwaiter.models.signature import Parameter

# A library that warns of a damaged file has read it all the same; the worker does not turn its warnings into errors.
pytestmark = pytest.mark.filterwarnings("ignore")


class Point(msgspec.Struct):
    x: int
    tags: list[str] = []


class Order(pydantic.BaseModel):
    dish: str
    more: dict[str, typing.Any] = {}


ANNOTATIONS = [
    Image.Image, np.ndarray, npt.NDArray[np.float32], npt.NDArray[np.uint8], torch.Tensor, str, bytes, None,
    dict, list[float], Point, Order, int, float | None,
]  # fmt: skip
CONTENT_TYPES = [
    None, "", "application/json", "application/x-npy", "application/npy", "image/png", "image/*", "text/plain",
    "text/plain; charset=utf-16", "text/plain; charset=idna", "application/octet-stream", "application/geo+json",
    "application/x-www-form-urlencoded", ";;", "multipart/form-data; boundary=x",
]  # fmt: skip


@functools.cache
def decoders():
    """One single input of each annotation, and all of them as the arguments of one call."""
    codecs = [input_codec(one, "x", image_mode="RGB", max_pixels=100_000) for one in ANNOTATIONS]
    parameters = [Parameter(f"p{index}", one, index == 0, True) for index, one in enumerate(ANNOTATIONS)]
    singles = [
        SingleInput(Parameter("x", one, True, True), codec) for one, codec in zip(ANNOTATIONS, codecs, strict=True)
    ]
    return [*singles, SeveralInputs(parameters, codecs)]


def survive(content_type, body):
    """The outcome of each decoder: True where it took the body."""
    refusals = [refusal(decoder, content_type, body) for decoder in decoders()]
    for said in refusals:
        assert said is None or 0 < len(said.encode()) < 1000, "an error says something, and is not as long as a body"
    return [said is None for said in refusals]


def refusal(decoder, content_type, body):
    try:
        decoder.decode(parse_content_type(content_type), memoryview(body))
    except BadInputError as error:
        return str(error)
    return None


@functools.cache
def real_files():
    small = photograph("chelsea").resize((24, 16))
    pictures = [as_file(small, kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF")]
    odd = [
        as_file(small, "JPEG", progressive=True),
        as_file(small.convert("CMYK"), "JPEG"),
        as_file(small.quantize(16), "PNG", transparency=3),
        as_file(small.convert("I"), "TIFF"),
        as_file(small, "TIFF", compression="tiff_lzw"),
        as_file(small.convert("RGBA"), "WEBP", lossless=True),
    ]
    arrays = [encode_input(np.arange(6, dtype=dtype).reshape(2, 3))[1] for dtype in ("f4", ">i8", "c16", "u1")]
    texts = [json.dumps({"x": [1, 2.5, None, "ü"], "dish": "soup"}).encode(), b'{"p0": "data:image/png;base64,iVBO"}']
    return [*pictures, *odd, *arrays, *texts]


@st.composite
def damaged_files(draw):
    """A real file with some bytes changed, cut out, doubled or cut off."""
    body = bytearray(draw(st.sampled_from(real_files())))
    for _ in range(draw(st.integers(1, 8))):
        # Headers are where the lies are told.
        place = draw(st.integers(0, min(len(body), 200)) | st.integers(0, len(body)))
        how = draw(st.sampled_from(["change", "insert", "remove", "repeat", "cut"]))
        if how == "change":
            body[place : place + 1] = draw(st.binary(min_size=1, max_size=4))
        elif how == "insert":
            body[place:place] = draw(st.binary(max_size=8))
        elif how == "remove":
            del body[place : place + draw(st.integers(1, 30))]
        elif how == "repeat":
            body[place:place] = body[place : place + draw(st.integers(1, 30))]
        else:
            del body[place:]
    return bytes(body)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CONTENT_TYPES) | st.text(max_size=30), st.binary(max_size=300))
def test_any_bytes_under_any_content_type_are_taken_or_refused(content_type, body):
    survive(content_type, body)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(CONTENT_TYPES), damaged_files())
def test_damaged_real_files_are_taken_or_refused(content_type, body):
    survive(content_type, body)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
    | st.sampled_from(["data:,x", "data:image/png;base64,iVBORw0KGgo=", "data:application/json,1", "data:;base64,!"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["x", "dish", "p0", "p1", "p2", "tags", "more"]) | st.text(max_size=3), inner),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(CONTENT_TYPES), JSON_VALUES)
def test_any_json_value_is_taken_or_refused(content_type, value):
    survive(content_type, json.dumps(value).encode())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-1, 3) | st.sampled_from([True, 2**31, 2**63 - 1, 2**63, 2**70]), max_size=70),
    st.sampled_from(["<f4", ">i8", "|b1", "|O", "<U2", "|V3", "<m8[s]", "<f16", "|i1", "zz"]),
    st.booleans(),
    st.binary(max_size=64),
)
def test_any_header_of_an_array_is_taken_or_refused(shape, descr, fortran_order, data):
    literal = repr({"descr": descr, "fortran_order": fortran_order, "shape": tuple(shape)}).encode()
    size = len(literal).to_bytes(2, "little")
    survive("application/x-npy", b"\x93NUMPY\x01\x00" + size + literal + data)


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("depth", [100, 900, 2_000, 50_000])
def test_any_depth_is_taken_or_refused(content_type, depth):
    survive(content_type, b"[" * depth + b"]" * depth)
    survive(content_type, b'{"x":' * depth + b"1" + b"}" * depth)


def test_each_real_file_is_taken_by_the_codec_that_it_is_for():
    readers = {Image.Image: ANNOTATIONS.index(Image.Image), np.ndarray: ANNOTATIONS.index(np.ndarray)}
    for body in real_files():
        reader = np.ndarray if body.startswith(b"\x93NUMPY") else dict if body.startswith(b"{") else Image.Image
        assert survive(None, body)[readers.get(reader, ANNOTATIONS.index(dict))], body[:16]
