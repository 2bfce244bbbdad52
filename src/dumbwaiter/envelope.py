"""Messages on the wire: CloudEvents 1.0 in binary mode (attributes beside the body) and structured JSON mode.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md. Times are RFC 3339 in UTC.
A body with no attributes at all is a valid request with defaults, so that any producer can just publish.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
from collections.abc import Mapping
from typing import Any

import msgspec

from dumbwaiter.content_types import JSON, parse_content_type
from dumbwaiter.errors import BadInputError
from dumbwaiter.message import Message, new_id

STRUCTURED_CONTENT_TYPE = "application/cloudevents+json"

#: Message field -> CloudEvents attribute. ``body`` is the data and ``extensions`` are the rest.
ATTRIBUTE_NAMES: Mapping[str, str] = {
    "id": "id",
    "source": "source",
    "type": "type",
    "subject": "subject",
    "time": "time",
    "content_type": "datacontenttype",
    "data_ref": "dataref",
    "trace_parent": "traceparent",
    "correlation_id": "correlationid",
    "reply_to": "replyto",
    "deadline": "deadline",
    "priority": "priority",
    "tenant": "tenant",
    "idempotency_key": "idempotencykey",
}
_FIELD_NAMES = {attribute: field for field, attribute in ATTRIBUTE_NAMES.items()}
_PREFIXES = ("ce-", "ce_", "cloudevents:", "cloudevents_")
_ATTRIBUTES = {prefix + name: name for prefix in ("", *_PREFIXES) for name in (*_FIELD_NAMES, "specversion")}
_TIMES = ("time", "deadline")
_EARLIEST, _LATEST = -62_135_596_800.0, 253_402_300_799.0  # the years 1 to 9999: what RFC 3339 can write


def to_attributes(message: Message) -> dict[str, str]:
    """The message's CloudEvents attributes as text, without the body; unset ones are left out."""
    attributes = {**message.extensions, "specversion": "1.0"}
    attributes |= {"id": message.id, "source": message.source, "type": message.type}
    for field in ("subject", "content_type", "data_ref", "trace_parent", "correlation_id", "reply_to", "tenant"):
        value = getattr(message, field)
        if value is not None:
            attributes[ATTRIBUTE_NAMES[field]] = value
    if message.idempotency_key is not None:
        attributes["idempotencykey"] = message.idempotency_key
    if message.time is not None:
        attributes["time"] = format_time(message.time)
    if message.deadline is not None:
        attributes["deadline"] = format_time(message.deadline)
    if message.priority:
        attributes["priority"] = str(message.priority)
    return attributes


def from_attributes(attributes: Mapping[str, str], body: bytes, *, fallback_id: str | None = None) -> Message:
    """Build a message from CloudEvents attributes (with or without a ``ce-`` prefix) and a body.

    Structured mode is recognised by its content type; what *attributes* say wins over what the body says of itself.
    A missing id becomes *fallback_id* or a new one. Raises BadInputError, naming the attribute, when one has a wrong
    form.
    """
    message = _build(attributes, body, fallback_id)
    if not is_structured(message.content_type):
        return message
    said = {_FIELD_NAMES.get(_attribute_of(name)) for name, value in attributes.items() if value is not None}
    outer = {field: getattr(message, field) for field in said - {None, "content_type"} if field is not None}
    return msgspec.structs.replace(from_structured(body, fallback_id=fallback_id), **outer)


def to_structured(message: Message) -> bytes:
    """The whole message as one CloudEvents JSON object; its body, if any, as ``data_base64``."""
    event: dict[str, Any] = dict(to_attributes(message))
    if message.body:
        event["data_base64"] = base64.b64encode(message.body).decode()
    return msgspec.json.encode(event)


