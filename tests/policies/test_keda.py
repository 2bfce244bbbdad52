"""What KEDA is told of a pool: times, and signs of work."""

from __future__ import annotations

import pytest

from dumbwaiter.policies.keda import KedaTimes, cold_start_of, is_active, keda_times
from dumbwaiter.policies.scaling import Look, Rules


@pytest.mark.parametrize(
    ("scale_in_after", "idle_after", "cold_start", "told"),
    [
        (60.0, 60.0, 12.0, KedaTimes(15, 60, 300)),
        (400.0, 60.0, 12.0, KedaTimes(15, 60, 400)),
        (60.0, 60.0, 120.5, KedaTimes(15, 121, 362)),
        (60.0, 500.0, 120.0, KedaTimes(15, 500, 360)),
        (60.0, 60.0, 2000.0, KedaTimes(15, 2000, 3600)),
    ],
)
def test_times_are_whole_seconds_and_no_shorter_than_starts_take(scale_in_after, idle_after, cold_start, told):
    assert told == keda_times(
        polling_interval=14.2, scale_in_after=scale_in_after, idle_after=idle_after, cold_start=cold_start
    )


@pytest.mark.parametrize(("told", "seconds"), [(None, 150.0), (0.0, 0.0), (200.0, 200.0)])
def test_a_cold_start_is_as_it_was_told_or_else_a_node_and_what_was_measured(told, seconds):
    assert cold_start_of(told, boot=120.0, measured=30.0) == seconds


@pytest.mark.parametrize(
    ("waiting", "in_flight", "arrived", "least", "has_queue", "active"),
    [
        (0, 0, 0, 0, True, False),
        (1, 0, 0, 0, True, True),
        (0, 1, 0, 0, True, True),
        (0, None, 0, 0, True, True),
        (None, 0, 0, 0, True, True),
        (0, 0, 1, 0, True, True),
        (0, 0, 0, 1, True, True),
        (0, 0, 0, 0, False, True),
    ],
)
def test_only_a_pool_that_is_known_to_have_nothing_to_do_is_inactive(
    waiting, in_flight, arrived, least, has_queue, active
):
    look = Look(waiting, in_flight, 0.0, arrived, 0.2, 3, 0)
    assert is_active(look, Rules(max_replicas=4, min_replicas=least), has_queue=has_queue) is active
