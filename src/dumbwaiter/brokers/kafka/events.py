"""What stands in a queue's ledger: one event a record, written with MessagePack. Pure.

A position of a message is its lane (or DEAD), partition and offset. Times are milliseconds since the Unix epoch by the
broker's clock, and lengths of time milliseconds too. *op* names the call that wrote an event, so that who called finds
what became of it.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from dumbwaiter.policies.lanes import LANES

_MOST = 1 << 60
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
Length: TypeAlias = Annotated[int, msgspec.Meta(ge=-_MOST, le=_MOST)]
Lane: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=LANES)]
# An event with any other number is none: the ledger reckons with them, and must be able to write the results.

Position: TypeAlias = tuple[int, int, int]
"""Lane, partition, offset."""
Ends: TypeAlias = list[tuple[Lane, Number, Number, Number]]
"""For each lane and partition, the first offset that is kept and the one behind the last."""


class Seen(msgspec.Struct, frozen=True, array_like=True, tag="seen"):
    """There are messages up to these *ends*. Whoever sends them does not know which are the first that are kept."""

    ends: Ends


class Postpone(msgspec.Struct, frozen=True, array_like=True, tag="postpone"):
    """Messages that were sent with a delay may not be taken before *until*."""

    positions: list[tuple[Lane, Number, Number]]
    until: Number


class Take(msgspec.Struct, frozen=True, array_like=True, tag="take"):
    """Lock up to *limit* messages for *length*: which ones, the ledger decides. The broker said that *ends* are so."""

    op: str
    limit: Number
    length: Number
    ends: Ends


class Complete(msgspec.Struct, frozen=True, array_like=True, tag="complete"):
    """The messages under these *tokens* are done."""

    op: str
    tokens: list[str]


class Abandon(msgspec.Struct, frozen=True, array_like=True, tag="abandon"):
    """The messages under these *tokens* are ready again after *delay*."""

    op: str
    tokens: list[str]
    delay: Length
    counted: bool


class Bury(msgspec.Struct, frozen=True, array_like=True, tag="bury"):
    """The messages under these tokens are dead; a copy of each lies at that offset of the topic of dead letters."""

    op: str
    graves: list[tuple[str, Number]]


class Renew(msgspec.Struct, frozen=True, array_like=True, tag="renew"):
    """The locks of these *tokens* last for *length* from now."""

    op: str
    tokens: list[str]
    length: Number


class Redrive(msgspec.Struct, frozen=True, array_like=True, tag="redrive"):
    """The dead letters at these *offsets*, or all, are ready, and fresh. They are served from where they lie."""

    op: str
    offsets: list[int] | None


class Purge(msgspec.Struct, frozen=True, array_like=True, tag="purge"):
    """The dead letters at these *offsets*, or all, are gone."""

    op: str
    offsets: list[int] | None


class Lock(msgspec.Struct, array_like=True, gc=False):
    """A message that is held: its *position*, the *lane* it counts for, until when, and which delivery it is."""

    position: Position
    lane: int
    until: int
    count: int


class Part(msgspec.Struct, array_like=True):
    """A partition of a lane: *next* is the first offset that nobody has taken yet, *end* the one behind the last that
    is known. Those in *skipped* lie between, and are postponed.
    """

    next: int
    end: int
    skipped: set[int]


class State(msgspec.Struct, array_like=True):
    """A whole ledger, after all events before some offset."""

    now: int
    turn: int
    parts: dict[str, Part]
    ready: list[list[tuple[int, int, Position]]]
    delayed: list[tuple[int, Position, int]]
    locks: dict[str, Lock]
    counts: list[tuple[Position, int]]
    settled: list[str]
    dead: dict[int, int]
    graves_from: int
    graves_to: int


class Snapshot(msgspec.Struct, frozen=True, array_like=True, tag="snapshot"):
    """The *state* after all events before offset *at*; whoever reads it needs nothing of what came before that.

    From now on nothing may be buried below *graves_from*, for what lies there will be deleted.
    """

    at: int
    state: State
    graves_from: int


Event: TypeAlias = Seen | Postpone | Take | Complete | Abandon | Bury | Renew | Redrive | Purge | Snapshot

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def encode(event: Event) -> bytes:
    """*event* as a record's value."""
    return _encoder.encode(event)


def decode(value: bytes | None) -> Event | None:
    """The event, or None for what is none: all who read it pass over it alike."""
    if value is None:
        return None
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
