"""Data URLs: read in every form in which they are written, written in one."""

from __future__ import annotations

import base64
import contextlib
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.data_urls import LONGEST_HEAD, holds_base64, is_data_url, read, write
from dumbwaiter.errors import BadInputError


@pytest.mark.parametrize(
    ("url", "content_type", "body"),
    [
        ("data:image/png;base64,iVBO", "image/png", b"\x89PN"),
        ("DATA:image/png;BASE64,iVBO", "image/png", b"\x89PN"),
        ("data:image/png ; base64,iVBO", "image/png", b"\x89PN"),
        ("data:image/png;base64,aGVsbG8%3D", "image/png", b"hello"),
        ("data:text/plain;charset=utf-8;base64,w6Q=", "text/plain;charset=utf-8", "ä".encode()),
        ("data:text/plain;charset=utf-8,a%20b%2Cc,d", "text/plain;charset=utf-8", b"a b,c,d"),
        ("data:text/plain,ä", "text/plain", "ä".encode()),
        ("data:,a%20b", "text/plain;charset=US-ASCII", b"a b"),
        ("data:;charset=utf-8,a", "text/plain;charset=utf-8", b"a"),
        ("data:;charset=utf-8;base64,YQ==", "text/plain;charset=utf-8", b"a"),
        ("data:;base64,aGk=", None, b"hi"),
        ("data:base64,aGk=", "base64", b"aGk="),
    ],
)
def test_type_and_bytes_are_read_in_every_form(url, content_type, body):
    assert read(url) == (content_type, body)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("data:image/png;base64", "without data"),
        ("data:", "without data"),
        ("https://example.com/a,b", "without data"),
        ("data:image/png;base64,***", "not base64"),
        ("data:image/png;base64,abc", "not base64"),
        ("data:image/png;base64,é", "not base64"),
        ("data:image/png;base64,aGk=%", "not base64"),
        ("data:,\ud800", "not Unicode"),
        ("data:,", "nothing in it"),
        ("data:image/png;base64,", "nothing in it"),
    ],
)
def test_what_cannot_be_read_says_why(url, reason):
    with pytest.raises(BadInputError, match=reason):
        read(url)


def test_whoever_expects_it_may_have_an_empty_one():
    assert read("data:image/png;base64,", may_be_empty=True) == ("image/png", b"")


@given(st.sampled_from(["image/png", "text/plain; charset=utf-8", "a/b;base64", "A/B"]), st.binary(max_size=200))
def test_what_is_written_is_read_back(content_type, body):
    assert read(write(content_type, body), may_be_empty=True) == (content_type, body)


@given(st.text(max_size=40), st.binary(min_size=1, max_size=40))
def test_no_type_is_too_strange_to_be_written(content_type, body):
    assert read(write(content_type, body))[1] == body


@given(st.binary(min_size=1, max_size=200))
def test_base64_may_be_percent_encoded(body):
    assert read("data:a/b;base64," + quote(base64.b64encode(body).decode(), safe="")) == ("a/b", body)


@given(st.text(max_size=60))
def test_no_text_does_more_than_be_refused(text):
    with contextlib.suppress(BadInputError):
        assert read(f"data:{text}")[1]


def test_a_type_with_a_comma_is_written_without_what_would_end_it():
    assert write('a/b; x="1,2"', b"hi") == "data:a/b;base64,aGk="
    assert write("a,b", b"hi") == write("", b"hi") == write(None, b"hi") == "data:application/octet-stream;base64,aGk="


def test_the_scheme_and_the_encoding_are_known_in_any_case():
    assert is_data_url("dAtA:x")
    assert not is_data_url("dat")
    assert holds_base64("Data:a/b;Base64,x")
    assert not holds_base64("data:a/b,x;base64,")
    assert not holds_base64("data:a/b;base64")
    assert not holds_base64("text;base64,aGk=")


@pytest.mark.parametrize("text", ["%41", "%4", "%%41", "a%41%", "ä%zz%C3%A4", "xy", "%C3%A4b", "%"])
def test_long_data_is_decoded_as_short_data_is(text):
    """It is done in pieces, and no escape is cut, wherever it lies."""
    for shift in range(4):
        long = "." * shift + text * 70_000
        assert read(f"data:a/b,{long}")[1] == unquote_to_bytes(long)


def test_what_stands_before_the_comma_is_short():
    longest = "data:a/b;" + "c" * (LONGEST_HEAD - len("data:a/b;"))
    assert read(f"{longest},x") == (longest.removeprefix("data:"), b"x")
    for url in (f"{longest}c,x", "data:a/b;" + "a=b;" * 100_000 + ",x"):
        assert not holds_base64(url.replace(",x", ";base64,eA=="))
        with pytest.raises(BadInputError, match=f"more than {LONGEST_HEAD} characters before its comma"):
            read(url)
