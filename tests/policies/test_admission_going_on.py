"""Going on with a grant that nobody else needs, keeping one for the next batch, and seeing that somebody needs it."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies import admission
from dumbwaiter.policies.admission import POLLING, RUNNING, Device, Grant, Seat

GIB = 2**30
DEVICE = Device("gpu", 8 * GIB)


def seat(model: str, *, weights: float = 1.0, need: float = 2.0, seconds: float = 0.1, **more: object) -> Seat:
    resident = int(weights * GIB)
    values = {"model": model, "resident": resident, "full": resident, "need": int(need * GIB), "seconds": seconds}
    return Seat(**values | {"longest": seconds} | more)  # type: ignore[arg-type]


def asked(seats: dict[int, Seat], me: int, now: float) -> dict[int, Seat]:
    return seats | {me: admission.ask(seats, me, now)}


def granted(seats: dict[int, Seat], me: int, now: float) -> dict[int, Seat]:
    decision = admission.decide(DEVICE, seats, me, now)
    assert isinstance(decision, Grant)
    return seats | {me: admission.take(seats[me], decision, now)}


def test_nobody_lacks_room_while_all_that_wait_fit_beside_the_others() -> None:
    seats = granted(asked({0: seat("a"), 1: seat("b")}, 0, 0.0), 0, 0.0)
    seats = asked(seats, 1, 0.0)
    assert admission.who_lacks_room(DEVICE, seats, 0, 0.0) is None


def test_somebody_lacks_room_who_does_not_fit_beside_what_is_held() -> None:
    seats = granted(asked({0: seat("a", need=3.5), 1: seat("b", need=3.5)}, 0, 0.0), 0, 0.0)
    seats = asked(seats, 1, 0.0)
    assert admission.who_lacks_room(DEVICE, seats, 0, 0.0) == 1
    assert admission.who_lacks_room(DEVICE, seats, 1, 0.0) is None


def test_a_probe_that_waits_always_lacks_room() -> None:
    seats = granted(asked({0: seat("a"), 1: seat("b")}, 0, 0.0), 0, 0.0)
    seats[1] = admission.ask(seats, 1, 0.0, probes=True)
    assert admission.who_lacks_room(DEVICE, seats, 0, 0.0) == 1


def test_one_that_can_never_run_keeps_nobody_from_going_on() -> None:
    seats = asked({0: seat("a"), 1: seat("huge", weights=9.0)}, 1, 0.0)
    assert admission.who_lacks_room(DEVICE, seats, 0, 0.0) is None


def test_going_on_lasts_one_batch_longer_and_is_charged_like_a_turn() -> None:
    seats = granted(asked({0: seat("a")}, 0, 0.0), 0, 0.0)
    before = seats[0]
    after = admission.go_on(seats, 0, 0.05, 0.1)
    assert after.doing == RUNNING
    assert after.until == pytest.approx(before.until + 0.1)
    assert after.deadline > after.until
    assert after.start_tag == pytest.approx(before.finish_tag)
    assert after.finish_tag - after.start_tag == pytest.approx(admission.charge(before, before.granted, 0.1))


def test_whoever_comes_after_a_long_time_alone_is_not_repaid_for_it() -> None:
    seats = granted(asked({0: seat("a", need=3.5), 1: seat("b", need=3.5)}, 0, 0.0), 0, 0.0)
    for step in range(1000):
        seats[0] = admission.go_on(seats, 0, 0.1 * step, 0.1)
    seats = asked(seats, 1, 100.0)
    seats[0] = admission.give_back(seats[0], 100.0)
    seats = asked(seats, 0, 100.0)
    turns = []
    for _ in range(20):
        me = next(place for place in (0, 1) if isinstance(admission.decide(DEVICE, seats, place, 100.0), Grant))
        seats = granted(seats, me, 100.0)
        turns.append(me)
        seats[me] = admission.give_back(seats[me], 100.0)
        seats = asked(seats, me, 100.0)
    assert 9 <= turns.count(0) <= 11


def test_a_grant_that_is_kept_counts_as_held_and_is_given_up_as_soon_as_somebody_needs_it() -> None:
    seats = granted(asked({0: seat("a", need=3.5), 1: seat("b", need=3.5)}, 0, 0.0), 0, 0.0)
    seats[0] = admission.retain(seats[0], 1.0)
    assert (seats[0].doing, seats[0].granted) == (POLLING, int(3.5 * GIB))
    later = 1.0 + admission.POLL_SLICE
    assert admission.ought_to_yield(DEVICE, seats, 0, later) is None
    seats = asked(seats, 1, later)
    assert "b at place 1 waits for room" in str(admission.ought_to_yield(DEVICE, seats, 0, later))
    assert isinstance(admission.decide(DEVICE, seats, 1, later), admission.Wait)
    seats[0] = admission.give_back(seats[0], later, was_used=False)
    assert isinstance(admission.decide(DEVICE, seats, 1, later), Grant)


def test_keeping_a_grant_notes_the_batch_that_ran_once() -> None:
    seats = granted(asked({0: seat("a")}, 0, 0.0), 0, 0.0)
    once = admission.retain(seats[0], 1.0)
    again = admission.retain(once, 2.0)
    assert once.last_used == again.last_used == 1.0
    assert once.use_rate == again.use_rate > 0.0
    assert again.granted_at == 2.0


@given(st.lists(st.floats(0.001, 5.0), min_size=1, max_size=20), st.floats(0.0, 3.0))
def test_going_on_never_turns_the_clock_back(seconds: list[float], pause: float) -> None:
    seats = granted(asked({0: seat("a"), 1: seat("b")}, 0, 0.0), 0, 0.0)
    now = 0.0
    for each in seconds:
        clock, until = admission.virtual_time(seats), seats[0].until
        seats[0] = admission.go_on(seats, 0, now, each)
        assert admission.virtual_time(seats) >= clock
        assert seats[0].finish_tag > seats[0].start_tag
        assert seats[0].until >= max(until, now)
        assert admission.predicted_end(seats[0], now) < math.inf
        now += pause


def test_what_has_no_seat_is_said_in_a_record_that_old_versions_can_read() -> None:
    old = msgspec.msgpack.encode({"m": "a", "r": 5})
    new = msgspec.msgpack.encode(Seat(model="a", outside=7))
    assert msgspec.msgpack.decode(old, type=Seat).outside == 0
    assert msgspec.msgpack.decode(new, type=Seat).outside == 7
