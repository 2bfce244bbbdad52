"""Events as readers of server-sent events take them, in pieces, so that nothing large is copied whole. Pure.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html. The data of each is a JSON value on one line.
"""

from __future__ import annotations

import codecs
import itertools
from base64 import b64encode
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter import data_urls
from dumbwaiter.content_types import parse_content_type
from dumbwaiter.prediction import output_as_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dumbwaiter.blobs.events import Event

CONTENT_TYPE = b"text/event-stream; charset=utf-8"
PIECE = 192 * 1024
"""So many bytes of an event's data are written at a time. A multiple of 3: base64 of pieces is that of the whole."""

_encode_json = msgspec.json.Encoder().encode


def text_of(event: Event) -> Iterator[bytes]:
    """*event*, in pieces."""
    return named(event.event, event.id, json_of(event.content_type, event.data))


def named(name: str, id_: str, data: Iterable[bytes]) -> Iterator[bytes]:
    """The event *name* whose *data* is JSON, in pieces: one, where there is little of it."""
    head = b"id: %s\nevent: %s\ndata: " % (id_.encode(), name.encode())
    pieces = iter(data)
    first = next(pieces, b"")
    if (second := next(pieces, None)) is None:
        yield b"%s%s\n\n" % (head, _on_one_line(first))
        return
    yield head
    for piece in itertools.chain((first, second), pieces):
        yield _on_one_line(piece)
    yield b"\n\n"


def cut(data: bytes) -> Iterator[bytes]:
    """*data* in pieces."""
    if len(data) <= PIECE:
        yield data
        return
    view = memoryview(data)
    for start in range(0, len(data), PIECE):
        yield bytes(view[start : start + PIECE])


def json_of(content_type: str | None, data: bytes) -> Iterator[bytes]:
    """What output_as_json() makes of *data*, in pieces."""
    said = parse_content_type(content_type)
    if len(data) <= PIECE:
        yield output_as_json(content_type, data) or b"null"
    elif said.is_json:
        yield from cut(data)
    elif said.is_text and _is_utf8(data):
        yield b'"'
        yield from (_encode_json(text)[1:-1] for text in _decoded(data))
        yield b'"'
    else:
        yield _encode_json(data_urls.write(content_type, b""))[:-1]
        yield from (b64encode(piece) for piece in cut(data))
        yield b'"'


def _on_one_line(piece: bytes) -> bytes:
    # Line breaks between JSON's tokens are white space; within its strings there are none.
    return piece.replace(b"\r", b" ").replace(b"\n", b" ")


def _decoded(data: bytes) -> Iterator[str]:
    return codecs.iterdecode(cut(data), "utf-8")


def _is_utf8(data: bytes) -> bool:
    try:
        for _ in _decoded(data):
            pass
    except UnicodeDecodeError:
        return False
    return True
