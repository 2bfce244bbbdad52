"""Messages on the wire: CloudEvents 1.0 in binary mode (attributes beside the body) and structured JSON mode.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md. Times are RFC 3339 in UTC.
A body with no attributes at all is a valid request with defaults, so that any producer can just publish.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

import msgspec

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
_TIMES = ("time", "deadline")


def to_attributes(message: Message) -> dict[str, str]:
    """The message's CloudEvents attributes as text, without the body; unset ones are left out."""
    attributes = {"specversion": "1.0", "id": message.id, "source": message.source, "type": message.type}
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
    if message.extensions:
        attributes.update(message.extensions)
    return attributes


def from_attributes(attributes: Mapping[str, str], body: bytes, *, fallback_id: str | None = None) -> Message:
    """Build a message from CloudEvents attributes (with or without a ``ce-`` prefix) and a body.

    Structured mode is recognised by its content type. A missing id becomes *fallback_id* or a new one.
    Raises BadInputError, naming the attribute, when one has a wrong form.
    """
    fields: dict[str, Any] = {}
    extensions: dict[str, str] = {}
    for name, value in attributes.items():
        attribute = _attribute_of(name)
        if attribute == "specversion" or value is None:
            continue
        if attribute in _FIELD_NAMES:
            fields[_FIELD_NAMES[attribute]] = _parse(attribute, value)
        else:
            extensions[attribute] = str(value)
    if fields.get("content_type", "").startswith(STRUCTURED_CONTENT_TYPE):
        return from_structured(body)
    if "id" not in fields:
        fields["id"] = fallback_id or new_id()
    return Message(body=body, extensions=extensions, **fields)


def to_structured(message: Message) -> bytes:
    """The whole message as one CloudEvents JSON object; a body that is not JSON travels as ``data_base64``."""
    event: dict[str, Any] = dict(to_attributes(message))
    if message.body:
        event["data_base64"] = base64.b64encode(message.body).decode()
    return msgspec.json.encode(event)


def from_structured(data: bytes) -> Message:
    """Read a CloudEvents JSON object. Raises BadInputError when it is not one."""
    try:
        event = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInputError(f"not a CloudEvents JSON object: {error}") from None
    inline, encoded = event.pop("data", None), event.pop("data_base64", None)
    event.setdefault("datacontenttype", "application/json")
    if event["datacontenttype"].startswith(STRUCTURED_CONTENT_TYPE):
        raise BadInputError("a CloudEvents JSON object inside another one is not a request")
    return from_attributes(event, _event_body(inline, encoded, str(event["datacontenttype"])))


def _event_body(inline: Any, encoded: Any, content_type: str) -> bytes:
    if encoded is not None:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise BadInputError(f"CloudEvents data_base64 is not base64: {error}") from None
    if inline is None:
        return b""
    if isinstance(inline, str) and not content_type.endswith("json"):
        return inline.encode()
    return msgspec.json.encode(inline)


def _attribute_of(name: str) -> str:
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
            return int(value)
        except (ValueError, TypeError):
            raise BadInputError(f"CloudEvents attribute priority must be a whole number, not {value!r}") from None
    return str(value)


def format_time(seconds: float) -> str:
    """Seconds since the Unix epoch as RFC 3339 in UTC, to the microsecond."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(attribute: str, value: Any) -> float:
    """RFC 3339 text, or a number of seconds since the Unix epoch. Raises BadInputError, naming *attribute*."""
    try:
        seconds = float(value)
    except (ValueError, TypeError):
        try:
            moment = dt.datetime.fromisoformat(str(value))
        except ValueError:
            raise BadInputError(
                f"CloudEvents attribute {attribute} must be an RFC 3339 time or Unix seconds, not {value!r}"
            ) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    if not math.isfinite(seconds):
        raise BadInputError(f"CloudEvents attribute {attribute} must be a finite time, not {value!r}")
    return seconds
