"""A seat says what its owner does, in few bytes that other versions can read; tags give turns by weight."""

from __future__ import annotations

import math

import msgspec
import pytest
from admission_states import GIB, NOW, runs, seat_states, simple_seat, waits
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.admission import (
    HALF_LIFE,
    IDLE,
    LOADING,
    PARKING,
    POLL_SLICE,
    POLLING,
    PROBING,
    RUNNING,
    Device,
    Grant,
    Seat,
    ask,
    begin_to_park,
    charge,
    decide,
    found_work,
    give_back,
    is_overdue,
    loaded,
    looked,
    parked,
    predicted_end,
    take,
    use_rate,
    virtual_time,
    withdraw,
)

GPU = Device("cuda:0", 8 * GIB)


# --- the record ---------------------------------------------------------------------------------------------------


@given(seat_states(), st.floats(1e8, 1e10), st.integers(2**40, 2**50))
def test_a_record_fits_into_512_bytes_and_comes_back_the_same(seat, tag, nbytes):
    seat = msgspec.structs.replace(
        seat, model="m" * 80, start_tag=tag, finish_tag=tag, clock=tag, full=nbytes, resident=nbytes, need=nbytes
    )
    record = msgspec.msgpack.encode(seat)
    assert len(record) <= 512
    assert msgspec.msgpack.decode(record, type=Seat) == seat


def test_even_one_with_all_fields_does():
    every = {
        name: 2**50 + 1 if isinstance(value, int) else 0.1 for name, value in msgspec.structs.asdict(Seat()).items()
    }
    seat = Seat(**{**every, "model": "m" * 80, "doing": PROBING, "polls": True, "probes": True, "asked_at": 0.1})
    assert len(msgspec.msgpack.encode(seat)) <= 400


def test_a_record_of_a_newer_or_older_version_is_read():
    class Newer(Seat, frozen=True, kw_only=True):
        colour: str = "green"

    newer = Newer(model="a", need=5, colour="blue")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(newer), type=Seat) == Seat(model="a", need=5)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Seat(model="a")), type=Newer) == Newer(model="a")


# --- tags ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_charged_all_it_occupies_while_it_runs_by_weight():
    seat = simple_seat(full=10**9, weight=2.0)
    assert charge(seat, 3 * 10**9, 0.5) == 1.0


def test_whoever_was_idle_has_saved_nothing():
    seats = {0: runs("busy", clock=100.0, finish_tag=105.0), 1: simple_seat("idle", finish_tag=3.0)}
    assert ask(seats, 1, NOW).start_tag == 100.0


def test_whoever_goes_on_begins_where_its_batch_before_has_ended():
    seats = {0: simple_seat("busy", clock=100.0, finish_tag=105.0)}
    assert ask(seats, 0, NOW).start_tag == 105.0


def test_the_workers_of_a_model_have_one_share_between_them():
    seats = {0: runs("a", clock=1.0, finish_tag=2.0), 1: simple_seat("a"), 2: simple_seat("a"), 3: simple_seat("b")}
    seats[1] = ask(seats, 1, NOW)
    assert seats[1].start_tag == 2.0
    assert ask(seats, 2, NOW).start_tag == seats[1].finish_tag > 2.0
    assert ask(seats, 3, NOW).start_tag == 1.0


def test_the_clock_does_not_go_back_when_whoever_was_served_last_is_gone():
    seats = {0: runs("gone", clock=100.0), 1: simple_seat("b")}
    seats[1] = ask(seats, 1, NOW)
    del seats[0]
    assert virtual_time(seats) == 100.0


@given(st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=2, max_size=4), st.integers(50, 200))
def test_those_that_exclude_each_other_are_served_by_weight(weights, turns):
    seats = {
        place: simple_seat(str(place), weight=weight, resident=0, full=0, parked=0, need=5 * GIB)
        for place, weight in enumerate(weights)
    }
    now, served = NOW, dict.fromkeys(seats, 0.0)
    for place in seats:
        seats[place] = ask(seats, place, now)
    for _ in range(turns):
        first = min(seats, key=lambda place: (seats[place].start_tag, seats[place].asked_at, place))
        grant = decide(GPU, {at: looked(seat, now) for at, seat in seats.items()}, first, now)
        assert isinstance(grant, Grant)
        seats[first] = take(seats[first], grant, now)
        now += grant.seconds
        served[first] += charge(seats[first], grant.nbytes, grant.seconds)
        seats[first] = give_back(seats[first], now)
        seats[first] = ask(seats, first, now)
    one_batch = [charge(seat, seat.need, seat.seconds) for seat in seats.values()]
    assert max(served.values()) - min(served.values()) <= sum(sorted(one_batch)[-2:]) + 1e-6


