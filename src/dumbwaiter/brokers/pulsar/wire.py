"""Messages as Pulsar carries them: CloudEvents attributes as properties, and ours beside them. Pure.

Attributes are written as ``ce_id`` and so on; they are read without the prefix too. Whoever has no properties at all
just publishes a body.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from dumbwaiter.envelope import to_attributes
from dumbwaiter.errors import MessageTooLargeError
from dumbwaiter.message import Message
from dumbwaiter.policies.lanes import LANES, NORMAL

PREFIX = "ce_"
OWN = "dumbwaiter-"
BEFORE = f"{OWN}deliveries"
"""How often the message had been delivered before this copy of it was published."""
DUE, LANE = f"{OWN}due", f"{OWN}lane"
"""When a delayed message is due, in seconds since the Unix epoch, and whereto it goes then."""
REASON, DETAIL, DEAD_AT = (f"{OWN}{name}" for name in ("reason", "detail", "dead-at"))
GONE = f"{OWN}gone"
"""Of a message among the dead letters that is none itself: its body names those that are no more."""

_BATCH_SIZE = 6 << 3
"""Field 6, a number."""

PROPERTIES_LIMIT = 64 * 1024
DETAIL_LIMIT = 32 * 1024


class Copy(msgspec.Struct, frozen=True, gc=False):
    """A *body* with *properties* for a *topic*; *deliver_at*, in seconds since the Unix epoch, asks the server to keep
    it back until then, which not every one does.
    """

    topic: str
    body: bytes
    properties: Mapping[str, str]
    deliver_at: float | None = None


class Position(msgspec.Struct, frozen=True, order=True):
    """Where a message stands in its topic."""

    ledger: int
    entry: int

    @property
    def key(self) -> str:
        """It as text."""
        return f"{self.ledger}-{self.entry}"


def position_of(key: str) -> Position | None:
    """The position that *key* is; None if it is none."""
    ledger, dash, entry = key.partition("-")
    if not dash or not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in (ledger, entry)):
        return None
    return Position(int(ledger), int(entry))


def batch_size(message_id: bytes) -> int:
    """How many messages the producer sent as one, by the *message_id* as the client serializes it; 1 if it is not told.

    Source: MessageIdData in PulsarApi.proto, whose fields are numbers but for one that is a list of them.
    """
    place = 0
    while place < len(message_id):
        key, place = _varint(message_id, place)
        value, place = _varint(message_id, place)
        if key == _BATCH_SIZE:
            return value
        if key & 7:  # a length was that, and what it is of follows
            place += value
    return 1


def _varint(text: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(text):
        byte = text[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, place


def properties_of(message: Message) -> dict[str, str]:
    """What stands beside *message*'s body. Raises MessageTooLargeError when its attributes are too long to travel."""
    properties = {f"{PREFIX}{name}": _encodable(value) for name, value in to_attributes(message).items()}
    nbytes = sum(len(name.encode()) + len(value.encode()) + 8 for name, value in properties.items())
    if nbytes > PROPERTIES_LIMIT:
        raise MessageTooLargeError(nbytes, PROPERTIES_LIMIT)
    return properties


def attributes_of(properties: Mapping[str, str], event_time: float | None = None) -> dict[str, str]:
    """The CloudEvents attributes that a producer wrote; *event_time*, in seconds since the epoch, if it set one."""
    attributes = {} if event_time is None else {"time": repr(event_time)}
    attributes |= {name: value for name, value in properties.items() if not name.startswith(OWN)}
    return attributes


def delivery_count_of(properties: Mapping[str, str], redeliveries: int) -> int:
    """1 on the first delivery; *redeliveries* are those that the server counts of this copy."""
    return 1 + redeliveries + count(properties, BEFORE)


def again(
    properties: Mapping[str, str], message_id: str, *, before: int, event_time: float | None = None
) -> dict[str, str]:
    """For another copy of a message that came with *properties* and was delivered *before* times."""
    copied = bare(properties)
    if not any(copied.get(name) for name in ("id", "ce_id", "ce-id", "cloudEvents:id", "cloudEvents_id")):
        copied[f"{PREFIX}id"] = message_id
    if event_time is not None and not any(name in copied for name in ("time", "ce_time", "ce-time")):
        copied[f"{PREFIX}time"] = repr(event_time)
    if before:
        copied[BEFORE] = str(before)
    return copied


def dead(properties: Mapping[str, str], *, reason: str, detail: str, dead_at: float) -> dict[str, str]:
    """*properties*, which again() made, with what is to be known of a dead letter."""
    return {**properties, REASON: _encodable(reason), DETAIL: _cut(_encodable(detail)), DEAD_AT: repr(dead_at)}


def bare(properties: Mapping[str, str]) -> dict[str, str]:
    """What their producer wrote of *properties*: a copy with no more than that fits wherever the message did."""
    return {name: value for name, value in properties.items() if not name.startswith(OWN)}


def smaller(copy: Copy, came: Mapping[str, str]) -> Copy | None:
    """The dead letter *copy* with less of its note, of one that came with the properties *came*; None for the smallest.

    A producer of its own may have filled it to the brim. Nothing of the message itself is ever cut.
    """
    if copy.properties.get(DETAIL):
        return msgspec.structs.replace(copy, properties={**copy.properties, DETAIL: ""})
    least = bare_copy(copy, came)
    return None if copy == least else least


def bare_copy(copy: Copy, came: Mapping[str, str]) -> Copy:
    """*copy*, with no more than its producer wrote into the properties *came*."""
    return msgspec.structs.replace(copy, properties=bare(came))


def nbytes_of(copy: Copy) -> int:
    """How many bytes *copy* has, its properties included."""
    return len(copy.body) + sum(len(name.encode()) + len(value.encode()) for name, value in copy.properties.items())


def delayed(properties: Mapping[str, str], *, due: float, lane: int) -> dict[str, str]:
    """*properties* of a message that goes to *lane* when it is *due*."""
    return {**properties, DUE: repr(due), LANE: str(lane)}


def due_of(properties: Mapping[str, str]) -> tuple[float, int]:
    """When it is due and the lane; at once, in the usual one, where somebody else wrote what is there."""
    lane = count(properties, LANE, NORMAL)
    return number(properties, DUE), lane if lane < LANES else NORMAL


def gone(keys: Sequence[str]) -> bytes:
    """The body that says that the dead letters *keys* are no more."""
    return msgspec.json.encode(list(keys))


def gone_of(body: bytes) -> list[str]:
    """The keys in it; none where somebody else wrote it."""
    try:
        return msgspec.json.decode(body, type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


def count(properties: Mapping[str, str], name: str, default: int = 0) -> int:
    """Producers may write anything into properties."""
    value = properties.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else default


def number(properties: Mapping[str, str], name: str) -> float:
    """The finite number under *name*; 0.0 where there is none."""
    try:
        value = float(properties.get(name, "0"))
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


def _encodable(text: str) -> str:
    """Protobuf takes no half of a surrogate pair."""
    return text.encode(errors="replace").decode()


def _cut(detail: str) -> str:
    encoded = detail.encode()
    if len(encoded) <= DETAIL_LIMIT:
        return detail
    return f"[...] {encoded[-DETAIL_LIMIT:].decode(errors='ignore')}"  # the last line of a traceback says most
