"""Messages as rows: the CloudEvents attributes as JSON text beside the body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.envelope import from_attributes, to_attributes
from dumbwaiter.errors import BadInputError, MessageTooLargeError
from dumbwaiter.message import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_MESSAGE_NBYTES = 64 * 1024 * 1024
_MAX_PRIORITY = 2**31

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


def decode(headers: str | None, body: bytes | str, fallback_id: str | None) -> Message:
    """The message in a row. Raises BadInputError when a producer wrote headers that are no CloudEvents attributes."""
    raw = body.encode() if isinstance(body, str) else body
    if not headers:
        return from_attributes({}, raw, fallback_id=fallback_id)
    try:
        attributes = _decode_headers(headers)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInputError(f"headers are not a JSON object of CloudEvents attributes: {error}") from None
    return from_attributes(attributes, raw, fallback_id=fallback_id)  # type: ignore[arg-type] # numbers are read too


def decode_leniently(headers: str | None, body: bytes | str, fallback_id: str | None) -> Message:
    """As decode, but unreadable headers become the extension ``headers``: for looking at what went wrong."""
    try:
        return decode(headers, body, fallback_id)
    except BadInputError:
        raw = body.encode() if isinstance(body, str) else body
        extensions = {"headers": headers or ""}
        if fallback_id is None:
            return Message(body=raw, extensions=extensions)
        return Message(id=fallback_id, body=raw, extensions=extensions)
