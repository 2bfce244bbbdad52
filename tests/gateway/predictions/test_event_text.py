"""Events as text in pieces: the same text as in one, and no piece is large."""

from __future__ import annotations

import json

import pytest

from dumbwaiter.blobs.events import Event, event_id, new_attempt
from dumbwaiter.gateway.predictions.event_text import PIECE, json_of, text_of
from dumbwaiter.prediction import output_as_json

LARGE = {
    "json": ("application/json", json.dumps(['größer\n"x" '] * 100_000, ensure_ascii=False).encode()),
    "pretty json": ("application/json", json.dumps(list(range(200_000)), indent=2).encode()),
    "text": ("text/plain", 'ä\n"€" 🦆\r\\\x00'.encode() * 60_000),
    "broken text": ("text/plain", b"a" * (2 * PIECE + 1) + b"\xff"),
    "text cut off": ("text/plain", b"a" * (2 * PIECE) + "€".encode()[:2]),
    "picture": ("image/png", bytes(range(256)) * 3000 + b"z"),
    "no type": (None, bytes(PIECE + 2)),
    "strange type": ('a/b; x="\\"', bytes(PIECE + 1)),
    "exactly a piece": ("a/b", bytes(PIECE)),
    "little": ("text/plain", b"soup"),
    "nothing": ("application/json", b""),
}


@pytest.mark.parametrize(("content_type", "data"), LARGE.values(), ids=LARGE)
def test_pieces_of_an_output_are_what_the_whole_would_be(content_type, data):
    assert b"".join(json_of(content_type, data)) == (output_as_json(content_type, data) or b"null")


@pytest.mark.parametrize(("content_type", "data"), LARGE.values(), ids=LARGE)
def test_an_event_is_three_lines_whatever_its_data_and_comes_in_small_pieces(content_type, data):
    event = Event(id=event_id(new_attempt(1, 1.0), 1), event="output", data=data, content_type=content_type)
    pieces = list(text_of(event))
    assert max(map(len, pieces)) <= 3 * PIECE
    assert len(pieces) == 1 or len(data) > PIECE
    id_line, name_line, data_line, *end = b"".join(pieces).split(b"\n")
    assert (id_line, name_line, end) == (f"id: {event.id}".encode(), b"event: output", [b"", b""])
    said = data_line.removeprefix(b"data: ")
    assert b"\r" not in said
    assert json.loads(said) == json.loads(output_as_json(content_type, data) or b"null")
