"""Who may run: never more than there is, in turn, nobody before the head of the line at its cost, and why not."""

from __future__ import annotations

import msgspec
import pytest
from admission_states import GIB, MIB, NOW, held, ladder, runs, scenes, simple_seat, waiting, waits
from hypothesis import assume, given
from hypothesis import strategies as st

from dumbwaiter.policies.admission import (
    LOADING,
    POLLING,
    PROBING,
    STALE,
    Device,
    Grant,
    NeverFits,
    Rung,
    Wait,
    decide,
    ought_to_yield,
    predicted_start,
    take,
)

GPU = Device("cuda:0", 8 * GIB)


def decision(device, seats, place):
    return decide(device, seats, place, NOW, ladder(seats[place]))


def is_granted(device, seats, place):
    return isinstance(decision(device, seats, place), Grant)


# --- memory -------------------------------------------------------------------------------------------------------


@given(scenes())
def test_a_grant_never_over_commits_whatever_stands_in_the_seats(scene):
    device, seats = scene
    for place in waiting(device, seats):
        given_ = decision(device, seats, place)
        if isinstance(given_, Grant):
            assert held(seats) + given_.extra + given_.nbytes <= device.limit


@given(scenes(least_capacity=8), st.randoms(use_true_random=False))
def test_two_that_look_one_after_the_other_never_take_the_same_room(scene, dice):
    device, seats = scene
    order = waiting(device, seats)
    dice.shuffle(order)
    before = held(seats)
    for place in order:
        given_ = decision(device, seats, place)
        if isinstance(given_, Grant):
            seats[place] = take(seats[place], given_, NOW)
    assert held(seats) <= max(device.limit, before)
    living = [seat for place, seat in seats.items() if place not in device.quarantined]
    assert sum(seat.doing == LOADING for seat in living) <= 1
    assert all(seat.doing != PROBING for seat in living) or sum(seat.granted > 0 for seat in living) == 1


@given(scenes())
def test_the_same_seats_give_everybody_the_same_answer(scene):
    device, seats = scene
    other_way_round = dict(sorted(seats.items(), reverse=True))
    for place in waiting(device, seats):
        mine, theirs = decision(device, seats, place), decision(device, other_way_round, place)
        assert type(mine) is type(theirs)
        if not isinstance(mine, NeverFits):
            assert getattr(mine, "nbytes", None) == getattr(theirs, "nbytes", None)
            assert mine.until == theirs.until


def test_the_largest_batch_that_fits_is_taken():
    rungs = [Rung(1, GIB, 0.1), Rung(2, 3 * GIB, 0.15), Rung(4, 7 * GIB, 0.2)]
    grant = decide(GPU, {0: waits()}, 0, NOW, rungs)
    assert grant == Grant(2, 3 * GIB, 0, 0.15, True, NOW + 0.15, pytest.approx(NOW + 1.45))


def test_the_reserve_is_never_given_out():
    assert Device("gpu", 4 * GIB).limit == 4 * GIB - 256 * MIB
    assert Device("gpu", 100 * GIB).limit == 97 * GIB
    assert Device("gpu", 100 * GIB, outside=GIB).limit == 96 * GIB
    assert is_granted(GPU, {0: waits(need=6 * GIB + 767 * MIB)}, 0)
    assert isinstance(decision(GPU, {0: waits(need=6 * GIB + 769 * MIB)}, 0), NeverFits)


def test_weights_and_batch_are_granted_in_one_step():
    seats = {0: waits(resident=0, full=3 * GIB, load_seconds=2.0)}
    grant = decide(GPU, seats, 0, NOW)
    assert (grant.extra, grant.nbytes, grant.until) == (3 * GIB, GIB, NOW + 2.1)
    assert not is_granted(GPU, {**seats, 1: runs(resident=4 * GIB, full=4 * GIB)}, 0)


