"""Messages as SQS takes them: text, and at most ten message attributes. Pure.

The CloudEvents attributes stand together in one message attribute, as a JSON object. A body that SQS does not take as
text stands there in base64, and an attribute says so. What other producers send is read as it is: their body, and their
own message attributes as those of CloudEvents.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from dumbwaiter.brokers.served import BAD_ENVELOPE, readable_part, without_headers
from dumbwaiter.brokers.sqs.location import OLD_LIMIT
from dumbwaiter.envelope import from_attributes, to_attributes
from dumbwaiter.errors import BadInputError
from dumbwaiter.message import DeadLetter, Message

ENVELOPE = "cloudevents"
BODY = "dumbwaiter.body"
"""How the body stands there, where it is not the text itself: ``base64`` or ``empty``, which SQS does not take."""
COUNT = "dumbwaiter.count"
"""How many deliveries there were before this copy was sent."""
DUE = "dumbwaiter.due"
"""When this message may be served, in seconds since the Unix epoch: SQS itself keeps it back for 15 minutes at most."""
NOTE = "dumbwaiter.dead"
"""Why this message is dead, as JSON."""
OWN = (ENVELOPE, BODY, COUNT, DUE, NOTE)

ATTRIBUTES_ROOM = 16_384
"""Bytes that max_message_nbytes leaves to attributes, and to the note of a dead letter."""
LONGEST_REASON, LONGEST_DETAIL = 200, 8_000
UNRECORDED = "unrecorded"
"""The reason of a dead letter that somebody else put there, such as a redrive policy of SQS."""

#: What the characters of XML 1.0 lack: SQS takes none of it.
_NO_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Why a message is dead, and how often it had been delivered by then."""

    reason: str = UNRECORDED
    detail: str = ""
    count: int = 0


