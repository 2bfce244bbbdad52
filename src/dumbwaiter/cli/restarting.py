"""When a dead child is started again. Pure: the clock belongs to supervisor.py."""

from __future__ import annotations

from dumbwaiter.policies.backing_off import back_off

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
STEADY_AFTER = 60.0
"""A child that ran this many seconds has earned a fresh count of deaths."""
GIVE_UP_AFTER = 5
"""Deaths in a row of a child that was never ready: nothing suggests that it ever will be."""
USAGE = 2
"""The exit code of wrong usage or settings, which no restart repairs."""


def deaths_in_a_row(deaths: int, uptime: float) -> int:
    """The new count after a death that followed *uptime* seconds of life."""
    return 1 if uptime >= STEADY_AFTER else deaths + 1


def restart_delay(deaths: int) -> float:
    """Seconds to wait after the n-th death in a row: 0.5, 1, 2, ... 30."""
    return back_off(deaths, first=FIRST_DELAY, longest=LONGEST_DELAY)


def is_hopeless(*, exit_code: int, deaths: int, ever_ready: bool) -> bool:
    """Whether starting it again cannot help."""
    return not ever_ready and (exit_code == USAGE or deaths >= GIVE_UP_AFTER)