def test_a_dead_ones_memory_counts_until_it_is_seen_free():
    seats = {0: waits(need=4 * GIB), 1: runs("dead", nbytes=3 * GIB)}
    device = Device("cuda:0", 8 * GIB, quarantined={1: NOW - 0.5})
    wait = decide(device, seats, 0, NOW)
    assert wait.until == NOW + 0.5
    assert "dead (place 1) holds 4.00 GiB, its process died 0.5 s ago and the memory is not free yet" in wait.reason
    assert is_granted(GPU, {0: seats[0]}, 0)


# --- the line -----------------------------------------------------------------------------------------------------


@given(scenes(least_capacity=6))
def test_no_grant_beside_the_head_delays_it(scene):
    device, seats = scene
    before = predicted_start(device, seats, NOW)
    for place in waiting(device, seats):
        given_ = decision(device, seats, place)
        if isinstance(given_, Grant) and place != before[0]:
            after = predicted_start(device, {**seats, place: take(seats[place], given_, NOW)}, NOW)
            assert after[0] == before[0]
            assert after[1] <= before[1] + 1e-6


@given(scenes(least_capacity=6))
def test_the_head_of_the_line_runs_as_soon_as_it_fits(scene):
    device, seats = scene
    first = predicted_start(device, seats, NOW)
    assume(first is not None)
    assert is_granted(device, seats, first[0]) or not is_startable(device, seats, first[0])


def has_just_died(device):
    return any(since + 10.0 > NOW for since in device.quarantined.values())


def is_startable(device, seats, place):
    seat = seats[place]
    others = [other for at, other in seats.items() if at not in device.quarantined]
    doings = {other.doing for other in others}
    return (
        seat.doing == "idle"
        and held(seats) + seat.extra + seat.need <= device.limit
        and PROBING not in doings
        and not (seat.load_seconds and LOADING in doings)
        and not (seat.probes and (any(other.granted for other in others) or has_just_died(device)))
    )


def test_those_behind_get_what_those_ahead_leave():
    seats = {0: waits("a", tag=1.0, need=2 * GIB), 1: waits("b", tag=2.0, need=3 * GIB)}
    seats[2] = waits("c", tag=3.0, need=2 * GIB, seconds=9.0)
    assert [is_granted(GPU, seats, place) for place in seats] == [True, False, False]
    seats[1] = waits("b", tag=2.0, need=2 * GIB)
    assert [is_granted(GPU, seats, place) for place in seats] == [True, True, False]
    # Three times 1 GiB of weights, 4 GiB for the two ahead: 768 MiB are left.
    seats[2] = waits("c", tag=3.0, need=700 * MIB)
    assert [is_granted(GPU, seats, place) for place in seats] == [True, True, True]


def test_beside_the_head_goes_what_has_ended_when_it_can_start():
    seats = {0: runs("long", nbytes=3 * GIB, seconds=1.0), 1: waits("head", need=4 * GIB)}
    assert is_granted(GPU, {**seats, 2: waits("quick", tag=9.0, seconds=0.9)}, 2)
    assert not is_granted(GPU, {**seats, 2: waits("slow", tag=9.0, seconds=1.1)}, 2)


def test_beside_the_head_goes_what_it_does_not_need():
    # When the long one has ended, 8 GiB less 3 of weights, 256 MiB and the head's 4 leave 768 MiB.
    seats = {0: runs("long", nbytes=3 * GIB, seconds=1.0), 1: waits("head", need=4 * GIB)}
    assert is_granted(GPU, {**seats, 2: waits("slow", tag=9.0, need=700 * MIB, seconds=60.0)}, 2)


def test_a_smaller_batch_may_go_beside_the_head_where_a_larger_one_may_not():
    seats = {0: runs("long", nbytes=3 * GIB, seconds=1.0), 1: waits("head", need=4 * GIB), 2: waits("c", tag=9.0)}
    grant = decide(GPU, seats, 2, NOW, [Rung(1, GIB, 0.1), Rung(2, GIB, 2.0)])
    assert (grant.size, grant.in_turn) == (1, False)


def test_a_batch_that_is_late_may_end_at_any_moment_so_nobody_goes_beside_the_head():
    late = msgspec.structs.replace(runs("late", nbytes=3 * GIB), until=NOW - 0.1)
    seats = {0: late, 1: waits("head", need=4 * GIB), 2: waits("quick", tag=9.0, seconds=0.001)}
    assert not is_granted(GPU, seats, 2)


