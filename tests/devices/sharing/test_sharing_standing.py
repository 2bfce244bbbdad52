"""What a worker says in its seat and asks for, by what is known of its model."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from sharing_parts import GIB, MIB, WALL
from tenants import CONTEXT, PARKED, footprint

from dumbwaiter.devices.sharing.standing import WORTHWHILE, Knowledge, introduced
from dumbwaiter.policies.admission import Rung, Seat
from dumbwaiter.policies.footprints import Measured


def known(measured=None, **how):
    return Knowledge(model="m", weight=2.0, declared=None, **{"footprint": measured, "most": GIB, **how})


def batches(*seconds, need=100):
    """A footprint of batches of 1, 2, 4 ... that take so many seconds."""
    sizes = {1 << place: Measured(need * MIB << place, one, WALL) for place, one in enumerate(seconds)}
    return msgspec.structs.replace(footprint(), batches={"": sizes})


# --- ladders ------------------------------------------------------------------------------------------------------


def test_batches_whose_inputs_take_much_longer_each_than_in_the_best_are_not_worth_asking_for():
    knowledge = known(batches(0.1, 0.11, 0.2), target=4, takes_one=False)
    assert [rung.size for rung in knowledge.all(4, WALL)] == [1, 2, 4]
    assert [rung.size for rung in knowledge.ladder(4, WALL)] == [2, 4]
    best = min(rung.seconds / rung.size for rung in knowledge.all(4, WALL))
    assert all(rung.seconds / rung.size <= WORTHWHILE * best for rung in knowledge.ladder(4, WALL))


def test_for_one_input_a_batch_of_one_is_worth_it():
    knowledge = known(batches(0.1, 0.11, 0.2), target=4, takes_one=False)
    assert [rung.size for rung in knowledge.ladder(1, WALL)] == [1]


def test_for_more_than_the_batch_worth_aiming_at_several_of_those_are_asked_for_in_one_after_the_other():
    knowledge = known(batches(0.1, 0.2, 0.4), target=2, takes_one=False)
    assert [rung.size for rung in knowledge.ladder(2, WALL)] == [1, 2]
    batch, several = knowledge.ladder(5, WALL)[-2:]
    assert (several.size, several.nbytes) == (5, batch.nbytes)
    assert several.seconds == pytest.approx(3 * batch.seconds)


def test_what_the_device_never_has_is_not_asked_for_while_something_smaller_fits():
    knowledge = known(batches(0.1, 0.2, 0.4), target=4, takes_one=False, most=300 * MIB)
    assert [rung.size for rung in knowledge.ladder(4, WALL)] == [1, 2]


def test_an_input_that_was_measured_to_take_more_than_there_is_asks_for_it_all_the_same():
    """So it is found never to fit, and does not run out of memory."""
    [rung] = known(batches(0.1, need=100), most=60 * MIB).ladder(1, WALL)
    assert rung == Rung(1, 100 * MIB, 0.1)


def test_of_an_input_that_was_only_thought_to_take_more_all_there_is_will_do():
    guessed = {1: Measured(100 * MIB, 0.1, WALL, basis="ran_out")}
    knowledge = known(msgspec.structs.replace(footprint(), batches={"": guessed}), most=60 * MIB)
    assert [rung.nbytes for rung in knowledge.ladder(1, WALL)] == [60 * MIB]


def test_a_model_that_takes_one_is_granted_several_one_after_the_other_with_the_memory_of_one():
    one, several = known(batches(0.1), seconds_each=0.08).ladder(5, WALL)
    assert (one.size, one.seconds) == (1, 0.1)
    assert (several.size, several.seconds) == (5, pytest.approx(0.4))
    assert one.nbytes == several.nbytes


def test_of_one_that_is_asked_for_one_there_is_one_rung():
    assert [rung.size for rung in known(batches(0.1)).ladder(1, WALL)] == [1]


def test_a_look_takes_the_least_that_is_of_use():
    batched = known(batches(0.1, 0.11, 0.2), target=4, takes_one=False)
    assert [rung.size for rung in batched.smallest(4, WALL)] == [1]
    assert [rung.size for rung in known(batches(0.1)).smallest(4, WALL)] == [1, 4]


def test_of_a_model_of_which_nothing_is_known_there_is_no_ladder():
    assert list(known().ladder(4, WALL)) == []


def test_a_declared_model_runs_its_largest_batch_within_what_was_declared():
    knowledge = dataclasses.replace(known(footprint(), target=4, takes_one=False), declared=500 * MIB)
    [rung] = knowledge.ladder(4, WALL)
    assert (rung.size, rung.nbytes) == (4, (500 - CONTEXT - 200) * MIB)


def test_a_ladder_is_made_anew_as_what_is_known_fades():
    knowledge = known(msgspec.structs.replace(footprint(), batches={"": {1: Measured(10 * MIB, 0.1, WALL)}}))
    first = knowledge.ladder(1, WALL)
    assert knowledge.ladder(1, WALL + 1.0) == first
    assert dataclasses.replace(knowledge, footprint=batches(0.1)).ladder(1, WALL + 1.0) != first


# --- what is to be measured ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "must"), [({}, True), ({"declared": GIB}, True), ({"footprint": footprint()}, False)])
def test_what_nobody_has_measured_must_be_also_where_its_batches_were_declared(how, must):
    assert Knowledge(model="m", weight=1.0, **{"declared": None, **how}).must_be_measured is must


def test_the_next_size_is_measured_when_so_many_inputs_are_asked_for():
    knowledge = known(batches(0.1, 0.2), target=4, takes_one=False)
    assert knowledge.probe_size(4, GIB) == 4
    assert knowledge.probe_size(3, GIB) is None
    assert known(batches(0.1)).probe_size(4, GIB) is None, "it takes one"
    assert dataclasses.replace(knowledge, declared=GIB).probe_size(4, GIB) is None
    assert known().probe_size(4, GIB) is None, "its runner measures it"


def test_an_input_may_grow_while_the_device_has_more_than_it_is_granted():
    assert known(batches(0.1), most=GIB).may_grow(WALL)
    assert not known(batches(0.1), most=100 * MIB).may_grow(WALL)
    assert not known(batches(0.1), most=None).may_grow(WALL)
    assert not known().may_grow(WALL)


def test_a_runner_that_turned_out_to_be_fixed_is_not_parked():
    knowledge = known(footprint())
    assert knowledge.parks
    assert not dataclasses.replace(knowledge, is_fixed=True).parks
    assert not known().parks


# --- what is said -------------------------------------------------------------------------------------------------


def test_a_newcomer_says_what_it_will_take_and_how_long_that_lasts():
    seat = introduced(Seat(model="m"), known(batches(0.1, 0.2, 0.4), target=4, takes_one=False), WALL)
    assert (seat.resident, seat.full, seat.parked) == (0, (CONTEXT + 200) * MIB, (CONTEXT + PARKED) * MIB)
    assert seat.need == pytest.approx(130 * MIB)
    assert (seat.seconds, seat.longest) == (pytest.approx(0.1), pytest.approx(0.8))
    assert (seat.load_seconds, seat.reload_seconds, seat.park_seconds) == (1.0, 0.2, 0.1)


def test_its_need_is_that_of_the_smallest_batch_that_is_worth_it():
    seat = introduced(Seat(), known(batches(0.1, 0.11, 0.2), target=4, takes_one=False), WALL)
    assert seat.need == pytest.approx(240 * MIB)
    assert seat.seconds == pytest.approx(0.11)


def test_a_model_that_cannot_be_parked_comes_back_by_loading():
    seat = introduced(Seat(), known(footprint(parked=None)), WALL)
    assert (seat.parked, seat.reload_seconds) == (0, 1.0)
    assert seat.park_seconds > 0.0


def test_of_a_model_that_nobody_has_measured_it_says_little_and_expects_a_long_load():
    seat = introduced(Seat(), known(), WALL)
    assert (seat.full, seat.parked) == (0, 0)
    assert 0 < seat.need <= MIB
    assert seat.load_seconds >= 10.0


def test_what_a_declared_one_holds_when_loaded_is_measured_all_the_same():
    declared = dataclasses.replace(known(), declared=500 * MIB)
    assert introduced(Seat(), declared, WALL).full == 0
    measured = dataclasses.replace(declared, footprint=footprint())
    assert introduced(Seat(), measured, WALL).full == (CONTEXT + 200) * MIB


def test_one_that_is_loaded_stays_so_and_one_that_is_parked_comes_back_by_waking():
    full = footprint().full
    assert introduced(Seat(resident=full, full=full), known(footprint()), WALL).load_seconds == 0.0
    parked = Seat(resident=PARKED * MIB, full=full, load_seconds=0.2)
    assert introduced(parked, known(footprint()), WALL).load_seconds == 0.2


def test_what_is_really_held_is_never_said_to_be_less():
    held = footprint().full + 50 * MIB
    assert introduced(Seat(resident=held, full=held), known(footprint()), WALL).full == held


def test_what_a_seat_says_of_its_turn_stays():
    seat = Seat(model="m", start_tag=3.0, finish_tag=4.0, clock=2.0, asked_at=1.0, last_used=5.0, outside=7)
    after = introduced(seat, known(footprint()), WALL)
    for name in ("model", "start_tag", "finish_tag", "clock", "asked_at", "last_used", "outside"):
        assert getattr(after, name) == getattr(seat, name)
