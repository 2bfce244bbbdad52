"""Who has to leave: idle ones only, for the head of the line only, the least valuable, and no more than it needs."""

from __future__ import annotations

import itertools

import msgspec
from admission_states import GIB, MIB, NOW, runs, scenes, simple_seat, waits
from hypothesis import given

from dumbwaiter.policies.admission import (
    IDLE,
    PARKING,
    RESIDENCY,
    Device,
    begin_to_park,
    ought_to_park,
    predicted_start,
)

GPU = Device("cuda:0", 8 * GIB)


def leaving(device, seats):
    """The places of all who are told to park."""
    return {
        place
        for place in seats
        if place not in device.quarantined and ought_to_park(device, seats, place, NOW) is not None
    }


def missing_beside(device, seats, head):
    """What the head lacks even when all that runs, is being parked or has died just now is over."""
    kept = 0
    for place, seat in seats.items():
        if place in device.quarantined:
            is_expected = device.quarantined[place] + 1.0 > NOW
            kept += 0 if is_expected else seat.resident + seat.granted
        elif seat.doing == PARKING and seat.deadline >= NOW:
            kept += min(seat.resident, seat.parked)
        else:
            is_hung = seat.granted and seat.doing != "polling" and max(seat.deadline, seat.until) < NOW
            kept += seat.resident + (seat.granted if is_hung else 0)
    seat = seats[head]
    now_has = seat.resident if seat.doing != PARKING else min(seat.resident, seat.parked)
    return kept + (seat.full - now_has if seat.full > now_has else 0) + seat.need - device.limit


@given(scenes())
def test_nobody_leaves_who_need_not(scene):
    device, seats = scene
    leave = leaving(device, seats)
    if not leave:
        return
    head, _ = predicted_start(device, seats, NOW)
    assert head not in leave
    missing = missing_beside(device, seats, head)
    freed = {place: seats[place].resident - seats[place].parked for place in leave}
    assert missing > 0
    assert sum(freed.values()) >= missing, "it is enough"
    assert all(sum(freed.values()) - one < missing for one in freed.values()), "and without any of them it is not"
    for place in leave:
        assert seats[place].doing == IDLE
        assert NOW - seats[place].resident_since >= RESIDENCY * seats[place].reload_seconds


@given(scenes())
def test_the_others_still_have_to_leave_when_one_of_them_has_begun_to(scene):
    device, seats = scene
    leave = leaving(device, seats)
    for place in leave:
        after = {**seats, place: begin_to_park(seats[place], NOW)}
        assert leaving(device, after) == leave - {place}


@given(scenes())
def test_nobody_leaves_while_nobody_waits(scene):
    device, seats = scene
    idle = {place: msgspec.structs.replace(seat, asked_at=None) for place, seat in seats.items()}
    assert leaving(device, idle) == set()


def test_the_cheapest_to_load_and_least_used_leaves_first():
    costs = {1: (0.1, 1.0), 2: (1.0, 0.01), 3: (0.2, 1.0)}
    for order in itertools.permutations(costs):
        seats = {0: waits("head", need=5 * GIB)}
        for place in order:
            reload_seconds, rate = costs[place]
            seats[place] = simple_seat(str(place), reload_seconds=reload_seconds, use_rate=rate, last_used=NOW)
        assert leaving(GPU, seats) == {1, 2}


def test_one_that_was_used_often_long_ago_is_worth_little():
    seats = {
        0: waits("head", need=5 * GIB),
        1: simple_seat("once popular", use_rate=10.0, last_used=NOW - 900.0),
        2: simple_seat("used", use_rate=0.1, last_used=NOW),
    }
    assert leaving(GPU, seats) == {1}


def test_one_too_many_stays_even_if_it_is_the_least_valuable():
    small = simple_seat("small", resident=300 * MIB, full=300 * MIB, use_rate=0.1)
    seats = {
        0: waits("head", need=5 * GIB),
        1: small,
        2: simple_seat("b", resident=3 * GIB, full=3 * GIB, use_rate=1.0),
    }
    assert leaving(GPU, seats) == {2}


def test_batches_are_waited_for_rather_than_weights_evicted():
    seats = {0: waits("head", need=4 * GIB), 1: runs("b", nbytes=3 * GIB), 2: simple_seat("idle")}
    assert leaving(GPU, seats) == set()


def test_the_memory_of_one_that_just_died_is_waited_for_for_a_second():
    seats = {0: waits("head", need=4 * GIB), 1: runs("dead", nbytes=3 * GIB), 2: simple_seat("idle")}
    seats[2] = simple_seat("idle", resident=4 * GIB, full=4 * GIB)
    seats[0] = waits("head", need=2 * GIB)
    assert leaving(Device("gpu", 8 * GIB, quarantined={1: NOW - 0.5}), seats) == set()
    assert leaving(Device("gpu", 8 * GIB, quarantined={1: NOW - 1.5}), seats) == {2}


def test_nobody_leaves_soon_after_it_was_loaded():
    seats = {0: waits("head", need=6 * GIB), 1: simple_seat("b", reload_seconds=1.0, resident_since=NOW - 4.9)}
    assert leaving(GPU, seats) == set()
    seats[1] = msgspec.structs.replace(seats[1], resident_since=NOW - 5.0)
    assert leaving(GPU, seats) == {1}


def test_nobody_leaves_before_all_can_that_must():
    busy = runs("busy", resident_since=0.0)
    seats = {0: waits("head", need=6 * GIB), 1: simple_seat("idle"), 2: busy}
    assert leaving(GPU, seats) == set()
    seats[2] = msgspec.structs.replace(busy, until=NOW - 0.05)
    assert leaving(GPU, seats) == set(), "it is late, and runs"
    seats[2] = simple_seat("was busy")
    assert leaving(GPU, seats) == {1, 2}


def test_only_the_head_of_the_line_makes_others_leave():
    seats = {0: runs("a", nbytes=6 * GIB), 1: waits("head", tag=1.0), 2: waits("second", tag=2.0, need=6 * GIB)}
    assert leaving(GPU, seats) == set()


def test_one_is_told_for_whom_it_leaves():
    seats = {0: waits("head", need=6 * GIB), 1: simple_seat("b")}
    assert ought_to_park(GPU, seats, 1, NOW) == (
        "b is parked: head at place 0 is first in line on cuda:0, does not fit beside it, and nothing that is idle "
        "there costs less to load again"
    )
