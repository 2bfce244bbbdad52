"""Data URLs, and the words in which errors speak of JSON values."""

from __future__ import annotations

import pytest

from dumbwaiter.errors import BadInputError
from dumbwaiter.models.input_codec import from_data_url, name_of, one_line


def complaint(value):
    with pytest.raises(BadInputError) as caught:
        from_data_url("an image", value)
    return str(caught.value)


def test_a_data_url_is_its_type_and_its_bytes():
    assert from_data_url("an image", "Data:image/png;base64,AAH%2F") == ("image/png", b"\x00\x01\xff")


def test_a_plain_url_is_never_fetched_and_the_error_says_what_to_send():
    said = complaint("http://169.254.169.254/latest/meta-data")
    assert said.startswith("expected an image, as its own body, or in JSON as a data: or https: URL; got the JSON")


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


def test_a_data_url_that_cannot_be_read_or_is_empty_says_what_was_expected():
    assert complaint("data:image/png;base64").startswith("expected an image; got a data URL without data")
    assert complaint("data:image/png;base64,***").startswith("expected an image; got a data URL that is not base64")
    assert complaint("data:image/png;base64,") == "expected an image; got a data URL with nothing in it"


def test_long_and_broken_lines_are_shortened_to_one():
    assert one_line("a\n\tb   c") == "a b c"
    assert one_line("x" * 300, 10) == "xxxxxxx..."
    assert len(name_of("x" * 10_000)) < 80
    assert one_line("\x1b[1;31mred\x1b[0m [1m text") == "red [1m text"
