"""What becomes of a message whose attempt failed. Pure.

First attempt in company, later attempts alone; permanent errors at once to the dead letters; transient ones again
with back-off; what nobody understands again, a few times; a killed or hung runner counts against those it held.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dumbwaiter.policies import backing_off

#: Transient errors may be tried this often, or max_deliveries if that is more.
TRANSIENT_DELIVERIES = 10
FIRST_DELAY = 0.2
LONGEST_DELAY = 60.0
#: Between two loads that fail others have a shared device for so many times as long as such a load takes.
LOAD_PAUSE = 5.0


class Fault(Enum):
    """Why an attempt gave no output."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    UNKNOWN = "unknown"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Retry:
    """Abandon with this delay in seconds."""

    delay: float
    counted: bool = True


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Answer with the failure, then dead-letter."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with the failure and complete: nobody needs to look at it again."""


def judge(
    fault: Fault, delivery_count: int, *, max_deliveries: int, luck: float, time_left: float | None = None
) -> Retry | GiveUp | Answer:
    """Decide. *luck* in [0, 1) spreads the back-off, so that a crowd does not come back at once.

    *time_left* until the message's deadline, in seconds: whoever waits shall hear the reason before it, rather than
    that time was up after it.
    """
    if fault is Fault.EXPIRED:
        return Answer()
    limit = most_deliveries(max_deliveries) if fault is Fault.TRANSIENT else max_deliveries
    if fault is Fault.PERMANENT or delivery_count >= limit:
        return GiveUp()
    delay = back_off(delivery_count, luck=luck)
    return GiveUp() if time_left is not None and delay > time_left / 2 else Retry(delay=delay)


def most_deliveries(max_deliveries: int) -> int:
    """How often a message may be delivered at all. One that was delivered more often was never given a verdict."""
    return max(max_deliveries, TRANSIENT_DELIVERIES)


def back_off(attempt: int, *, luck: float, first: float = FIRST_DELAY, longest: float = LONGEST_DELAY) -> float:
    """Seconds before the next try after the *attempt*-th (1-based): doubling, at most *longest*, 50-100 % of it."""
    return backing_off.back_off(attempt, first=first, longest=longest, luck=luck)


def before_next_load(failures: int, *, luck: float, held: float) -> float:
    """Seconds before a runner that failed for the *failures*-th time in a row is started anew.

    *held*: so long its load kept others from a device that they share. One that always fails must not do so for more
    than a small part of the time.
    """
    return max(back_off(failures, luck=luck, first=1.0), min(LOAD_PAUSE * held, LONGEST_DELAY))


def must_be_alone(delivery_count: int) -> bool:
    """A redelivered message runs in a batch of its own, so that a poison costs its mates one attempt at most."""
    return delivery_count > 1
