"""Messages as AMQP 0-9-1 carries them: CloudEvents attributes as headers and properties. Pure.

Source: the CloudEvents AMQP protocol binding (https://github.com/cloudevents/spec, amqp-protocol-binding.md), whose
prefix ``cloudEvents:`` is written here. Headers without it are read too, and the properties stand for what no header
says. Headers that begin with ``x-`` are the transport's: RabbitMQ's, and those below.
"""

from __future__ import annotations

import datetime as dt
import math
import struct
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pamqp import encode
from pamqp.commands import Basic

from dumbwaiter.brokers.rabbitmq.decoding import Unreadable
from dumbwaiter.envelope import to_attributes
from dumbwaiter.errors import MessageTooLargeError
from dumbwaiter.message import DeadLetter, Message

PREFIX = "cloudEvents:"
BEFORE = "x-dumbwaiter-deliveries"
"""How often the message had been delivered before this copy of it was published."""
KEY, REASON, DETAIL, DEAD_AT = (f"x-dumbwaiter-{name}" for name in ("key", "reason", "detail", "dead-at"))

HEADERS_LIMIT = 64 * 1024
"""Bytes of all headers: they travel in one frame, and one of more than 128 KiB would end the connection."""
DETAIL_LIMIT = 32 * 1024
REASON_LIMIT = 1024
_SHORT = 255
_FRAME = 32
"""Bytes of the frame that the properties travel in, besides them."""
_NAMED, _LONGEST_NAME = 8, 60
_CUT = "[...] "
_CANNOT_BE_WRITTEN = (ValueError, TypeError, ArithmeticError, RecursionError, struct.error)
_RABBITMQS_COUNT = "x-delivery-count"


def properties_of(message: Message) -> Basic.Properties:
    """What stands beside *message*'s body. Raises MessageTooLargeError when its attributes are too long to travel."""
    attributes = to_attributes(message)
    nbytes = sum(len(name) + len(value.encode()) + len(PREFIX) + 8 for name, value in attributes.items())
    if nbytes > HEADERS_LIMIT:
        raise MessageTooLargeError(nbytes, HEADERS_LIMIT)
    content_type = _short(message.content_type)
    if content_type is not None:
        del attributes["datacontenttype"]
    return Basic.Properties(
        headers={f"{PREFIX}{name}": value for name, value in attributes.items()},
        delivery_mode=2,
        content_type=content_type,
        message_id=_short(message.id),
        correlation_id=_short(message.correlation_id),
        reply_to=_short(message.reply_to),
    )


def attributes_of(properties: Basic.Properties, *, now: float) -> dict[str, Any]:
    """The CloudEvents attributes that a producer wrote, but the id; *now* in seconds since the Unix epoch.

    A value that no attribute can have is left as it is, for from_attributes() to refuse.
    """
    attributes: dict[str, Any] = {}
    given: tuple[tuple[str, Any], ...] = (
        ("datacontenttype", properties.content_type),
        ("correlationid", properties.correlation_id),
        ("replyto", properties.reply_to),
        ("priority", properties.priority),
    )
    for name, value in given:
        if value is not None and value != "":
            attributes[name] = str(value)
    sent = None if isinstance(properties.timestamp, Unreadable) else properties.timestamp
    if sent is not None:
        attributes["time"] = repr(sent.timestamp())
    expires_after = _number(properties.expiration)
    if expires_after is not None:
        attributes["deadline"] = repr((now if sent is None else sent.timestamp()) + expires_after / 1000)
    for name, written in (properties.headers or {}).items():
        if not name.startswith("x-") and written is not None:
            attributes[name] = _plain(written)
    return attributes


def delivery_count_of(properties: Basic.Properties, *, redelivered: bool) -> int:
    """1 on the first delivery. Of a classic queue it is only known whether there was one before."""
    headers = properties.headers or {}
    by_rabbitmq = headers.get(_RABBITMQS_COUNT, int(redelivered))
    return 1 + _count(by_rabbitmq) + _count(headers.get(BEFORE, 0))


def again(properties: Basic.Properties, message_id: str, *, before: int, now: float) -> Basic.Properties:
    """For another copy of a message that came with *properties* and was delivered *before* times."""
    headers = {name: _writable(value) for name, value in (properties.headers or {}).items() if name[:2] != "x-"}
    if before:
        headers[BEFORE] = before
    if properties.expiration is not None and "deadline" in (read := attributes_of(properties, now=now)):
        headers.setdefault("deadline", read["deadline"])
    return Basic.Properties(
        headers=headers,
        delivery_mode=2,
        content_type=_readable(properties.content_type),
        content_encoding=_readable(properties.content_encoding),
        message_id=_readable(properties.message_id) or _short(message_id),
        correlation_id=_readable(properties.correlation_id),
        reply_to=_readable(properties.reply_to),
        priority=properties.priority,
        timestamp=_readable(properties.timestamp),
        message_type=_readable(properties.message_type),
        app_id=_readable(properties.app_id),
    )


