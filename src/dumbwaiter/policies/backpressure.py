"""Whether a request that comes now can still be answered in time. Pure.

The work ahead of it, in seconds of one device, over the workers that share it: Little's law, with the service time that
the workers measure. Between two looks at the queue the estimate goes on: what was sent since is added, and what the
workers do in that time is taken off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


SAFE_PART = 0.9
"""Work that is expected to fill more than this part of a caller's patience is refused: under overload the queue stays
at the edge, and there every second estimate would be too short.
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one look at a queue and its workers showed: messages *ahead* of the next one, waiting or being run; the
    ready workers, each with the seconds that one input takes it (*seconds_each*; 0.0: not measured yet).
    """

    ahead: int
    seconds_each: Sequence[float]


def inputs_a_second(seconds_each: Sequence[float]) -> float | None:
    """What all workers do together; None while there is none, or none has measured. One that has not yet counts as
    the mean of those that have.
    """
    measured = [1.0 / seconds for seconds in seconds_each if seconds > 0.0]
    return sum(measured) / len(measured) * len(seconds_each) if measured else None


def expected_wait(load: Load, *, sent_since: int, elapsed: float) -> float | None:
    """Seconds until a request that comes now would be begun: *elapsed* seconds after the look, in which *sent_since*
    further ones were sent. None when nobody can tell.
    """
    rate = inputs_a_second(load.seconds_each)
    if rate is None:
        return None
    return max(load.ahead + sent_since - elapsed * rate, 0.0) / rate


def seconds_until_it_fits(load: Load, *, patience: float, sent_since: int, elapsed: float) -> float | None:
    """None: let it in. Else the seconds after which a request of *patience* seconds would be answered in time, when
    no other comes before it.

    An idle model is always asked, whatever it is thought to take: only so a wrong measurement is ever corrected.
    """
    wait = expected_wait(load, sent_since=sent_since, elapsed=elapsed)
    if not wait:
        return None
    measured = [seconds for seconds in load.seconds_each if seconds > 0.0]
    over = wait + sum(measured) / len(measured) - patience * SAFE_PART
    return None if over <= 0.0 else min(over, wait)
