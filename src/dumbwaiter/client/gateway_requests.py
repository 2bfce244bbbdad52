"""From a request message to the headers and the body that a gateway takes. Pure."""

from __future__ import annotations

import msgspec

from dumbwaiter.content_types import JSON, parse_content_type
from dumbwaiter.errors import BadInputError
from dumbwaiter.message import Message

_JSON_DECODER = msgspec.json.Decoder(msgspec.Raw)


def body_of(message: Message) -> tuple[str | None, bytes]:
    """Content type (None if unsaid) and body. Raises BadInputError for a body that says JSON and is none."""
    kind = parse_content_type(message.content_type)
    if kind.essence == JSON:
        try:
            _JSON_DECODER.decode(message.body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadInputError(f"this input cannot be sent: it says {JSON}, and is none: {error}") from None
        return JSON, b'{"input":' + message.body + b"}"
    if kind.is_text and not message.body:
        # Gateways take an empty body for a mistake.
        return JSON, b'{"input":""}'
    return message.content_type, message.body


def headers_of(message: Message, content_type: str | None, key: str | None) -> dict[str, str]:
    """What goes beside the body; *key* is the idempotency key.

    Raises BadInputError for text that no header takes.
    """
    said = {
        "content-type": content_type,
        "idempotency-key": key,
        "traceparent": message.trace_parent,
        "dumbwaiter-tenant": message.tenant,
        "dumbwaiter-deadline": None if message.deadline is None else f"{message.deadline:.6f}",
        "dumbwaiter-priority": str(message.priority) if message.priority else None,
    }
    headers = {name: value for name, value in said.items() if value is not None}
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise BadInputError(f"this request cannot be sent: {name} {value!r} has characters that no header takes")
    return headers