def test_a_batch_that_is_overdue_keeps_its_memory_and_others_need_not_stand_still_for_it():
    overdue = msgspec.structs.replace(runs("hung", nbytes=3 * GIB), until=NOW - 5.0, deadline=NOW - 1.0)
    seats = {0: overdue, 1: waits("head", need=4 * GIB), 2: waits("other", tag=9.0, seconds=9.0)}
    assert is_granted(GPU, seats, 2)
    assert "hung (place 0) holds 4.00 GiB, running, overdue for 5.0 s" in decide(GPU, seats, 1, NOW).reason


def test_whoever_has_stopped_looking_is_passed_over_until_it_looks_again():
    asleep = waits("asleep", need=5 * GIB, looked_at=NOW - STALE - 0.1)
    seats = {0: asleep, 1: waits("b", tag=9.0, need=5 * GIB)}
    assert is_granted(GPU, seats, 1)
    assert is_granted(GPU, seats, 0), "it looks itself now"
    seats[0] = msgspec.structs.replace(asleep, looked_at=NOW - STALE + 0.1)
    assert not is_granted(GPU, seats, 1)


def test_whoever_can_never_run_holds_nobody_up():
    seats = {0: waits("huge", need=9 * GIB), 1: waits("b", tag=9.0)}
    assert is_granted(GPU, seats, 1)


def test_loads_are_one_after_the_other():
    cold = {"resident": 0, "load_seconds": 2.0, "need": MIB}
    loading = msgspec.structs.replace(runs("a", nbytes=MIB, seconds=2.0), doing=LOADING, load_seconds=1.5)
    seats = {0: loading, 1: waits("b", **cold)}
    assert decide(GPU, seats, 1, NOW).until == NOW + 1.5
    assert is_granted(GPU, {0: loading, 1: waits("b", need=MIB)}, 1)
    seats = {0: waits("a", **cold), 1: waits("b", tag=1.0, **cold)}
    assert [is_granted(GPU, seats, place) for place in seats] == [True, False]


def test_a_probe_has_the_device_to_itself():
    probe = waits("new", resident=0, load_seconds=1.0, probes=True, need=MIB)
    assert decide(GPU, {0: probe, 1: simple_seat("idle")}, 0, NOW).nbytes == 8 * GIB - 256 * MIB - 2 * GIB
    seats = {0: runs("b", nbytes=MIB, seconds=0.5), 1: probe, 2: waits("c", tag=9.0, need=MIB, seconds=0.4)}
    assert not is_granted(GPU, seats, 1)
    assert is_granted(GPU, seats, 2), "it has ended when the other one has"
    seats[2] = waits("c", tag=9.0, need=MIB, seconds=0.6)
    assert not is_granted(GPU, seats, 2)
    probing = msgspec.structs.replace(runs("b", nbytes=MIB), doing=PROBING, probes=True)
    assert not is_granted(GPU, {0: probing, 1: waits("c", need=MIB)}, 1)
    dead = Device("cuda:0", 8 * GIB, quarantined={0: NOW - 0.5})
    assert not is_granted(dead, {0: simple_seat("dead"), 1: probe}, 1), "it would see the memory go"


# --- polling ------------------------------------------------------------------------------------------------------


def polls(model="poller", *, since, **settings):
    return simple_seat(model, doing=POLLING, polls=True, granted=GIB, granted_at=since, until=NOW + 60.0, **settings)


def test_whoever_only_polls_gives_way_after_its_slice_to_anybody_who_lacks_the_room():
    seats = {0: polls(since=NOW - 1.0), 1: waits("b", need=5 * GIB)}
    assert ought_to_yield(GPU, seats, 0, NOW) == "poller only polls; b at place 1 waits for room on cuda:0"
    assert ought_to_yield(GPU, {0: polls(since=NOW - 0.001), 1: seats[1]}, 0, NOW) is None
    assert ought_to_yield(GPU, {0: seats[0], 1: waits("b", need=4 * GIB)}, 0, NOW) is None
    assert ought_to_yield(GPU, {0: seats[0], 1: waits("b", need=MIB, probes=True)}, 0, NOW) is not None
    assert ought_to_yield(GPU, {0: runs("a"), 1: seats[1]}, 0, NOW) is None
    assert ought_to_yield(GPU, {0: seats[0], 1: waits("huge", need=9 * GIB)}, 0, NOW) is None


