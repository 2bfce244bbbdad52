"""How long a wait can be: one batch that runs, one for each model that is before, and what has to be loaded."""

from __future__ import annotations

import math

import msgspec
import pytest
from admission_states import GIB, NOW, runs, scenes, simple_seat, waiting, waits
from hypothesis import given

from dumbwaiter.policies.admission import (
    LONGEST_QUARANTINE,
    POLL_SLICE,
    REACTION,
    RESIDENCY,
    Device,
    can_swap,
    turns_before,
    worst_wait,
)

GPU = Device("cuda:0", 8 * GIB)
STEP = POLL_SLICE + REACTION


def test_among_equals_it_is_the_batch_that_runs_and_one_of_each_other_model():
    seats = {0: waits("a"), 1: runs("b", finish_tag=0.0), 2: waits("c"), 3: simple_seat("idle")}
    assert turns_before(GPU, seats, 0) == 3
    assert worst_wait(GPU, seats, 0, now=NOW) == pytest.approx(4 * (0.1 + STEP))


def test_whoever_has_later_tags_is_not_before():
    seats = {0: waits("a", tag=5.0), 1: runs("b", finish_tag=5.5, clock=5.0), 2: waits("c", tag=5.1, finish_tag=5.3)}
    assert turns_before(GPU, seats, 0) == 0
    assert worst_wait(GPU, seats, 0, now=NOW) == pytest.approx(0.1 + STEP)


def test_whoever_lags_behind_catches_up_first():
    # A batch of 1 GiB beside 1 GiB of weights for 0.1 s: 0.215 GB-seconds.
    seats = {0: waits("a", tag=1.0), 1: waits("b", tag=0.0)}
    assert turns_before(GPU, seats, 0) == 5
    seats[1] = waits("b", tag=0.0, weight=0.5)
    assert turns_before(GPU, seats, 0) == 3


def test_the_workers_of_a_model_come_before_as_often_as_one():
    one = {0: waits("a", tag=1.0), 1: waits("b")}
    two = {**one, 2: simple_seat("b")}
    assert turns_before(GPU, two, 0) == turns_before(GPU, one, 0)


def test_each_load_is_waited_for_once_where_all_fit():
    seats = {0: waits("a", resident=0, load_seconds=2.0), 1: simple_seat("b", resident=0, load_seconds=3.0)}
    assert not can_swap(GPU, seats)
    assert worst_wait(GPU, seats, 0, now=NOW) == pytest.approx(2 * (0.1 + STEP) + 5.0)


def test_where_they_do_not_each_turn_may_swap():
    big = {"full": 4 * GIB, "reload_seconds": 0.5, "park_seconds": 0.2}
    seats = {0: waits("a", resident=GIB // 4, load_seconds=0.5, **big), 1: simple_seat("b", resident=4 * GIB, **big)}
    assert can_swap(GPU, seats)
    assert worst_wait(GPU, seats, 0, now=NOW) == pytest.approx(2 * (0.1 + STEP + 0.5 + RESIDENCY * 0.5 + 0.2))


def test_what_is_slower_than_predicted_takes_longer_in_all():
    seats = {0: waits("a"), 1: simple_seat("b")}
    assert worst_wait(GPU, seats, 0, now=NOW, slowness=2.0) == pytest.approx(4 * (0.1 + POLL_SLICE) + 2 * REACTION)


def test_a_dead_one_adds_the_longest_quarantine_and_no_turn():
    seats = {0: waits("a"), 1: runs("dead")}
    device = Device("cuda:0", 8 * GIB, quarantined={1: NOW})
    assert worst_wait(device, seats, 0, now=NOW) == pytest.approx(0.1 + STEP + LONGEST_QUARANTINE)


def test_there_is_no_bound_while_somebody_is_overdue():
    hung = msgspec.structs.replace(runs("hung"), until=NOW - 5.0, deadline=NOW - 1.0)
    assert worst_wait(GPU, {0: waits("a"), 1: hung}, 0, now=NOW) == math.inf


@given(scenes())
def test_a_bound_is_at_least_a_turn_and_longer_for_a_later_tag(scene):
    device, seats = scene
    for place in waiting(device, seats):
        bound = worst_wait(device, seats, place, now=NOW)
        assert bound > STEP
        later = {**seats, place: msgspec.structs.replace(seats[place], start_tag=seats[place].start_tag + 1.0)}
        assert worst_wait(device, later, place, now=NOW) >= bound
