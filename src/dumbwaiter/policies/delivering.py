"""What becomes of a notification after a try to deliver it. Pure.

About ten tries over about two hours: at once, then after 5 s, 12 s, 26 s, 1 min, 2 min, 5 min, 12 min, 28 min, 1 h.

Source of the meaning of the statuses: the Standard Webhooks specification
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from dumbwaiter.policies import backing_off

MAX_TRIES = 10
PROGRESS_TRIES = 3
"""News of what is still under way soon are none; they are tried no more often than this."""
FIRST_DELAY, GROWTH = 5.0, 2.3
LONGEST_RETRY_AFTER = 3600.0
"""A receiver may ask for no longer a pause than this, in seconds."""
SPREAD = 0.2

FAILED, GONE = "webhook-failed", "webhook-gone"
_MAY_ASK_FOR_PATIENCE = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Done:
    """Delivered: complete the message."""


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after *delay* seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Dead-letter the message with *reason*."""

    reason: str


def judge(
    status: int | None, tries: int, *, luck: float, retry_after: float | None = None, most: int = MAX_TRIES
) -> Done | Again | Stop:
    """What a response of *status* (None: none came) to the *tries*-th try (1-based) of at most *most* means.

    *luck* in [0, 1) spreads the tries, so that a crowd does not come back at once. *retry_after*: the pause that the
    receiver asks for, in seconds; heeded with 429 and 503, within bounds.
    """
    if status is not None and 200 <= status < 300:
        return Done()
    if status == 410:
        return Stop(GONE)
    if tries >= most:
        return Stop(FAILED)
    delay = back_off(tries, luck=luck)
    if retry_after is not None and status in _MAY_ASK_FOR_PATIENCE:
        delay = max(delay, min(retry_after, LONGEST_RETRY_AFTER))
    return Again(delay)


def back_off(tries: int, *, luck: float) -> float:
    """Seconds from the *tries*-th try (1-based) to the next: growing, 80 to 120 % of the pause in the module's text."""
    most = 1.0 + SPREAD
    longest = FIRST_DELAY * GROWTH ** (MAX_TRIES - 1)
    return most * backing_off.back_off(
        tries, first=FIRST_DELAY, longest=longest, growth=GROWTH, luck=luck, least=(1.0 - SPREAD) / most
    )


def is_past_trying(delivery_count: int) -> bool:
    """Whether a message was delivered so often that it must have ended those who held it; it is not tried again."""
    return delivery_count > 2 * MAX_TRIES
