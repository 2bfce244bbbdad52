"""How long one input takes a worker, by its size: learnt from the batches that ran. Pure.

An input's work is its share of its batch's device time. Sizes are the bytes of its body, in buckets of powers of two:
that is known of a message before anybody decodes it. Moments are seconds of one clock that goes on between runs.
"""

from __future__ import annotations

import math

import msgspec

HALF_LIFE = 120.0
"""After so many seconds an input counts half as much for the mix of sizes that is expected of those to come."""
LONGEST = 7 * 86_400.0
"""Seconds of work beyond which an input's time is a damaged number, and so unknown."""
_LARGEST = 64
"""No body has a larger bucket."""
_MOST_WEIGHT = 1e12


class Bucket(msgspec.Struct, frozen=True, array_like=True):
    """Inputs of about one size: mean *seconds* of work each, and how many there were, *weight*, faded as of *at*."""

    seconds: float
    weight: float
    at: float


class ServiceTimes(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one model's inputs: by bucket, the logarithm of the size to base 2, rounded up."""

    buckets: dict[int, Bucket] = {}

    @property
    def is_known(self) -> bool:
        """Whether anything was measured."""
        return bool(self.buckets)


def bucket_of(nbytes: int) -> int:
    """The bucket of a body of *nbytes*."""
    return max(nbytes - 1, 0).bit_length()


def expected(times: ServiceTimes, now: float) -> float | None:
    """Seconds of work of the next input, if the mix of sizes stays as it was lately; None while nothing is known."""
    weights = {key: _faded(one, now) for key, one in times.buckets.items()}
    total = sum(weights.values())
    if total <= 0.0:  # all faded away: whatever is known is better than nothing
        known = list(times.buckets.values())
        return sum(one.seconds for one in known) / len(known) if known else None
    return sum(times.buckets[key].seconds * weight for key, weight in weights.items()) / total


def expected_of(times: ServiceTimes, nbytes: int) -> float | None:
    """Seconds of work of an input of *nbytes*: its bucket's, or on the line between its neighbours; None as above.

    Below the smallest bucket known its seconds, above the largest in proportion to the size.
    """
    if not times.buckets:
        return None
    key, known = bucket_of(nbytes), sorted(times.buckets)
    if key in times.buckets:
        return times.buckets[key].seconds
    below = [one for one in known if one < key]
    above = [one for one in known if one > key]
    if not below:
        return times.buckets[above[0]].seconds
    last = times.buckets[below[-1]].seconds
    if not above:
        return float(last * 2.0 ** (key - below[-1]))
    share = (2.0**key - 2.0 ** below[-1]) / (2.0 ** above[0] - 2.0 ** below[-1])
    return last + (times.buckets[above[0]].seconds - last) * share


def merged(first: ServiceTimes, second: ServiceTimes, now: float) -> ServiceTimes:
    """What two workers know of one model, each counting by what it has seen lately."""
    buckets = dict(first.buckets)
    for key, other in second.buckets.items():
        mine = buckets.get(key)
        if mine is None:
            buckets[key] = other
            continue
        weights = _faded(mine, now), _faded(other, now)
        total = sum(weights)
        share = weights[1] / total if total > 0.0 else 0.5
        buckets[key] = Bucket(mine.seconds + share * (other.seconds - mine.seconds), total, max(now, mine.at, other.at))
    return ServiceTimes(buckets=buckets)


def sound(times: ServiceTimes, now: float) -> ServiceTimes:
    """*times* without what no worker can have measured up to *now*, as when a file was damaged: that is unknown."""
    kept = {
        key: one if one.at <= now else Bucket(one.seconds, one.weight, now)
        for key, one in times.buckets.items()
        if 0 <= key <= _LARGEST and 0.0 <= one.seconds <= LONGEST and 0.0 < one.weight <= _MOST_WEIGHT and one.at >= 0.0
    }
    return times if kept == times.buckets else ServiceTimes(buckets=kept)


def _faded(bucket: Bucket, now: float) -> float:
    return bucket.weight * math.exp2(-max(0.0, now - bucket.at) / HALF_LIFE)
