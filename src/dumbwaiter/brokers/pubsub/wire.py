"""Messages as Pub/Sub takes them: bytes, and attributes whose values are short text. Pure.

The CloudEvents attributes stand as the CloudEvents binding for Pub/Sub writes them: ``ce-id`` and so on, and
``Content-Type``. Those that Pub/Sub does not take, because they are too long or too many, stand as a JSON object in
front of the body, and an attribute says how many bytes that is. Whoever knows nothing of all this publishes a body.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
from google.pubsub_v1 import types

from dumbwaiter.brokers.served import BAD_ENVELOPE, readable_part, without_headers
from dumbwaiter.envelope import from_attributes, to_attributes
from dumbwaiter.errors import BadInputError
from dumbwaiter.message import DeadLetter, Message

HEAD = "dumbwaiter-head"
"""How many bytes in front of the body are a JSON object of more attributes."""
COUNT = "dumbwaiter-count"
"""How many deliveries there were before this copy was sent."""
DUE = "dumbwaiter-due"
"""When this message may be served, in seconds since the Unix epoch."""
NOTE = "dumbwaiter-dead"
"""Why this message is dead, as JSON."""
OWN = (HEAD, COUNT, DUE, NOTE)

LARGEST = 10_000_000
"""What Pub/Sub takes in bytes: of one message's body, and of one request."""
ATTRIBUTES_ROOM = 65_536
"""Bytes that max_message_nbytes leaves to attributes, and to the note of a dead letter."""
LARGEST_BODY = LARGEST - ATTRIBUTES_ROOM
LONGEST_DELAY = 600
"""Seconds for which Pub/Sub keeps a message from others at most: the longest ack deadline."""
LONGEST_REASON, LONGEST_DETAIL = 200, 8_000
UNRECORDED = "unrecorded"
"""The reason of a dead letter that somebody else put there."""
DELIVERY_LIMIT = "delivery-limit"
"""That of one that Pub/Sub itself put there, by the dead-letter policy of a subscription."""

_MOST, _LONGEST_NAME, _LONGEST_VALUE = 90, 256, 1024  # Pub/Sub takes 100 of them
_SOURCE = "CloudPubSubDeadLetterSource"
_SOURCE_COUNT = f"{_SOURCE}DeliveryCount"
_OVERHEAD = 32  # bytes around a message in a request, and around each attribute a few

Outgoing = types.PubsubMessage.pb()


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Why a message is dead, and how often it had been delivered by then."""

    reason: str = UNRECORDED
    detail: str = ""
    count: int = 0


class Arrived(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message as a pull gave it, read.

    *id* is what Pub/Sub calls it within its topic; *ack_id* settles this delivery, which is number *attempt*; *sent* is
    when it was published, in seconds since the Unix epoch. *fault* says why it cannot be read, if so.
    """

    id: str
    ack_id: str
    attempt: int
    sent: float
    attributes: Mapping[str, Any]
    body: bytes
    count: int = 0
    due: float = 0.0
    note: Note | None = None
    fault: str | None = None

    @property
    def key(self) -> str:
        """What a dead letter is called: the older one sorts first."""
        return f"{int(self.sent * 1000):013d}-{self.id:>019}"

    @property
    def delivery_count(self) -> int:
        """Which delivery of its message this is, counted from 1.

        Pub/Sub counts as well how often it was pulled before it was due. Nobody knows how often that was; this says
        one too few rather than one too many.
        """
        early = math.ceil(max(0.0, self.due - self.sent) / LONGEST_DELAY)
        return self.count + max(1, self.attempt - early)


def is_key(text: str) -> bool:
    """Whether *text* can be the key of a dead letter."""
    sent, dash, id_ = text.partition("-")
    return bool(dash and id_) and len(sent) >= 13 and sent.isascii() and sent.isdigit() and not id_.isspace()


# --- writing ---


def outgoing(message: Message, *, count: int = 0, due: float = 0.0, note: Note | None = None) -> Any:
    """The PubsubMessage that carries *message*."""
    attributes = {
        "Content-Type" if name == "datacontenttype" else f"ce-{name}": value
        for name, value in to_attributes(message).items()
    }
    if count:
        attributes[COUNT] = str(count)
    if due:
        attributes[DUE] = f"{due:.3f}"
    if note is not None:
        attributes[NOTE] = msgspec.json.encode(note).decode()
    return _packed(attributes, message.body)


def again(arrived: Arrived, *, topic: str, count: int = 0) -> Any:
    """The PubsubMessage that carries what *arrived* once more, whether it can be read or not."""
    attributes: dict[str, str] = dict(arrived.attributes)
    attributes.setdefault("ce-id", fallback_id(topic, arrived))
    if count:
        attributes[COUNT] = str(count)
    if arrived.due:
        attributes[DUE] = f"{arrived.due:.3f}"
    return _packed(attributes, arrived.body)


