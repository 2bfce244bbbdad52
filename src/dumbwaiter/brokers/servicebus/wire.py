"""Messages as Service Bus takes them: binary-mode CloudEvents over AMQP. Pure.

Attributes are application properties ``cloudEvents:<name>``, datacontenttype is the content type (unless it is not
ASCII), and the id is the message id too. What other producers send is read as it is: AMQP's own properties, and
application properties as extensions. Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpMessageBodyType

from dumbwaiter.brokers.served import readable_part
from dumbwaiter.brokers.servicebus.location import STANDARD_SIZE
from dumbwaiter.envelope import format_time, from_attributes, parse_time, to_attributes
from dumbwaiter.errors import BadInputError
from dumbwaiter.message import DeadLetter, Message

PREFIX = "cloudEvents:"
COUNT = "dumbwaiter:count"
"""How many deliveries there were before this copy was sent."""
PROPERTIES_ROOM = 16_384
"""Bytes that max_message_nbytes leaves to properties."""
LONGEST_REASON, LONGEST_DETAIL = 200, 4_000
UNRECORDED = "unrecorded"
"""The reason of a dead letter that gives none."""
_LONGEST_ID = 128
_OVERHEAD = 8
_NATIVE = {"correlationid": "correlation_id", "replyto": "reply_to", "subject": "subject"}
_NOTE = re.compile(r"\n?\n?\(delivery (\d+), dead since (\S+)\)\Z")


class Arrived(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message as Service Bus gave it, read. *number* is its sequence number; *fault* says why it cannot be read."""

    id: str | None
    number: int
    token: uuid.UUID | None
    locked_until: float
    enqueued: float
    attributes: Mapping[str, Any]
    body: bytes
    delivery_count: int
    reason: str
    detail: str
    fault: str | None = None


# --- writing ---


def outgoing(message: Message, *, count: int = 0, due: float | None = None, is_copy: bool = False) -> ServiceBusMessage:
    """*message* for a send; to be enqueued at *due*, in seconds since the Unix epoch.

    A copy has a message id of its own, for a queue that detects duplicates would drop it.
    """
    attributes = to_attributes(message)
    # It is a symbol of AMQP: one that is not ASCII would make all that share the batch unreadable.
    content_type = None
    if message.content_type is not None and message.content_type.isascii():
        content_type = attributes.pop("datacontenttype")
    properties: dict[str | bytes, Any] = {PREFIX + name: value for name, value in attributes.items()}
    if count:
        properties[COUNT] = count
    made = ServiceBusMessage(message.body, application_properties=properties, content_type=content_type)
    if len(message.id) <= _LONGEST_ID and not is_copy:
        made.message_id = message.id
    if due is not None:
        made.scheduled_enqueue_time_utc = dt.datetime.fromtimestamp(due, dt.UTC)
    return made


def message_nbytes(message: Message) -> int:
    """How many bytes of max_message_nbytes *message* takes: its body, and attributes beyond their room."""
    attributes = sum(
        len(PREFIX) + len(name) + len(value.encode(errors="replace")) + _OVERHEAD
        for name, value in to_attributes(message).items()
    )
    return len(message.body) + max(0, attributes - PROPERTIES_ROOM // 2)


def largest_body(limit: int = STANDARD_SIZE) -> int:
    """The largest body that surely fits where a message takes up to *limit* bytes."""
    return limit - PROPERTIES_ROOM


def note_of(detail: str, count: int, now: float) -> str:
    """The description of a dead letter: the end of *detail*, where the error stands, and what Service Bus does not
    keep: which delivery it was, and when.
    """
    note = f"(delivery {count}, dead since {format_time(now)})"
    return f"{detail[-LONGEST_DETAIL:]}\n\n{note}" if detail else note


# --- reading ---


def read(raw: ServiceBusReceivedMessage) -> Arrived:
    """A message of the client library as it is here."""
    properties = {_text(name): value for name, value in (raw.application_properties or {}).items()}
    count = properties.pop(COUNT, 0)
    attributes = _attributes_of(raw, properties)
    try:
        body, fault = _body_of(raw), None
    except (ValueError, TypeError, RecursionError) as error:
        body, fault = b"", f"the body cannot be read: {error}"
    return Arrived(
        id=_text(raw.message_id) if raw.message_id else None,
        number=raw.sequence_number or 0,
        token=raw.lock_token if isinstance(raw.lock_token, uuid.UUID) else None,
        locked_until=_seconds(raw.locked_until_utc),
        enqueued=_seconds(raw.enqueued_time_utc),
        attributes=attributes,
        body=body,
        delivery_count=(raw.delivery_count or 0) + (count if isinstance(count, int) and 0 < count < 2**31 else 0),
        reason=_text(raw.dead_letter_reason or ""),
        detail=_text(raw.dead_letter_error_description or ""),
        fault=fault,
    )


def message_of(arrived: Arrived) -> Message:
    """The message, or what can be shown of it."""
    if arrived.fault is None:
        try:
            return from_attributes(arrived.attributes, arrived.body, fallback_id=arrived.id)
        except BadInputError:
            pass
    return readable_part({name: str(value) for name, value in arrived.attributes.items()}, arrived.body, arrived.id)


def letter_of(queue: str, key: str, arrived: Arrived) -> DeadLetter:
    """The dead letter of *queue* that *arrived* is."""
    detail, count, dead_at = arrived.detail, arrived.delivery_count, arrived.enqueued
    if note := _NOTE.search(detail):
        try:
            count, dead_at = int(note[1]), parse_time("time", note[2])
            detail = detail[: note.start()]
        except (BadInputError, ValueError):
            pass  # somebody else wrote what looks like it
    return DeadLetter(
        key=key,
        message=message_of(arrived),
        queue=queue,
        reason=arrived.reason or UNRECORDED,
        detail=detail,
        delivery_count=count,
        dead_at=dead_at,
    )


def _attributes_of(raw: ServiceBusReceivedMessage, properties: Mapping[str, Any]) -> dict[str, Any]:
    attributes = {name.removeprefix(PREFIX): _value(value) for name, value in properties.items()}
    attributes.pop("DeadLetterReason", None)
    attributes.pop("DeadLetterErrorDescription", None)
    for name, field in _NATIVE.items():
        if name not in attributes and (value := getattr(raw, field)):
            attributes[name] = _value(value)
    if raw.content_type:
        attributes["datacontenttype"] = _text(raw.content_type)
    return attributes


def _body_of(raw: ServiceBusReceivedMessage) -> bytes:
    """The data as it is; of another kind of body its text, or its value as JSON."""
    if raw.body_type == AmqpMessageBodyType.DATA:
        return b"".join(raw.body)
    value = _value(raw.body if raw.body_type == AmqpMessageBodyType.VALUE else list(raw.body))
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)


def _value(value: Any) -> Any:
    """A value of AMQP as one of JSON."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, dict):
        return {_text(key): _value(item) for key, item in value.items()}
    return [_value(item) for item in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _seconds(moment: dt.datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
