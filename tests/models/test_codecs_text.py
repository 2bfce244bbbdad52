"""Text, raw bytes, and inputs of no declared type."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import as_file, photograph
from PIL import Image

from dumbwaiter.content_types import parse_content_type
from dumbwaiter.errors import BadInputError
from dumbwaiter.models.codecs_array import encode_npy
from dumbwaiter.models.codecs_image import ImageCodec
from dumbwaiter.models.codecs_text import AnyCodec, BytesCodec, TextCodec

ANY = AnyCodec(ImageCodec(max_pixels=1_000_000))


def decode(codec, content_type, body):
    return codec.from_body(parse_content_type(content_type), body)


def complaint(codec, content_type, body):
    with pytest.raises(BadInputError) as caught:
        decode(codec, content_type, body)
    return str(caught.value)


@given(st.text())
def test_text_arrives_as_it_was_sent_but_for_a_byte_order_mark(text):
    assert decode(TextCodec(), "text/plain; charset=utf-8", text.encode()) == text.removeprefix("\ufeff")


@pytest.mark.parametrize("charset", ["utf-8", "latin1", "iso-8859-15", "windows-1252", "utf-16"])
def test_text_is_read_in_the_charset_that_the_content_type_names(charset):
    assert decode(TextCodec(), f"text/plain; charset={charset}", "Grüße".encode(charset)) == "Grüße"


def test_a_byte_order_mark_is_no_part_of_the_text():
    assert decode(TextCodec(), "text/plain", b"\xef\xbb\xbfhello") == "hello"


def test_text_may_come_as_a_json_string_or_with_no_type():
    assert decode(TextCodec(), "application/json", b'"hello \\u00fc"') == "hello ü"
    assert decode(TextCodec(), None, memoryview(b"hello")) == "hello"


@pytest.mark.parametrize("charset", ["zlib", "rot13", "idna", "unicode_escape", "x" * 500, ""])
def test_charsets_that_no_client_sends_are_refused_by_name(charset):
    said = complaint(TextCodec(), f"text/plain; charset={charset}", b"abc")
    assert said.startswith(f"unknown charset '{charset[:30]}")
    assert said.endswith("send UTF-8")


def test_text_that_is_not_in_its_charset_says_where():
    assert complaint(TextCodec(), "text/plain", b"abc\xff") == "the text is not valid utf-8 at byte 3"


def test_text_of_a_wrong_type_says_what_came():
    assert complaint(TextCodec(), "image/png", b"abc") == "expected text, got image/png"
    assert complaint(TextCodec(), "application/json", b"[1]") == "expected text, got a JSON array"


@given(st.binary(), st.sampled_from([None, "image/png", "application/json", "nonsense"]))
def test_bytes_are_bytes_whatever_their_type(body, content_type):
    assert decode(BytesCodec(), content_type, memoryview(body)) == body


def test_bytes_in_json_are_a_data_url():
    assert BytesCodec().from_json(f"data:;base64,{base64.b64encode(b'hi').decode()}") == b"hi"
    with pytest.raises(BadInputError, match="expected bytes, as its own body, or in JSON as a data: or https: URL"):
        BytesCodec().from_json("hi")


def test_an_input_of_no_declared_type_is_what_its_content_type_says():
    assert decode(ANY, "image/png", as_file(photograph("chelsea"), "PNG")).size == (451, 300)
    assert decode(ANY, "application/json", b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    assert decode(ANY, "application/x-npy", encode_npy(np.arange(3))).tolist() == [0, 1, 2]
    assert decode(ANY, "text/plain", b"[1]") == "[1]"
    assert decode(ANY, "application/pdf", b"%PDF") == b"%PDF"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[1, 2]", [1, 2]),
        (b"12", 12),
        (b"hello", "hello"),
        (b"NaN", "NaN"),
        (b"{broken", "{broken"),
        (b'"\xff"', b'"\xff"'),
        (b"\xff\x00", b"\xff\x00"),
    ],
)
def test_a_body_that_says_nothing_is_looked_at(body, expected):
    assert decode(ANY, None, body) == expected
    assert decode(ANY, "application/octet-stream", memoryview(body)) == expected


def test_pictures_and_arrays_that_say_nothing_are_known_by_their_first_bytes():
    assert isinstance(decode(ANY, None, as_file(photograph("coffee"), "JPEG")), Image.Image)
    assert decode(ANY, None, encode_npy(np.eye(2))).shape == (2, 2)


def test_json_nested_too_deeply_is_an_error_also_where_nobody_said_json():
    assert complaint(ANY, None, b"[" * 2000 + b"]" * 2000) == "the JSON body is nested too deeply"


def test_a_json_value_of_no_declared_type_is_taken_as_it_is():
    value = {"a": [1]}
    assert ANY.from_json(value) is value


def test_schemas_say_what_json_may_hold():
    assert TextCodec().schema() == {"type": "string"}
    assert BytesCodec().schema()["format"] == "uri"
    assert ANY.schema() == {}
