"""What a look at a broker's server shows: what it guarantees as it is configured, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from dumbwaiter.brokers.contract import Broker

Level: TypeAlias = Literal["ok", "note", "warning", "danger"]
"""*ok*: as it should be. *note*: worth knowing. *warning*: may cost messages or time one day. *danger*: will lose
confirmed messages when something fails that does fail.
"""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One fact about a broker: its *subject* in a word or two, what was found in a plain sentence, and for what should
    be changed a *remedy*: the line to write, or the command to run.
    """

    level: Level
    subject: str
    text: str
    remedy: str = ""


def worst(findings: list[Finding]) -> Level:
    """The worst level among *findings*; ok when there are none."""
    levels = {finding.level for finding in findings}
    order: tuple[Level, ...] = ("danger", "warning", "note")
    for level in order:
        if level in levels:
            return level
    return "ok"


def of_contract(broker: Broker) -> list[Finding]:
    """What an open *broker* promises whatever its server's configuration, by its capabilities."""
    can, lock = broker.capabilities, broker.lock_duration
    largest = "has no limit of its own" if can.max_message_nbytes is None else f"is {_size(can.max_message_nbytes)}"
    priority = "strict" if can.strict_priority else "lanes with a share for each" if can.priority else "none"
    again = "as one message for a while" if can.deduplication else "as two messages; workers drop kept doubles"
    return [
        Finding(
            level="ok", subject="lock", text=f"a delivery stays locked for {lock:g} s, and is renewed while it runs"
        ),
        Finding(level="ok", subject="largest message", text=f"it {largest}; larger bodies go by claim check"),
        Finding(level="ok", subject="priorities", text=priority),
        Finding(level="ok", subject="order", text="first in, first out" if can.ordered else "not kept"),
        Finding(level="ok", subject="sent twice", text=f"a message sent twice under one id counts {again}"),
    ]


def _size(nbytes: int) -> str:
    for unit, size in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if nbytes >= size:
            return f"{nbytes / size:.4g} {unit}"
    return f"{nbytes} bytes"
