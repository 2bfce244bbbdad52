"""Content types: parsed once, guessed from the first bytes where nobody said."""

from __future__ import annotations

import io

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.content_types import parse_content_type, sniff_image


@pytest.mark.parametrize(
    ("header", "essence", "charset"),
    [
        ("text/plain", "text/plain", "utf-8"),
        ("Text/PLAIN ; Charset=ISO-8859-1", "text/plain", "iso-8859-1"),
        ("application/json; charset='UTF-8'", "application/json", "utf-8"),
        ('text/plain; format=flowed; charset="latin1"', "text/plain", "latin1"),
        ("text/plain; charset", "text/plain", ""),
        (None, "", "utf-8"),
        ("", "", "utf-8"),
        (";;;", "", "utf-8"),
    ],
)
def test_type_and_charset_are_read_whatever_their_case_and_quotes(header, essence, charset):
    parsed = parse_content_type(header)
    assert (parsed.essence, parsed.charset) == (essence, charset)


@pytest.mark.parametrize(
    ("header", "family"),
    [
        (None, "opaque"),
        ("application/octet-stream", "opaque"),
        ("application/x-www-form-urlencoded", "opaque"),
        ("application/json", "is_json"),
        ("text/json", "is_json"),
        ("application/geo+json", "is_json"),
        ("text/csv", "is_text"),
        ("image/jpeg", "is_image"),
        ("application/x-npy", "is_npy"),
        ("application/x-numpy", "is_npy"),
        ("application/pdf", None),
        ("nonsense", None),
    ],
)
def test_each_type_belongs_to_one_family_or_none(header, family):
    parsed = parse_content_type(header)
    families = ["opaque", "is_json", "is_text", "is_image", "is_npy"]
    assert [name for name in families if getattr(parsed, name)] == ([family] if family else [])


def test_what_is_said_to_be_bytes_is_said():
    assert [
        parse_content_type(header).unsaid
        for header in (None, "application/x-www-form-urlencoded; x=1", "Application/Octet-Stream")
    ] == [True, True, False]


@given(st.text(max_size=60))
def test_no_header_is_too_strange_to_parse(header):
    parsed = parse_content_type(header)
    assert parsed.essence == parsed.essence.strip().lower()


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("GIF", "image/gif"),
        ("TIFF", "image/tiff"),
        ("WEBP", "image/webp"),
        ("AVIF", "image/avif"),
    ],
)
def test_a_picture_is_known_by_its_first_bytes(kind, content_type):
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(file, kind)
    assert sniff_image(file.getvalue()) == content_type


def test_big_endian_tiff_and_old_gif_are_known_too():
    assert sniff_image(b"MM\x00*" + bytes(20)) == "image/tiff"
    assert sniff_image(b"GIF87a" + bytes(20)) == "image/gif"


@pytest.mark.parametrize("body", [b"", b"hello", b"RIFF____WAVE", b"____ftypmp42", b"\x89PN"])
def test_what_is_no_picture_is_not_taken_for_one(body):
    assert sniff_image(body) is None
    assert sniff_image(memoryview(body)) is None
