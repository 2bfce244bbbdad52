"""Data URLs, and the words in which errors speak of JSON values."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.errors import BadInputError
from dumbwaiter.models.input_codec import from_data_url, name_of, one_line


def complaint(value):
    with pytest.raises(BadInputError) as caught:
        from_data_url("an image", value)
    return str(caught.value)


@given(st.binary(max_size=200))
def test_a_base64_data_url_carries_any_bytes(data):
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    assert from_data_url("an image", url) == ("image/png", data)


def test_a_data_url_without_base64_is_percent_encoded():
    assert from_data_url("text", "data:text/plain;charset=utf-8,a%20b%2Cc,d") == (
        "text/plain;charset=utf-8",
        b"a b,c,d",
    )
    assert from_data_url("text", "data:,") == ("", b"")


def test_base64_may_be_written_in_capitals_and_without_a_type():
    assert from_data_url("bytes", "data:;BASE64,aGk=") == ("", b"hi")


def test_a_plain_url_is_never_fetched_and_the_error_says_what_to_send():
    said = complaint("http://169.254.169.254/latest/meta-data")
    assert said.startswith("expected an image, as its own body or in JSON as a data URL; got the JSON string 'http:")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({}, "a JSON object"),
        ([1], "a JSON array"),
        (None, "JSON null"),
        (True, "a JSON boolean"),
        (1, "a JSON number"),
        (1.5, "a JSON number"),
        ("abc", "the JSON string 'abc'"),
        (b"abc", "a bytes"),
    ],
)
def test_what_came_is_named_in_json_own_words(value, name):
    assert name_of(value) == name
    assert complaint(value).endswith(f"got {name}")


def test_a_data_url_without_data_and_one_that_is_not_base64_say_so():
    assert complaint("data:image/png;base64") == "expected an image; got a data URL without data"
    assert "not base64" in complaint("data:image/png;base64,***")
    assert "not base64" in complaint("data:image/png;base64,é")
    assert "not base64" in complaint("data:image/png;base64,abc")


def test_long_and_broken_lines_are_shortened_to_one():
    assert one_line("a\n\tb   c") == "a b c"
    assert one_line("x" * 300, 10) == "xxxxxxx..."
    assert len(name_of("x" * 10_000)) < 80
    assert one_line("\x1b[1;31mred\x1b[0m [1m text") == "red [1m text"
