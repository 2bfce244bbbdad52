"""What a worker that must leave does with its time: wait for the batch that runs, or hand it back at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable

SHARE_FOR_BATCH = 0.8
"""What part of the time it has to leave in is for the batch that runs; the rest is for handing back and settling."""
SHARE_FOR_ALL = 0.95
"""After what part of it all is settled, or is given up."""
LIKELY = 0.1
"""A batch is worth waiting for when at least this part of those like it ended in time."""


def is_worth_waiting(past: Iterable[tuple[int, float]], *, size: int, elapsed: float, within: float) -> bool:
    """Whether a batch of *size* inputs that has run for *elapsed* seconds may end *within* so many more.

    *past* are batches that have ended, (size, seconds) each. Those that are no larger and took longer than *elapsed*
    tell what to expect, and err on the side of waiting: a larger batch takes no less time. Where none is like it nobody
    knows, and waiting costs no more than the time that was granted anyway.
    """
    like_it = [seconds for batch, seconds in past if batch <= size and seconds > elapsed]
    in_time = sum(seconds <= elapsed + within for seconds in like_it)
    return not like_it or in_time >= LIKELY * len(like_it)
