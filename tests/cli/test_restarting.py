"""When a dead child is started again, and when not."""

from __future__ import annotations

from dumbwaiter.cli.restarting import (
    GIVE_UP_AFTER,
    LONGEST_DELAY,
    deaths_in_a_row,
    is_hopeless,
    restart_delay,
)


def test_delays_double_up_to_a_limit():
    assert [restart_delay(deaths) for deaths in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert restart_delay(500) == LONGEST_DELAY


def test_a_long_life_forgives_earlier_deaths():
    assert deaths_in_a_row(7, uptime=3.0) == 8
    assert deaths_in_a_row(7, uptime=600.0) == 1


def test_one_that_was_ready_once_is_always_started_again():
    assert not is_hopeless(exit_code=1, deaths=1000, ever_ready=True)


def test_one_that_was_never_ready_is_given_up_on_at_once_for_wrong_usage_and_later_for_anything():
    assert is_hopeless(exit_code=2, deaths=1, ever_ready=False)
    assert not is_hopeless(exit_code=1, deaths=GIVE_UP_AFTER - 1, ever_ready=False)
    assert is_hopeless(exit_code=-11, deaths=GIVE_UP_AFTER, ever_ready=False)