def from_structured(data: bytes, *, fallback_id: str | None = None) -> Message:
    """Read a CloudEvents JSON object. A missing id becomes *fallback_id* or a new one. Raises BadInputError when it
    is not one, naming the attribute that is wrong.
    """
    try:
        event = msgspec.json.decode(data, type=dict[str, Any])
        inline, encoded = event.pop("data", None), event.pop("data_base64", None)
        message = _build(event, b"", fallback_id)
        if is_structured(message.content_type):
            raise BadInputError("a CloudEvents JSON object inside another one is not a request")
        if encoded is not None:
            return msgspec.structs.replace(message, body=_decode_base64(encoded))
        return message if inline is None else _with_data(message, inline)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(f"not a CloudEvents JSON object: {error}") from None


def _build(attributes: Mapping[str, Any], body: bytes, fallback_id: str | None) -> Message:
    fields: dict[str, Any] = {}
    extensions: dict[str, str] = {}
    for name, value in attributes.items():
        attribute = _attribute_of(name)
        if attribute == "specversion" or value is None:
            continue
        if attribute in _FIELD_NAMES:
            fields[_FIELD_NAMES[attribute]] = _parse(attribute, value)
        else:
            extensions[attribute] = _text(attribute, value)
    if not fields.get("id"):
        # All messages with an empty id would be doubles of the first one.
        fields["id"] = fallback_id or new_id()
    return Message(body=body, extensions=extensions, **fields)


def is_structured(content_type: str | None) -> bool:
    """Whether a body of *content_type* is a CloudEvents JSON object, which names its own id and reply address."""
    return parse_content_type(content_type).essence == STRUCTURED_CONTENT_TYPE


def _decode_base64(encoded: Any) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadInputError(f"CloudEvents attribute data_base64 is not base64: {error}") from None


def _with_data(message: Message, inline: Any) -> Message:
    """*message* with the value that stood under ``data``: JSON unless its content type says otherwise."""
    content_type = message.content_type or JSON
    is_text = isinstance(inline, str) and not parse_content_type(content_type).is_json
    body = inline.encode() if is_text else msgspec.json.encode(inline)
    return msgspec.structs.replace(message, body=body, content_type=content_type)


def _attribute_of(name: str) -> str:
    known = _ATTRIBUTES.get(name)
    if known is not None:
        return known
    lowered = name.lower()
    if lowered == "content-type":
        return "datacontenttype"
    for prefix in _PREFIXES:
        if lowered.startswith(prefix):
            return lowered[len(prefix) :]
    return lowered


def _parse(attribute: str, value: Any) -> Any:
    if attribute in _TIMES:
        return parse_time(attribute, value)
    if attribute == "priority":
        try:
            return int(_text(attribute, value))
        except ValueError:
            raise BadInputError(f"CloudEvents attribute priority must be a whole number, not {_brief(value)}") from None
    return _text(attribute, value)


def _text(attribute: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        with contextlib.suppress(ValueError):  # more digits than Python converts
            return msgspec.json.encode(value).decode()
    raise BadInputError(
        f"CloudEvents attribute {attribute} must be text, a number or true or false, not {_brief(value)}"
    )


def _brief(value: Any) -> str:
    # A sender may have nested it deeper than Python can print.
    return f"{value[:60]!r}" if isinstance(value, str) else f"a {type(value).__name__}"


def format_time(seconds: float) -> str:
    """Seconds since the Unix epoch as RFC 3339 in UTC, to the microsecond. Raises BadInputError for what is no moment
    of the years 1 to 9999.
    """
    try:
        moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        raise BadInputError(
            f"{seconds!r} is no moment that a message can carry; give seconds since the epoch, in the years 1 to 9999"
        ) from None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(attribute: str, value: Any) -> float:
    """RFC 3339 text, or a number of seconds since the Unix epoch. Raises BadInputError, naming *attribute*."""
    text = _text(attribute, value)
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = dt.datetime.fromisoformat(text.upper())
        except ValueError:
            raise BadInputError(
                f"CloudEvents attribute {attribute} must be an RFC 3339 time or Unix seconds, not {_brief(value)}"
            ) from None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    if not _EARLIEST <= seconds <= _LATEST:
        raise BadInputError(f"CloudEvents attribute {attribute} must lie in the years 1 to 9999, not {_brief(value)}")
    return seconds
