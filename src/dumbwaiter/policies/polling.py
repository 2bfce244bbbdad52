"""How long to wait between two looks for something that nobody announces. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """The pauses between looks, in seconds: *first* after a look that found something, then each *growth* times as
    long as the one before, and never longer than *last*.
    """

    first: float
    last: float
    growth: float = 1.5


QUICK = Pace(0.01, 1.0)
"""For a result that may be there in a moment, or in an hour."""
STREAM = Pace(0.025, 1.0)
"""For the events of many streams at once, each of which costs a listing of the store."""
WATCH = Pace(0.02, 0.5)
"""For the one thing that a client waits for."""


def next_pause(pace: Pace, before: float | None, *, found: bool) -> float:
    """Seconds until the next look; *before* is the pause before this one, None for the first look."""
    return pace.first if found or before is None else min(pace.growth * before, pace.last)


def fitted(pause: float, pace: Pace, left: float) -> float:
    """*pause*, cut for whoever has only *left* seconds: half of them, so that the last look comes just before the end,
    but never less than the pace's first pause.
    """
    return min(pause, max(pace.first, left / 2))
