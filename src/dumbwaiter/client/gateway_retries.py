"""Whether a request that a gateway did not answer is sent again, and when. Pure."""

from __future__ import annotations

from dumbwaiter.errors import AccessError, GatewayError, GatewayUnavailableError

FIRST_PAUSE, LAST_PAUSE = 0.25, 8.0
TOO_MANY = 429
HOPELESS = frozenset({"model-failing"})
"""Unavailable until a person has done something: the caller hears of it at once."""


def is_worth_another_try(error: Exception) -> bool:
    """Whether the same request may fare better later."""
    if not isinstance(error, GatewayError) or isinstance(error, AccessError):
        return False
    return error.status == TOO_MANY or (isinstance(error, GatewayUnavailableError) and error.code not in HOPELESS)


def is_counted(error: GatewayError, *, has_patience: bool) -> bool:
    """Whether *error* uses up one of the repetitions. "Not so many at once" does not, as long as patience ends it: the
    gateway works, and the caller's other requests make room.
    """
    return error.status != TOO_MANY or not has_patience


def pause_before(attempt: int, *, retry_after: float | None, luck: float) -> float:
    """Seconds to wait before *attempt* (1 is the first repetition).

    What the gateway said, and up to a quarter more; else twice as long each time, half of it by *luck* in [0, 1), so
    that a crowd does not come back at once.
    """
    if retry_after is not None:
        return retry_after + luck * min(0.25 * retry_after, 5.0)
    return min(FIRST_PAUSE * 2.0 ** (attempt - 1), LAST_PAUSE) * (0.5 + 0.5 * luck)
