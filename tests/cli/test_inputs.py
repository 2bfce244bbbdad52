"""Files, standard input, texts and JSON values as messages."""

from __future__ import annotations

import click
import pytest

from dumbwaiter.cli.inputs import guess_content_type, inputs_of


def message_of(argument, *, as_text=False):
    (given,) = inputs_of([argument], [], as_text=as_text)
    return given.message("m", content_type=None, patience=5.0)


def test_a_file_is_sent_with_its_media_type(tmp_path):
    file = tmp_path / "cat.jpg"
    file.write_bytes(b"\xff\xd8\xff\xe0 not really")
    message = message_of(str(file))
    assert (message.content_type, message.body) == ("image/jpeg", b"\xff\xd8\xff\xe0 not really")
    assert message.deadline - message.time == 5.0


def test_a_text_is_sent_as_text():
    message = message_of("a cat on a mat")
    assert (message.content_type, message.body) == ("text/plain", b"a cat on a mat")


@pytest.mark.parametrize("argument", ["cat.jpg", "photos/cat", "https://example.com/cat.jpg"])
def test_a_misspelled_file_is_not_taken_for_a_text_unless_told_so(argument):
    with pytest.raises(click.UsageError, match="--text"):
        message_of(argument)
    assert message_of(argument, as_text=True).body == argument.encode()


def test_a_folder_is_refused_with_a_hint(tmp_path):
    with pytest.raises(click.UsageError, match="is a folder"):
        message_of(str(tmp_path))


def test_an_empty_argument_is_no_folder_and_no_text_unless_told_so():
    with pytest.raises(click.UsageError, match="an input is empty: name a file"):
        message_of("")
    assert message_of("", as_text=True).body == b""


def test_a_text_too_long_for_a_file_name_is_a_text():
    assert len(message_of("word " * 10_000).body) == 50_000


def test_json_values_are_checked_and_sent_as_json():
    (given,) = inputs_of([], ['{"a": 1}'], as_text=False)
    assert given.message("m", content_type=None, patience=None).content_type == "application/json"
    for wrong in ("{", "[" * 100_000):
        with pytest.raises(click.UsageError, match="is not JSON"):
            inputs_of([], [wrong], as_text=False)


def test_nothing_at_all_is_refused():
    with pytest.raises(click.UsageError, match="no input"):
        inputs_of([], [], as_text=False)


@pytest.mark.parametrize(
    ("name", "body", "content_type"),
    [
        ("x.txt", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("x.wav", b"abc", "audio/x-wav"),
        ("x.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio/x-wav"),
        ("-", b"RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp"),
        ("-", "grüß".encode(), "text/plain"),
        ("-", b"\xff\x00", "application/octet-stream"),
    ],
)
def test_the_first_bytes_then_the_name_then_the_text_tell_the_type(name, body, content_type):
    assert guess_content_type(name, body) == content_type