class Arrived(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message as ReceiveMessage gave it, read.

    *handle* settles it; *receives* is how often SQS has handed it out, *sent* when it came there (milliseconds since
    the epoch). *fault* says why it cannot be read, if so.
    """

    id: str
    handle: str
    receives: int
    sent: int
    attributes: Mapping[str, Any]
    body: bytes
    count: int = 0
    due: float = 0.0
    note: Note | None = None
    fault: str | None = None

    @property
    def key(self) -> str:
        """What a dead letter is called: the older one sorts first."""
        return f"{self.sent:013d}-{self.id}"

    @property
    def delivery_count(self) -> int:
        """Which delivery of its message this is, counted from 1."""
        return self.count + max(1, self.receives)


_KEY = re.compile(r"[0-9]{13,}-\S+")


def is_key(text: str) -> bool:
    """Whether *text* can be the key of a dead letter."""
    return _KEY.fullmatch(text) is not None


# --- writing ---


def entry_of(
    message: Message, *, count: int = 0, due: float | None = None, note: Note | None = None, delay: int = 0
) -> dict[str, Any]:
    """An entry of SendMessageBatch, without its Id."""
    body, form = _text_of(message.body)
    values = {ENVELOPE: json.dumps(to_attributes(message), separators=(",", ":"))}
    if form:
        values[BODY] = form
    if count:
        values[COUNT] = str(count)
    if due is not None:
        values[DUE] = f"{due:.3f}"
    if note is not None:
        values[NOTE] = json.dumps(msgspec.to_builtins(note), separators=(",", ":"))
    attributes = {name: {"DataType": "String", "StringValue": value} for name, value in values.items()}
    return {"MessageBody": body, "MessageAttributes": attributes, "DelaySeconds": delay}


def entry_nbytes(entry: Mapping[str, Any]) -> int:
    """How many bytes SQS counts of *entry*: its body, and the names, types and values of its attributes."""
    return len(entry["MessageBody"].encode()) + _attributes_nbytes(entry)


def message_nbytes(message: Message) -> int:
    """How many bytes of max_message_nbytes *message* takes: its body, and attributes beyond their room."""
    return len(message.body) + max(0, _attributes_nbytes(entry_of(message)) - ATTRIBUTES_ROOM // 2)


def largest_body(limit: int = OLD_LIMIT) -> int:
    """The largest body that surely fits where a message takes up to *limit* bytes: also one that stands in base64."""
    return (limit - ATTRIBUTES_ROOM - 4) * 3 // 4


def burial_of(message: Message, note: Note, limit: int) -> dict[str, Any]:
    """The entry of a dead letter. The note's detail is cut to what *limit* leaves, and a message that leaves no room
    at all is buried without a note: nothing of a message that can be read is ever cut, nor of a body.
    """
    note = msgspec.structs.replace(note, reason=note.reason[:LONGEST_REASON], detail=_writable(note.detail))
    shortest = msgspec.structs.replace(note, detail="")
    if note.reason == BAD_ENVELOPE and entry_nbytes(entry_of(message, note=shortest)) > limit:
        message = without_headers(message)
    entry = entry_of(message, note=note)
    while entry_nbytes(entry) > limit and note.detail:
        note = msgspec.structs.replace(note, detail=note.detail[: len(note.detail) // 2])
        entry = entry_of(message, note=note)
    return entry if entry_nbytes(entry) <= limit else entry_of(message)


def _attributes_nbytes(entry: Mapping[str, Any]) -> int:
    return sum(
        len(name) + len(one["DataType"]) + len(one["StringValue"]) for name, one in entry["MessageAttributes"].items()
    )


def _writable(detail: str) -> str:
    """The end of *detail*, where the error stands; written down it takes more bytes than characters."""
    return detail[-LONGEST_DETAIL:]


def _text_of(body: bytes) -> tuple[str, str | None]:
    if not body:
        return "-", "empty"
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"
    return (base64.b64encode(body).decode(), "base64") if _NO_TEXT.search(text) else (text, None)


# --- reading ---


def read(raw: Mapping[str, Any]) -> Arrived:
    """One of the Messages that ReceiveMessage gave."""
    values = _values(raw.get("MessageAttributes") or {})
    system = raw.get("Attributes") or {}
    attributes: dict[str, Any] = {name: value for name, value in values.items() if name not in OWN}
    body, fault = _body_of(raw.get("Body", ""), values.get(BODY))
    if ENVELOPE in values:
        try:
            attributes |= msgspec.json.decode(values[ENVELOPE], type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            fault = f"message attribute {ENVELOPE} is no JSON object: {error}"
            attributes[ENVELOPE] = values[ENVELOPE]
    return Arrived(
        id=raw["MessageId"],
        handle=raw["ReceiptHandle"],
        receives=int(_number(system.get("ApproximateReceiveCount"))),
        sent=int(_number(system.get("SentTimestamp"))),
        attributes=attributes,
        body=body,
        count=int(_number(values.get(COUNT))),
        due=_number(values.get(DUE)),
        note=_note_of(values.get(NOTE)),
        fault=fault,
    )


def readable(arrived: Arrived) -> Message | None:
    """The message; None for what cannot be read, of which a copy would not be the same any more."""
    if arrived.fault is not None:
        return None
    try:
        return from_attributes(arrived.attributes, arrived.body, fallback_id=arrived.id)
    except BadInputError:
        return None


def message_of(arrived: Arrived) -> Message:
    """The message, or what can be shown of it."""
    attributes = {name: str(value) for name, value in arrived.attributes.items()}
    return readable(arrived) or readable_part(attributes, arrived.body, arrived.id)


def letter_of(queue: str, arrived: Arrived) -> DeadLetter:
    """The dead letter of *queue* that *arrived* is."""
    note = arrived.note or Note(count=arrived.count + max(0, arrived.receives - 1))
    return DeadLetter(
        key=arrived.key,
        message=message_of(arrived),
        queue=queue,
        reason=note.reason,
        detail=note.detail,
        delivery_count=note.count,
        dead_at=arrived.sent / 1000,
    )


def _values(attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The text of all *attributes* that are text or numbers, and of binary ones that are UTF-8."""
    values: dict[str, str] = {}
    for name, one in attributes.items():
        value = one.get("StringValue")
        if value is None and isinstance(one.get("BinaryValue"), bytes):
            value = one["BinaryValue"].decode(errors="replace")
        if isinstance(value, str):
            values[name] = value
    return values


def _body_of(text: str, form: str | None) -> tuple[bytes, str | None]:
    if form == "empty":
        return b"", None
    if form != "base64":
        return text.encode(errors="surrogatepass"), None
    try:
        return base64.b64decode(text, validate=True), None
    except ValueError as error:
        return text.encode(errors="replace"), f"the body is not the base64 that attribute {BODY} says: {error}"


def _note_of(text: str | None) -> Note | None:
    try:
        return None if text is None else msgspec.json.decode(text, type=Note)
    except msgspec.DecodeError:
        return None


def _number(text: str | None) -> float:
    """A count or time that somebody else may have written: 0 for what is none."""
    try:
        number = float(text or 0)
    except ValueError:
        return 0.0
    return number if 0 <= number < 1e15 else 0.0
