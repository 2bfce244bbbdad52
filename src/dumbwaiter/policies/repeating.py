"""Whether a request that a gateway did not answer is sent again, and when. Pure."""

from __future__ import annotations

from dumbwaiter.policies.backing_off import back_off

FIRST_PAUSE, LAST_PAUSE = 0.25, 8.0
STEADY_AFTER = 15.0
"""A stream of events that lasted for more than so many seconds was alive: proxies between may cut what is quiet."""
TOO_MANY = 429
HOPELESS = frozenset({"model-failing"})
"""Unavailable until a person has done something: the caller hears of it at once."""


def is_worth_another_try(status: int | None, code: str, *, is_unavailable: bool) -> bool:
    """Whether the same request may fare better later, where *status* (None: no response) and *code* say why it failed.

    *is_unavailable*: the gateway could not be reached, hung up, or said that it cannot serve now.
    """
    return status == TOO_MANY or (is_unavailable and code not in HOPELESS)


def is_counted(status: int | None, *, has_patience: bool) -> bool:
    """Whether a failure uses up one of the repetitions. "Not so many at once" does not, as long as patience ends it:
    the gateway works, and the caller's other requests make room.
    """
    return status != TOO_MANY or not has_patience


def pause_before(attempt: int, *, retry_after: float | None, luck: float) -> float:
    """Seconds to wait before *attempt* (1 is the first repetition).

    What the gateway said, and up to a quarter more; else twice as long each time, half of it by *luck* in [0, 1), so
    that a crowd does not come back at once.
    """
    if retry_after is not None:
        return retry_after + luck * min(0.25 * retry_after, 5.0)
    return back_off(attempt, first=FIRST_PAUSE, longest=LAST_PAUSE, luck=luck)


def failures_in_a_row(failures: int, lasted: float) -> int:
    """The new count of streams that broke with nothing new, after one that *lasted* so many seconds."""
    return 1 if lasted > STEADY_AFTER else failures + 1
