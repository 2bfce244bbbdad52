"""What a message of the client's says of itself. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.brokers.pulsar.wire import OWN, Position

UNREADABLE = f"{OWN}unreadable"
"""Stands for the properties of a message that are no text."""


def properties_at(message: Any) -> dict[str, str]:
    """Its properties. Not every producer's client sees to it that they are text."""
    try:
        return dict(message.properties())
    except UnicodeDecodeError:
        return {UNREADABLE: "yes"}


def position_at(message: Any) -> Position:
    """Where it stands."""
    message_id = message.message_id()
    return Position(message_id.ledger_id(), message_id.entry_id())


def event_time_of(message: Any) -> float | None:
    """When the producer says that it happened, in seconds since the Unix epoch."""
    milliseconds = message.event_timestamp()
    return milliseconds / 1000 if milliseconds else None


def id_of(message: Any) -> str:
    """What it is called if its attributes give no id: the same at each delivery."""
    at = message.message_id()
    return f"pulsar-{at.ledger_id():x}-{at.entry_id():x}-{at.batch_index() + 1:x}"
