"""How long to wait before the next try of what has failed. Pure."""

from __future__ import annotations

_FURTHEST = 64
"""Powers beyond this one are all the same to any limit, and too large for a float in the end."""


def back_off(
    attempt: int, *, first: float, longest: float, growth: float = 2.0, luck: float = 1.0, least: float = 0.5
) -> float:
    """Seconds before the next try after the *attempt*-th (1-based): *first*, and *growth* times as long each time, but
    never more than *longest*.

    *luck* in [0, 1) takes off up to the part that *least* leaves, so that a crowd does not come back at once: 0.5 means
    50 to 100 % of the pause. Without luck it is the whole pause.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (its "equal jitter").
    """
    pause = min(longest, first * growth ** min(max(attempt, 1) - 1, _FURTHEST))
    return float(pause * (least + (1.0 - least) * luck))
