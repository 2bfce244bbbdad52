"""Messages on the wire of AMQP 1.0, in the sections that the service reads or writes itself. Pure.

What a sender wrote stays as it is, byte by byte; the header, the broker's annotations and the reason of a dead letter
are the service's own. Source: AMQP 1.0, part 3, and Microsoft's "AMQP 1.0 in Azure Service Bus: protocol guide".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

from proton import Data, Described, symbol, timestamp, ubyte, uint, ulong

from dumbwaiter.testing.servers.servicebus.kept import Kept

HEADER, DELIVERY_ANNOTATIONS, ANNOTATIONS, PROPERTIES, APPLICATION_PROPERTIES, DATA = range(0x70, 0x76)
FOOTER = 0x78
_SECTION = b"\x00\x53"
_DESCRIPTORS = [bytes([one]) for one in range(HEADER, FOOTER + 1)]
SCHEDULED = "x-opt-scheduled-enqueue-time"


class Section(NamedTuple):
    """One section: its *descriptor*, the *value* read, and the bytes as they came."""

    descriptor: int
    value: Any
    raw: bytes


def sections(raw: bytes) -> list[Section]:
    """The sections of a message. Raises ValueError when it is none."""
    found: list[Section] = []
    data = Data()
    while raw:
        data.clear()
        try:
            length = data.decode(raw)
            data.rewind()
            data.next()
            value = data.get_object()
        except Exception as error:  # proton has errors of its own, and Python's
            raise ValueError(f"not a message of AMQP 1.0: {error}") from error
        if not isinstance(value, Described):
            raise ValueError("not a message of AMQP 1.0: a section has no descriptor")  # noqa: TRY004 - of the sender
        # What is binary is a view into memory that the next section takes over.
        content = bytes(value.value) if isinstance(value.value, memoryview) else value.value
        found.append(Section(int(cast(Any, value.descriptor)), content, raw[:length]))
        raw = raw[length:]
    return found


def parts(raw: bytes) -> list[bytes]:
    """The messages in *raw*: a batch holds several, each in a data section of its own. Raises ValueError when *raw* or
    a message in it cannot be read.

    A batch has a message format of its own, which Proton does not show to whoever receives. So it is told by its data.
    """
    bodies = [bytes(one.value) for one in sections(raw) if one.descriptor == DATA]
    if not bodies or not all(_has_the_form_of_a_message(body) for body in bodies):
        return [raw]
    for body in bodies:
        sections(body)
    return bodies


def _has_the_form_of_a_message(body: bytes) -> bool:
    """Whether it is made of sections, whatever is in them."""
    data, rest = Data(), body
    while rest:
        if not rest.startswith(_SECTION) or rest[2:3] not in _DESCRIPTORS:
            return False
        data.clear()
        try:
            rest = rest[data.decode(rest) :]
        except Exception:  # proton has errors of its own, and Python's
            return False
    return bool(body)


def due_of(raw: bytes) -> float:
    """When the sender wants it to be enqueued, in seconds since the Unix epoch; 0.0 for now."""
    for one in sections(raw):
        if one.descriptor == ANNOTATIONS:
            return float(one.value.get(SCHEDULED, 0)) / 1000
    return 0.0


def outgoing(raw: bytes, *, count: int, annotations: Mapping[str, float | int], reason: Mapping[str, str]) -> bytes:
    """*raw* as the service hands it out: *count* earlier deliveries, and what it knows of the message.

    Times among *annotations* are floats, in seconds since the Unix epoch.
    """
    theirs = {one.descriptor: one for one in sections(raw)}
    header = list(theirs[HEADER].value) if HEADER in theirs else []
    header += [None] * (5 - len(header))
    header[4] = uint(count)
    if isinstance(header[1], int):
        header[1] = ubyte(header[1])
    if isinstance(header[2], int):
        header[2] = uint(header[2])
    known = {
        symbol(name): timestamp(int(value * 1000)) if isinstance(value, float) else value
        for name, value in annotations.items()
    }
    noted = dict(theirs[ANNOTATIONS].value) if ANNOTATIONS in theirs else {}
    encoded = _encode(HEADER, header) + _encode(ANNOTATIONS, {**noted, **known})
    if PROPERTIES in theirs:
        encoded += theirs[PROPERTIES].raw
    if APPLICATION_PROPERTIES in theirs or reason:
        given = dict(theirs[APPLICATION_PROPERTIES].value) if APPLICATION_PROPERTIES in theirs else {}
        encoded += _encode(APPLICATION_PROPERTIES, {**given, **reason})
    return encoded + b"".join(one.raw for one in sections(raw) if one.descriptor > APPLICATION_PROPERTIES)


def shown(kept: Kept, *, locked_until: float | None = None) -> bytes:
    """A message as receivers get it, or as it is shown to one that peeks."""
    annotations: dict[str, float | int] = {
        "x-opt-sequence-number": kept.number,
        "x-opt-enqueued-time": kept.enqueued,
        "x-opt-message-state": 2 if kept.due else 0,
    }
    if locked_until is not None:
        annotations["x-opt-locked-until"] = locked_until
    reason = {"DeadLetterReason": kept.reason, "DeadLetterErrorDescription": kept.description} if kept.reason else {}
    return outgoing(kept.raw, count=kept.count, annotations=annotations, reason=reason)


def _encode(descriptor: int, value: Any) -> bytes:
    data = Data()
    data.put_object(Described(ulong(descriptor), value))
    encoded: bytes = data.encode()
    return encoded


def texts(value: Mapping[Any, Any], names: Iterable[str]) -> list[str]:
    """The text under each of *names* in a map of AMQP, or nothing."""
    return [str(value.get(name) or "") for name in names]
