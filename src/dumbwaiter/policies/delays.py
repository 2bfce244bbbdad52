"""Delays: which of them are kept; and, on products that keep messages back for a few fixed lengths only, which length
stands for one. Pure.

A queue that keeps everything back for the same time is in order of its ends, so nothing long stands before something
short.
"""

from __future__ import annotations

import bisect

SHORTEST = 0.1
GROWTH = 1.25
"""A message comes at most a quarter of its delay late."""
LONGEST = 40 * 86_400.0
"""Seconds. A delay beyond the last length, which is about this long, is cut to it."""


KEPT_AT_MOST = 10 * 365 * 86_400.0
"""Seconds. Beyond that lie the ends of the products' calendars."""


def kept(delay: float) -> float:
    """*delay* in seconds as it is kept, for handing back never fails for it: what is none, as NaN, is 0."""
    return min(delay, KEPT_AT_MOST) if delay > 0 else 0.0


def _lengths() -> list[float]:
    lengths = [SHORTEST]
    while lengths[-1] < LONGEST:
        lengths.append(int(lengths[-1] * GROWTH * 1000) / 1000)  # down, so that no step is larger than GROWTH
    return lengths


_LENGTHS = _lengths()


def bucket_of(delay: float) -> float:
    """The length, in seconds to the millisecond, that stands for *delay*: the shortest that is no shorter.

    There are some 80 of them, about 10 between 1 s and 10 s.
    """
    place = bisect.bisect_left(_LENGTHS, delay)
    return _LENGTHS[min(place, len(_LENGTHS) - 1)]
