"""How fast a caller may ask: a token bucket. Pure.

A bucket holds at most *burst* tokens and gains *rate* of them a second; a request takes its cost or is refused. So no
more than ``burst + rate * t`` tokens are taken in any t seconds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """*rate* in tokens a second, above 0; *burst* at least 1. *tokens* were there at *at*, in seconds of one clock."""

    rate: float
    burst: float
    tokens: float
    at: float


def full(rate: float, burst: float, *, now: float) -> TokenBucket:
    """A bucket that nothing was taken from yet."""
    return TokenBucket(rate, burst, burst, now)


def take(bucket: TokenBucket, cost: float, *, now: float) -> float:
    """Take *cost* tokens and return 0.0; where they are not there, take none and return the seconds until they are.

    A clock that goes back gives nothing and takes nothing. *cost* is at most the bucket's burst.
    """
    if now > bucket.at:
        bucket.tokens = min(bucket.burst, bucket.tokens + (now - bucket.at) * bucket.rate)
        bucket.at = now
    if bucket.tokens >= cost:
        bucket.tokens -= cost
        return 0.0
    return (cost - bucket.tokens) / bucket.rate