def fits(properties: Basic.Properties, frame_max: int) -> bool:
    """Whether *properties* can be published: they are to fit one frame of *frame_max* bytes. One that is larger ends
    the connection.
    """
    try:
        return len(properties.marshal()) + _FRAME <= frame_max
    except _CANNOT_BE_WRITTEN:
        return False


def dead(
    properties: Basic.Properties, *, key: str, reason: str, detail: str, dead_at: float, frame_max: int
) -> Basic.Properties:
    """*properties*, which again() made, with what is to be known of a dead letter.

    All of it fits a frame of *frame_max* bytes: the end of *detail* is kept, and the longest headers go if need be.
    """
    verdict: dict[str, Any] = {KEY: key, REASON: _cut(reason, REASON_LIMIT), DEAD_AT: repr(dead_at)}
    headers = properties.headers or {}
    properties.headers = {**verdict}
    room: float = frame_max - _FRAME - len(properties.marshal()) - len(DETAIL) - 8
    kept, left_out = _within(headers, room)
    if left_out:
        named = ", ".join(name[:_LONGEST_NAME] for name in left_out[:_NAMED])
        detail = f"{detail}\n({len(left_out)} headers were too long, or too odd, to be kept: {named})"
    room -= sum(map(_nbytes_of, kept.items()))
    properties.headers = {**kept, **verdict, DETAIL: _cut(detail, int(max(0, min(room, DETAIL_LIMIT))))}
    return properties


def _within(headers: Mapping[str, Any], room: float) -> tuple[dict[str, Any], list[str]]:
    """Those of *headers* that take *room* bytes, the shortest first, and the names of the others."""
    sizes = {name: _nbytes_of((name, value)) for name, value in headers.items()}
    kept: dict[str, Any] = {}
    for name in sorted(sizes, key=lambda name: sizes[name]):
        room -= sizes[name]
        if room < 0:
            break
        kept[name] = headers[name]
    return kept, [name for name in headers if name not in kept]


def _nbytes_of(header: tuple[str, Any]) -> float:
    """How many bytes one header takes; without end if it cannot be written again."""
    name, value = header
    try:
        return len(encode.field_table({name: value})) - 4
    except _CANNOT_BE_WRITTEN:
        return math.inf


def dead_letter_of(queue: str, properties: Basic.Properties, message: Message) -> DeadLetter | None:
    """The dead letter; None when somebody else has put the message there, without a key."""
    headers = properties.headers or {}
    key = key_of(properties)
    if key is None:
        return None
    return DeadLetter(
        key=key,
        message=message,
        queue=queue,
        reason=str(headers.get(REASON, "")),
        detail=str(headers.get(DETAIL, "")),
        delivery_count=_count(headers.get(BEFORE, 0)),
        dead_at=_number(headers.get(DEAD_AT)) or 0.0,
    )


def key_of(properties: Basic.Properties) -> str | None:
    """The key of a dead letter."""
    key = (properties.headers or {}).get(KEY)
    return key if isinstance(key, str) and is_key(key) else None


def new_key(dead_at: float, unique: str) -> str:
    """Keys sort by the time of death, and are no longer than an id."""
    return f"{round(dead_at * 1e6):017d}-{unique}"


def is_key(text: str) -> bool:
    """Whether new_key() can have made *text*."""
    digits, dash, unique = text.partition("-")
    return len(digits) == 17 and digits.isascii() and digits.isdigit() and bool(dash) and unique.isalnum()


def _short(text: str | None) -> str | None:
    """*text* if a property has room for it."""
    return text if text and len(text.encode()) <= _SHORT else None


def _cut(text: str, limit: int) -> str:
    """Of a longer *text* the last *limit* bytes: the last line of a traceback says most."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    room = limit - len(_CUT)
    return f"{_CUT}{encoded[-room:].decode(errors='ignore')}" if room > 0 else ""


def _writable(value: Any) -> Any:
    """A string that is no UTF-8 is read as bytes, and those can be written as an array of them only."""
    return bytearray(value) if isinstance(value, bytes) else value


def _readable(value: Any) -> Any:
    """*value*, unless it could not be decoded."""
    return None if isinstance(value, Unreadable) else value


def _count(value: object) -> int:
    """Producers may write anything into headers."""
    return value if isinstance(value, int) and 0 <= value < 1_000_000_000 else 0


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, (str, int, float)) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Unreadable):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return value.decode(errors="replace")
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return dict(value) if isinstance(value, Mapping) else value
