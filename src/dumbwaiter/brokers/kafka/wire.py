"""Messages as records: the body is the value, and each CloudEvents attribute is a header. Pure.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md, binary mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from dumbwaiter.brokers.served import BAD_ENVELOPE, readable_part
from dumbwaiter.envelope import from_attributes, to_attributes
from dumbwaiter.errors import BadInputError
from dumbwaiter.message import DeadLetter, Message

DUE = "dumbwaiter_due"
"""When this message may be served, in seconds since the Unix epoch."""
REASON, DETAIL, COUNT, DEAD_AT = "dumbwaiter_reason", "dumbwaiter_detail", "dumbwaiter_count", "dumbwaiter_dead_at"
"""Why a message is dead, how often it had been delivered by then, and since when, in seconds since the Unix epoch."""
_OWN = (DUE, REASON, DETAIL, COUNT, DEAD_AT)

HEADERS_ROOM = 16_384
"""Bytes that max_message_nbytes leaves to headers, the framing of a record, and the note of a dead letter."""
LONGEST_REASON, LONGEST_DETAIL = 200, 8_000
_FRAMING = 200
_CONTENT_TYPE = "datacontenttype"

Header: TypeAlias = tuple[str, bytes]


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record as it is written: *partition* -1 lets the client choose."""

    topic: str
    value: bytes
    headers: list[Header]
    key: bytes | None = None
    partition: int = -1


class Found(msgspec.Struct, frozen=True, gc=False):
    """A record as it was read; *written* is when, in milliseconds since the Unix epoch."""

    offset: int
    written: int
    attributes: Mapping[str, str]
    own: Mapping[str, str]
    body: bytes
    fault: str | None = None

    @property
    def due(self) -> float:
        """When it may be served, in seconds since the Unix epoch."""
        return _number(self.own.get(DUE))

    def message(self, id_: str) -> Message:
        """The message, or what can be shown of it; *id_* for one that has no id."""
        if self.fault is None:
            try:
                return from_attributes(self.attributes, self.body, fallback_id=id_)
            except BadInputError:
                pass
        return readable_part(self.attributes, self.body, id_)


def headers_of(message: Message, *, due: float | None = None) -> list[Header]:
    """*message* without its body."""
    attributes = to_attributes(message)
    content_type = attributes.pop(_CONTENT_TYPE, None)
    headers = [(f"ce_{name}", value.encode(errors="surrogatepass")) for name, value in attributes.items()]
    if content_type is not None:
        headers.append(("content-type", content_type.encode(errors="surrogatepass")))
    if due is not None:
        headers.append((DUE, f"{due:.3f}".encode()))
    return headers


def burial_of(message: Message, *, reason: str, detail: str, count: int, now: float) -> list[Header]:
    """The headers of a dead letter. Of *detail* the end is kept, where the error stands."""
    note = {
        REASON: reason[:LONGEST_REASON],
        DETAIL: detail[-LONGEST_DETAIL:] if detail else "",
        COUNT: str(count),
        DEAD_AT: f"{now:.3f}",
    }
    return headers_of(message) + [(name, text.encode(errors="replace")) for name, text in note.items()]


def smaller_burials(record: Record) -> Iterator[Record]:
    """The dead letter *record* with ever less beside its body, for a producer of its own may have filled what it is a
    copy of to the brim: without the detail, without any note, and where no envelope could be read without headers too.
    """
    yield msgspec.structs.replace(record, headers=[one for one in record.headers if one[0] != DETAIL])
    if (REASON, BAD_ENVELOPE.encode()) in record.headers:
        note = [one for one in record.headers if one[0] in _OWN and one[0] != DETAIL]
        yield msgspec.structs.replace(record, headers=note)
        yield msgspec.structs.replace(record, headers=[])
    else:
        yield msgspec.structs.replace(record, headers=[one for one in record.headers if one[0] not in _OWN])


def message_nbytes(message: Message) -> int:
    """How many bytes of max_message_nbytes *message* takes: its body, and headers beyond their room."""
    headers = sum(len(name) + len(value) + 8 for name, value in headers_of(message))
    return len(message.body) + max(0, headers - HEADERS_ROOM // 4)


def record_nbytes(record: Record) -> int:
    """How many bytes *record* takes in a batch, about."""
    headers = sum(len(name) + len(value) + 8 for name, value in record.headers)
    return len(record.value) + len(record.key or b"") + headers


def largest_body(limit: int) -> int:
    """The largest body that surely fits where a batch of records takes up to *limit* bytes, also as a dead letter."""
    return limit - HEADERS_ROOM - _FRAMING


def found(offset: int, written: int, headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> Found:
    """What was read: header names may be CloudEvents attributes with or without ``ce_``."""
    attributes: dict[str, str] = {}
    own: dict[str, str] = {}
    fault = None
    for name, raw in headers:
        try:
            text = (raw or b"").decode(errors="surrogatepass")
        except UnicodeDecodeError:
            text = (raw or b"").decode(errors="replace")
            fault = f"header {name} is not UTF-8"
        (own if name in _OWN else attributes)[name] = text
    return Found(offset, written, attributes, own, value or b"", fault)


def letter_of(queue: str, key: str, found: Found) -> DeadLetter:
    """The dead letter of *queue* that *found* is."""
    return DeadLetter(
        key=key,
        message=found.message(key),
        queue=queue,
        reason=found.own.get(REASON, "unrecorded"),
        detail=found.own.get(DETAIL, ""),
        delivery_count=int(_number(found.own.get(COUNT))),
        dead_at=_number(found.own.get(DEAD_AT)) or found.written / 1000,
    )


def key_of(offset: int) -> str:
    """What a dead letter at *offset* is called: the older one sorts first."""
    return f"{offset:016d}"


def offsets_of(keys: Sequence[str]) -> list[int]:
    """The offsets of those of *keys* that can be any."""
    return [int(key) for key in keys if is_key(key)]


def is_key(key: str) -> bool:
    """Whether *key* can be that of a dead letter."""
    return len(key) == 16 and key.isascii() and key.isdigit()


def _number(text: str | None) -> float:
    """A number that somebody else may have written: 0 for what is none."""
    try:
        number = float(text or 0)
    except ValueError:
        return 0.0
    return number if 0 <= number < 1e15 else 0.0