def _packed(attributes: dict[str, str], body: bytes) -> Any:
    long = {
        name: value
        for i, (name, value) in enumerate(attributes.items())
        if i >= _MOST or len(value.encode()) > _LONGEST_VALUE or len(name.encode()) > _LONGEST_NAME
    }
    if not long:
        return Outgoing(data=body, attributes=attributes)
    head = msgspec.json.encode(long)
    short = {name: value for name, value in attributes.items() if name not in long}
    return Outgoing(data=head + body, attributes={**short, HEAD: str(len(head))})


def nbytes_of(sent: Any) -> int:
    """How many bytes of a request *sent* takes, at most."""
    named = sum(len(name.encode()) + len(value.encode()) + _OVERHEAD for name, value in sent.attributes.items())
    return len(sent.data) + named + _OVERHEAD


def message_nbytes(message: Message) -> int:
    """How many bytes of max_message_nbytes *message* takes: its body, and attributes beyond half of their room."""
    named = sum(len(name) + len(value) * 4 + _OVERHEAD for name, value in to_attributes(message).items())
    if named > ATTRIBUTES_ROOM // 2:
        named = nbytes_of(outgoing(msgspec.structs.replace(message, body=b"")))
    return len(message.body) + max(0, named - ATTRIBUTES_ROOM // 2)


def burial_of(message: Message, note: Note) -> Any:
    """The PubsubMessage of a dead letter. The note's detail is cut to its end, where the error stands."""
    note = msgspec.structs.replace(note, reason=note.reason[:LONGEST_REASON], detail=note.detail[-LONGEST_DETAIL:])
    buried = outgoing(message, note=note)
    # A producer of its own may have filled it to the brim. Nothing of what can be read is ever cut, nor of a body.
    if nbytes_of(buried) > LARGEST and note.reason == BAD_ENVELOPE:
        message = without_headers(message)
        buried = outgoing(message, note=note)
    return buried if nbytes_of(buried) <= LARGEST else outgoing(message)


# --- reading ---


def read(received: Any) -> Arrived:
    """One of the received_messages that a pull gave."""
    sent = received.message
    attributes: dict[str, str] = dict(sent.attributes)
    body, fault = sent.data, None
    if (length := attributes.pop(HEAD, None)) is not None:
        try:
            nbytes = max(0, int(length))
            attributes |= msgspec.json.decode(body[:nbytes], type=dict[str, str])
            body = body[nbytes:]
        except (ValueError, msgspec.DecodeError, RecursionError) as error:
            fault = (
                f"attribute {HEAD} says {length!r}, but in front of the body is no JSON object of that size: {error}"
            )
    count, due, note = attributes.pop(COUNT, None), attributes.pop(DUE, None), attributes.pop(NOTE, None)
    source_count = attributes.get(_SOURCE_COUNT)
    for name in [name for name in attributes if name.startswith((_SOURCE, "goog"))]:
        del attributes[name]
    return Arrived(
        id=sent.message_id,
        ack_id=received.ack_id,
        attempt=received.delivery_attempt,
        sent=sent.publish_time.seconds + sent.publish_time.nanos / 1e9,
        attributes=attributes,
        body=body,
        count=int(_number(count)),
        due=_number(due),
        note=_note_of(note, source_count),
        fault=fault,
    )


def fallback_id(topic: str, arrived: Arrived) -> str:
    """The id of a message that has none of its own. What Pub/Sub calls it is unique within its topic only."""
    return f"{topic}-{arrived.id}"


def message_of(topic: str, arrived: Arrived) -> Message:
    """The message, or what can be shown of it."""
    id_ = fallback_id(topic, arrived)
    if arrived.fault is None:
        try:
            return from_attributes(arrived.attributes, arrived.body, fallback_id=id_)
        except BadInputError:
            pass
    return readable_part(arrived.attributes, arrived.body, id_)


def letter_of(queue: str, topic: str, arrived: Arrived) -> DeadLetter:
    """The dead letter of *queue* that *arrived* is."""
    note = arrived.note or Note(count=arrived.count)
    return DeadLetter(
        key=arrived.key,
        message=message_of(topic, arrived),
        queue=queue,
        reason=note.reason,
        detail=note.detail,
        delivery_count=note.count,
        dead_at=arrived.sent,
    )


def _note_of(text: str | None, source_count: str | None) -> Note | None:
    if text is not None:
        try:
            return msgspec.json.decode(text, type=Note)
        except msgspec.DecodeError:
            return None
    if source_count is None:
        return None
    detail = "Pub/Sub itself moved it here, by the dead-letter policy of the queue's subscription"
    return Note(reason=DELIVERY_LIMIT, detail=detail, count=int(_number(source_count)))


def _number(text: str | None) -> float:
    """A count or time that somebody else may have written: 0 for what is none."""
    try:
        number = float(text or 0)
    except ValueError:
        return 0.0
    return number if 0 <= number < 1e15 else 0.0
