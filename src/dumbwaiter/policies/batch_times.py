"""How long batches take, most of all the longest ones: a worker that is told to leave has to be given that time. Pure.

Durations are counted in bins, each a fifth longer than the one before it, and older ones fade. Moments are seconds of
one clock that goes on between runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

STEP = 2.0**0.25
"""The ratio of two neighbouring bins: a duration is known to a fifth of itself."""
SHORTEST = 1e-4
HALF_LIFE = 86_400.0
"""After so many seconds a batch counts half: what is rare and long is not forgotten within a quiet day."""
LONG_SHARE = 0.999


class BatchTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Batches by bin, *counts*, faded as of *at*."""

    counts: dict[int, float] = {}
    at: float = 0.0

    @property
    def total(self) -> float:
        """How many batches there were, older ones counting less."""
        return sum(self.counts.values())


def bin_of(seconds: float) -> int:
    """The bin of a batch of *seconds*: the first one whose upper end is not below it."""
    return 0 if seconds <= SHORTEST else math.ceil(math.log(seconds / SHORTEST) / math.log(STEP) - 1e-9)


def upper_end(number: int) -> float:
    """Seconds of the longest batch that is counted in bin *number*."""
    return float(SHORTEST * STEP**number)


def gathered(counts: Mapping[int, float], now: float) -> BatchTimes:
    """What was counted by bin up to *now*."""
    return BatchTimes(counts=dict(counts), at=now)


def merged(first: BatchTimes, second: BatchTimes) -> BatchTimes:
    """Both together, as of the later moment. What has faded to nothing is left out."""
    at = max(first.at, second.at)
    counts: dict[int, float] = {}
    for one in (first, second):
        kept = math.exp2(-(at - one.at) / HALF_LIFE) if one.counts else 0.0
        for number, count in one.counts.items():
            counts[number] = counts.get(number, 0.0) + count * kept
    return BatchTimes(counts={number: count for number, count in counts.items() if count > 1e-3}, at=at)


def longest(times: BatchTimes, share: float = LONG_SHARE) -> float | None:
    """Seconds that *share* of all batches stay within, rounded up to a bin's end; None while none was seen."""
    left = times.total * (1.0 - share)
    for number in sorted(times.counts, reverse=True):
        left -= times.counts[number]
        if left < 0.0:
            return upper_end(number)
    return upper_end(min(times.counts)) if times.counts else None
