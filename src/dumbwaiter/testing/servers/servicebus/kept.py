"""A message as the double keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Kept:
    """A message: its sequence *number*, what was sent, and *count*, how often it was delivered in vain."""

    number: int
    raw: bytes
    enqueued: float
    due: float = 0.0
    count: int = 0
    reason: str = ""
    description: str = ""