def test_two_pollers_that_exclude_each_other_take_turns():
    seats = {0: polls("a", since=NOW - 1.0), 1: waits("b", need=5 * GIB, polls=True)}
    assert ought_to_yield(GPU, seats, 0, NOW) is not None


# --- errors and reasons -------------------------------------------------------------------------------------------


def test_what_never_fits_is_an_error_with_its_figures_and_the_next_step():
    seats = {0: waits("big", need=7 * GIB), 1: simple_seat("other")}
    refusal = decide(GPU, seats, 0, NOW)
    assert refusal.reason == (
        "big does not fit on cuda:0: it needs 1.00 GiB loaded and 7.00 GiB for a batch, and of 7.75 GiB "
        "that can be given out (capacity 8.00 GiB) the contexts of other processes and leaks keep 256 MiB; give it a "
        "device of its own or a larger one, stop other workers there, or make its inputs smaller"
    )
    assert (refusal.needed, refusal.limit) == (8 * GIB, 8 * GIB - 256 * MIB)


def test_what_leaks_for_good_makes_an_error_of_a_wait():
    seats = {0: waits("a", need=4 * GIB), 1: runs("dead", nbytes=3 * GIB)}
    assert isinstance(decision(Device("gpu", 8 * GIB, quarantined={1: NOW - 9.0}), seats, 0), Wait)
    assert isinstance(decision(Device("gpu", 8 * GIB, quarantined={1: NOW - 11.0}), seats, 0), NeverFits)


@given(scenes())
def test_it_is_an_error_only_if_no_parking_could_help(scene):
    device, seats = scene
    for place in waiting(device, seats):
        if isinstance(decision(device, seats, place), NeverFits):
            leaked = {at for at, since in device.quarantined.items() if NOW - since > 10.0}
            alone = {
                at: seat for at, seat in seats.items() if at == place or at in leaked or at not in device.quarantined
            }
            kept = sum(
                seat.resident + seat.granted if at in leaked else min(seat.resident, seat.parked)
                for at, seat in alone.items()
                if at != place
            )
            assert kept + seats[place].full + seats[place].need > device.limit


@given(scenes(least_capacity=12))
def test_a_reason_names_who_holds_most_whose_turn_it_is_and_what_is_missing(scene):
    device, seats = scene
    for place in waiting(device, seats):
        wait = decision(device, seats, place)
        if isinstance(wait, Wait):
            others = {at: seat.resident + seat.granted for at, seat in seats.items() if at != place}
            most = max(others.values(), default=0)
            if most:
                assert any(f"(place {at}) holds" in wait.reason for at, nbytes in others.items() if nbytes == most)
            assert wait.reason.startswith(f"{seats[place].model} waits for ")
            assert wait.reason.endswith("first in line")


def test_a_reason_reads_as_a_sentence():
    seats = {0: runs("small", nbytes=2 * GIB, seconds=0.4), 1: waits("big", need=5 * GIB), 2: simple_seat("idle")}
    seats[3] = waits("late", tag=9.0, resident=GIB // 4, need=3 * GIB)
    assert decide(GPU, seats, 3, NOW).reason == (
        "late waits for 768 MiB for its weights and 3.00 GiB for a batch: 2.50 GiB of 7.75 GiB are free for "
        "it on cuda:0; small (place 0) holds 3.00 GiB, running for 0.40 s more; idle (place 2) holds 1.00 GiB, idle; "
        "big (place 1) holds 1.00 GiB, idle; big (place 1) is first in line"
    )


def test_whoever_has_not_asked_gets_no_answer():
    with pytest.raises(ValueError, match=r"a at place 0 has not asked for a grant; write ask\(\) into its seat first"):
        decide(GPU, {0: simple_seat()}, 0, NOW)
