"""Priorities on products that have none of their own: one physical queue a lane, and the order in which to ask them.

Pure: whoever receives counts its turns and says which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence

LANES = 3
HIGH, NORMAL, LOW = range(LANES)
"""Larger priorities than 0; 0 itself, where whoever knows of no priorities sends; smaller ones."""

#: The lane that is asked first at each turn of a round. Of eight messages that are served while all lanes are full,
#: five are high ones and one is a low one: so the low lane is slow, but it moves.
_FIRST = (HIGH, HIGH, NORMAL, HIGH, HIGH, NORMAL, HIGH, LOW)
HIGH_TURNS = tuple(turn for turn, lane in enumerate(_FIRST) if lane == HIGH)
"""Turns to begin with: what is urgent and waits already comes first."""
_ORDERS = tuple((first, *(lane for lane in range(LANES) if lane != first)) for first in range(LANES))


def lane_of(priority: int) -> int:
    """The lane, 0 to LANES - 1, of messages with *priority*; 0 is served most."""
    if priority > 0:
        return HIGH
    return LOW if priority < 0 else NORMAL


def order(turn: int) -> Sequence[int]:
    """All lanes, in the order in which they are asked at *turn*, counted from 0: one that is empty costs no turn."""
    return _ORDERS[_FIRST[turn % len(_FIRST)]]
