"""Server-sent events, from lines to events. Pure.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from dumbwaiter import data_urls
from dumbwaiter.content_types import BYTES, JSON, TEXT
from dumbwaiter.errors import BadInputError


class ServerEvent(NamedTuple):
    """One event: its name (``message`` when none was said), its *data*, and the last *id* said so far."""

    name: str
    data: str
    id: str


class EventParser:
    """Feed it lines without their ends."""

    def __init__(self) -> None:
        self._id = ""
        self._name = ""
        self._data: list[str] = []

    def feed(self, line: str) -> ServerEvent | None:
        """The event that *line* completes, if any."""
        if line:
            self._read(line)
            return None
        name, data = self._name, self._data
        self._name, self._data = "", []
        return ServerEvent(name or "message", "\n".join(data), self._id) if data else None

    def _read(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value


def output_of(data: str) -> tuple[str, bytes]:
    """Content type and body of an output that stands in *data* as a JSON value: text as a string, bytes as a ``data:``
    URL. *data* that is not JSON is text.
    """
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return TEXT, data.encode()
    if not isinstance(value, str):
        return JSON, data.encode()
    if not data_urls.holds_base64(value):
        return TEXT, value.encode()
    try:
        content_type, body = data_urls.read(value, may_be_empty=True)
    except BadInputError:
        return TEXT, value.encode()
    return content_type or BYTES, body
