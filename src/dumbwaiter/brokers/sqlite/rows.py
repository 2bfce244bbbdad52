"""Messages as rows: the CloudEvents attributes as JSON text beside the body."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.envelope import from_attributes, to_attributes
from dumbwaiter.errors import BadInputError, MessageTooLargeError
from dumbwaiter.message import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_MESSAGE_NBYTES = 64 * 1024 * 1024
_MAX_PRIORITY = 2**31
_KEY = re.compile(r"[1-9][0-9]{0,17}")

_encode_headers = msgspec.json.Encoder().encode
_decode_headers = msgspec.json.Decoder(dict[str, str | int | float | bool | None]).decode


class Row(msgspec.Struct, frozen=True, gc=False):
    """A message on its way into the file."""

    id: str
    priority: int
    headers: str
    body: bytes


def encode(messages: Sequence[Message]) -> list[Row]:
    """Rows for *messages*. Raises MessageTooLargeError for the first that is too large."""
    for message in messages:
        if len(message.body) > MAX_MESSAGE_NBYTES:
            raise MessageTooLargeError(len(message.body), MAX_MESSAGE_NBYTES)
    return [
        Row(
            message.id,
            max(-_MAX_PRIORITY, min(_MAX_PRIORITY, message.priority)),
            _encode_headers(to_attributes(message)).decode(),
            message.body,
        )
        for message in messages
    ]


def seq_of(key: str) -> int | None:
    """The row that a dead letter's *key* names; None for a text that is no key."""
    return int(key) if _KEY.fullmatch(key) else None


def decode(headers: bytes | None, body: bytes, row_id: bytes | None) -> Message:
    """The message in a row, read as bytes: SQLite does not check that a producer's text is UTF-8.

    Raises BadInputError when a producer wrote an id that is no text, or headers that are no CloudEvents attributes.
    """
    try:
        fallback_id = None if row_id is None else row_id.decode()
    except UnicodeDecodeError as error:
        raise BadInputError(f"the id is not UTF-8 text: {error}") from None
    if not headers:
        return from_attributes({}, body, fallback_id=fallback_id)
    try:
        attributes = _decode_headers(headers)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(f"headers are not a JSON object of CloudEvents attributes: {error}") from None
    return from_attributes(attributes, body, fallback_id=fallback_id)  # type: ignore[arg-type] # numbers are read too


def decode_leniently(headers: bytes | None, body: bytes, row_id: bytes | None) -> Message:
    """As decode, but unreadable headers become the extension ``headers``: for looking at what went wrong."""
    try:
        return decode(headers, body, row_id)
    except BadInputError:
        extensions = {"headers": text(headers)}
        if row_id is None:
            return Message(body=body, extensions=extensions)
        return Message(id=text(row_id), body=body, extensions=extensions)


def text(raw: bytes | None) -> str:
    """What can be read of a text that may not be UTF-8."""
    return (raw or b"").decode(errors="replace")