def test_what_ran_beside_the_head_is_not_charged():
    seats = {0: waits("a", tag=7.0, clock=5.0)}
    beside = take(seats[0], Grant(1, GIB, 0, 0.1, False, NOW + 0.1, NOW + 1.0), NOW)
    assert (beside.finish_tag, beside.clock) == (7.0, 5.0)
    in_turn = take(seats[0], Grant(1, GIB, 0, 0.1, True, NOW + 0.1, NOW + 1.0), NOW)
    assert in_turn.finish_tag == 7.0 + charge(seats[0], GIB, 0.1)
    assert in_turn.clock == 7.0


def test_a_probe_is_not_charged():
    seats = {0: simple_seat("a", finish_tag=5.0)}
    seats[0] = ask(seats, 0, NOW, probes=True)
    assert seats[0].finish_tag == 5.0
    assert take(seats[0], decide(GPU, seats, 0, NOW), NOW).finish_tag == 5.0


# --- what a seat goes through -------------------------------------------------------------------------------------


def test_a_batch_of_one_that_must_load_first():
    seats = {0: simple_seat("a", resident=0, load_seconds=2.0)}
    seats[0] = ask(seats, 0, NOW)
    assert seats[0].asked_at == NOW
    seat = take(seats[0], decide(GPU, seats, 0, NOW), NOW)
    assert (seat.doing, seat.asked_at, seat.resident, seat.granted) == (LOADING, None, GIB, GIB)
    assert seat.resident_since == NOW + 2.0
    seat = loaded(seat, NOW + 1.5)
    assert (seat.doing, seat.load_seconds, seat.resident_since) == (RUNNING, 0.0, NOW + 1.5)
    seat = give_back(seat, NOW + 1.6)
    assert (seat.doing, seat.granted, seat.resident, seat.last_used) == (IDLE, 0, GIB, NOW + 1.6)


def test_a_poll_that_finds_something_goes_on_with_its_grant():
    seats = {0: ask({0: simple_seat("a")}, 0, NOW, polls=True)}
    seat = take(seats[0], decide(GPU, seats, 0, NOW), NOW)
    assert (seat.doing, predicted_end(seat, NOW)) == (POLLING, NOW + POLL_SLICE)
    assert predicted_end(seat, NOW + 5.0) == NOW + 5.0, "from then on anybody can have it"
    seat = found_work(seat, NOW + 5.0)
    assert (seat.doing, seat.granted, seat.until) == (RUNNING, GIB, NOW + 5.1)


def test_a_poll_that_finds_nothing_is_no_use():
    seat = simple_seat("a", doing=POLLING, polls=True, granted=GIB, use_rate=0.5, last_used=NOW - 9.0)
    seat = give_back(seat, NOW, was_used=False)
    assert (seat.doing, seat.polls, seat.use_rate, seat.last_used) == (IDLE, False, 0.5, NOW - 9.0)


def test_parking_keeps_its_memory_until_that_is_free_and_its_ticket():
    seat = begin_to_park(waits("a"), NOW)
    assert (seat.doing, seat.resident, predicted_end(seat, NOW)) == (PARKING, GIB, NOW + 0.1)
    seat = parked(seat)
    assert (seat.doing, seat.resident, seat.extra) == (IDLE, GIB // 4, GIB - GIB // 4)
    assert seat.load_seconds == seat.reload_seconds
    assert seat.asked_at is not None


def test_nobody_is_parked_while_it_runs():
    with pytest.raises(ValueError, match="a is running; park it when that has ended"):
        begin_to_park(runs("a"), NOW)


def test_nobody_waits_while_it_holds_a_grant():
    with pytest.raises(ValueError, match="a at place 0 already waits or holds a grant; give it back first"):
        ask({0: runs("a")}, 0, NOW)


def test_a_ticket_that_is_withdrawn_costs_nothing():
    seat = withdraw(waits("a", tag=5.0, finish_tag=6.0))
    assert (seat.asked_at, seat.finish_tag) == (None, 5.0)


def test_a_grant_is_late_first_and_then_overdue():
    seat = runs("a", seconds=1.0)
    assert predicted_end(seat, NOW + 0.5) == NOW + 1.0
    assert predicted_end(seat, NOW + 2.0) == NOW + 2.0
    assert predicted_end(seat, NOW + 4.5) == math.inf
    assert [is_overdue(seat, NOW + after) for after in (0.5, 2.0, 4.5)] == [False, False, True]


def test_how_often_a_seat_is_used_fades():
    seat = give_back(runs("a"), NOW)
    assert use_rate(seat, NOW + HALF_LIFE) == pytest.approx(seat.use_rate / 2)
    for second in range(1, 3000):
        seat = give_back(seat, NOW + second)
    assert seat.use_rate == pytest.approx(1.0, rel=0.05), "once a second"
