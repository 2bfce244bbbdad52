"""Messages as NATS carries them: CloudEvents attributes as headers, ours beside them, and the server's. Pure.

The attributes stand as the CloudEvents binding for NATS writes them: ``ce-id: ...``, percent-encoded where a header
could not hold them. Whoever has no headers at all just publishes a body.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

import msgspec

from dumbwaiter.envelope import ATTRIBUTE_NAMES, STRUCTURED_CONTENT_TYPE, to_attributes, to_structured
from dumbwaiter.message import Message

HEADER_ROOM = 8192
"""Bytes of max_payload that no body takes: a message's attributes, and what a dead letter says besides."""
OWN_ROOM = 3584
"""Of those, for the attributes alone; and a copy that is handed back has some more beside them."""

MSG_ID = "Nats-Msg-Id"
COUNT = "Dumbwaiter-Deliveries"
"""How many deliveries a message had that were counted before this copy of it was handed back."""
SENT = "Dumbwaiter-Sent"
"""When the message was sent first, in nanoseconds since the Unix epoch, where this is a copy of it."""
REASON, DETAIL = "Dumbwaiter-Reason", "Dumbwaiter-Detail"
TOKEN = "Dumbwaiter-Token"  # noqa: S105 - the name of a header
"""Of a dead letter: what the id of its redriven copy is made of, so that nobody else can know that beforehand."""

LONGEST_DETAIL = 16 * 1024

_MOST_HEADERS = 32 * 1024  # the server takes 64 KiB, with ours and a dead letter's
_ACK = "$JS.ACK."
_PLAIN = re.compile(r"[!#$&-~]*")  # neither space nor quotation mark nor per cent, and nothing but ASCII
_SAFE = "!#$&'()*+,/:;<=>?@[\\]^`{|}"
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OWN_NAMES = frozenset(ATTRIBUTE_NAMES.values())
_LINE, _FRAME = 4, 14  # a colon, a space and the line's end; the first line and the last


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a delivery lies: the *sequence* of its message in the stream, when it was stored there (*stored_at*, in
    nanoseconds since the Unix epoch), and how often this copy of it was delivered, this time included.
    """

    sequence: int
    stored_at: int
    deliveries: int


def place_of(reply: str) -> Place | None:
    """What the reply subject of a delivery tells; None for anything that is none, such as a status."""
    if not reply.startswith(_ACK):
        return None
    tokens = reply.split(".")
    first = 4 if len(tokens) == 9 else 6  # with the domain and the account's hash
    try:
        deliveries, sequence, _, stored_at = (int(token) for token in tokens[first : first + 4])
    except ValueError:
        return None
    return Place(sequence, stored_at, deliveries)


def is_reply_of(stream: str, reply: str) -> bool:
    """Whether *reply* is the reply subject of a delivery from *stream*."""
    tokens = reply.split(".")
    return place_of(reply) is not None and tokens[2 if len(tokens) == 9 else 4] == stream


def encode(message: Message) -> tuple[dict[str, str], bytes]:
    """*message* as headers and payload: binary mode, and structured mode where an attribute's name is no header's, or
    all of them are more than the server takes.
    """
    attributes = to_attributes(message)
    headers = {f"ce-{name}": escape(value) for name, value in attributes.items()}
    if not all(map(_NAME.fullmatch, attributes)) or headers_nbytes(headers) > _MOST_HEADERS:
        return {"content-type": STRUCTURED_CONTENT_TYPE}, to_structured(message)
    return headers, message.body


def encode_within(message: Message, room: int) -> tuple[dict[str, str], bytes, list[str]]:
    """As encode(), but in at most *room* bytes, as long as the body takes no more; and the names of the attributes that
    were left out for that, the longest of those that are not our own.
    """
    headers, payload = encode(message)
    if headers_nbytes(headers) + len(payload) <= room:
        return headers, payload, []
    headers, left_out = {}, []
    room = min(room - len(message.body), _MOST_HEADERS) - _FRAME
    escaped = [(name, escape(value)) for name, value in to_attributes(message).items()]
    for name, value in sorted(escaped, key=lambda one: (one[0] not in _OWN_NAMES, len(one[0]) + len(one[1]))):
        nbytes = len(f"ce-{name}") + len(value) + _LINE
        if nbytes > room or not _NAME.fullmatch(name):
            left_out.append(name)
        else:
            headers[f"ce-{name}"] = value
            room -= nbytes
    return headers, message.body, left_out


def attributes_of(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The CloudEvents attributes among *headers*, as a producer wrote them; not the server's headers, nor ours."""
    attributes: dict[str, str] = {}
    for name, value in (headers or {}).items():
        lowered = name.lower()
        if lowered.startswith("ce-"):
            attributes[lowered] = unquote(value) if "%" in value else value
        elif not lowered.startswith(("nats-", "dumbwaiter-")):
            attributes[lowered] = value
    return attributes


def id_of(headers: Mapping[str, str] | None, place: Place) -> str:
    """What a message is called whose attributes give no id: the same at each delivery."""
    given = (headers or {}).get(MSG_ID)
    return unquote(given) if given else f"nats-{place.sequence:x}-{place.stored_at:x}"


def escape(value: str) -> str:
    """*value* as a header can hold it, by the rules of CloudEvents."""
    return value if _PLAIN.fullmatch(value) else quote(value, safe=_SAFE, errors="replace")


def number(headers: Mapping[str, str] | None, name: str) -> int:
    """The number under *name*; 0 where there is none, also because somebody else wrote what is there."""
    value = (headers or {}).get(name, "0")
    return int(value) if value.isdecimal() and len(value) < 20 else 0


def headers_nbytes(headers: Mapping[str, str]) -> int:
    """How many bytes *headers* take on the wire, at most (they are ASCII), without those of the server's own."""
    return sum(map(len, headers)) + sum(map(len, headers.values())) + _LINE * len(headers) + _FRAME


def cut(text: str, room: int) -> str:
    """*text* escaped, in at most *room* bytes: of a longer one the end, where a traceback says what went wrong."""
    escaped = escape(text)
    while len(escaped) > room:
        over = len(escaped) - room
        text = text[max(1, over // 9) :]  # a character takes at most twelve bytes so, and mostly one
        escaped = escape(text)
    return escaped


def schedule_at(seconds: float) -> str:
    """The schedule of a message that is due at *seconds* since the Unix epoch."""
    return f"@at {dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec='microseconds')[:-6]}Z"


def parse_stamp(text: str) -> float:
    """RFC 3339 as the server writes it, to the nanosecond, in seconds since the Unix epoch."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = dt.datetime.fromisoformat(whole).replace(tzinfo=dt.UTC)
    return moment.timestamp() + float(f"0.{fraction or 0}")
