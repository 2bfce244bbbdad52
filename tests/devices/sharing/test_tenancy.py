"""One worker's next step on a shared device: what it says, whom it makes room for, what its runner has to do."""

from __future__ import annotations

import msgspec
import pytest
from sharing_parts import MIB
from tenants import CONTEXT, House, footprint, lacks_room

from dumbwaiter.devices.admission import Grant
from dumbwaiter.devices.sharing.tenancy import Stage
from dumbwaiter.policies.admission import (
    IDLE,
    LOADING,
    POLL_SLICE,
    POLLING,
    PROBING,
    RUNNING,
    NeverFits,
    Wait,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(anyio_backend):
    """On a loop, for wishes belong to one."""
    return House()


# --- without a runner ---------------------------------------------------------------------------------------------


async def test_who_is_asked_for_nothing_asks_for_nothing(house):
    tenant = house.tenant()
    tenant.step()
    assert tenant.seat.asked_at is None
    assert not tenant.is_placed


async def test_a_place_is_taken_with_the_weights_and_the_smallest_batch_at_once(house):
    tenant = house.tenant()
    tenant.learns(footprint(weights=200, needs=(100,)))
    tenant.asks_for_place()
    tenant.step()
    assert tenant.is_placed
    assert tenant.tenancy.stage is Stage.MOVING_IN
    assert (tenant.seat.doing, tenant.seat.resident) == (LOADING, (CONTEXT + 200) * MIB)
    assert tenant.seat.granted == pytest.approx(130 * MIB), "with its margin"


async def test_what_a_load_was_granted_is_for_the_first_batch_whoever_waits(house):
    """Else two models that do not fit beside each other could go on ousting each other, and neither would run."""
    tenant = house.tenant()
    tenant.learns(footprint())
    tenant.moves_in()
    assert (tenant.seat.doing, tenant.seat.granted) == (POLLING, pytest.approx(130 * MIB))
    lacks_room(house)
    tenant.wishes(1)
    assert len(tenant.step(after=POLL_SLICE / 2).granted) == 1
    tenant.grants[0].shrink_to(1)
    tenant.wishes(1)
    assert not tenant.step().granted, "but for that one only"


async def test_of_one_that_only_looks_a_slice_is(house):
    tenant = house.tenant()
    tenant.learns(footprint())
    tenant.moves_in()
    lacks_room(house)
    tenant.wishes(1, polls=True)
    assert len(tenant.step().granted) == 1
    tenant.step(after=POLL_SLICE)
    assert tenant.grants[0].is_revoked.is_set()


async def test_a_runner_that_is_ready_and_not_asked_for_anything_gives_back_what_its_load_was_granted(house):
    tenant = house.tenant(known=footprint())
    assert tenant.tenancy.stage is Stage.IN
    assert (tenant.seat.doing, tenant.seat.granted) == (IDLE, 0)
    assert tenant.seat.resident == tenant.seat.full == (CONTEXT + 200) * MIB


async def test_a_model_that_nobody_has_measured_waits_for_the_device_to_itself(house):
    busy = house.neighbour(doing=RUNNING, granted=1, until=house.now + 1.0, deadline=house.now + 9.0)
    tenant = house.tenant()
    tenant.asks_for_place()
    tenant.step()
    assert not tenant.is_placed
    assert isinstance(tenant.tenancy.turns.waits, Wait)
    del house.seats[busy]
    tenant.step()
    assert tenant.is_placed
    assert (tenant.seat.doing, tenant.seat.granted) == (PROBING, 1000 * MIB)


async def test_a_declared_model_is_loaded_alone_at_first_too(house):
    tenant = house.tenant(declared=500 * MIB)
    tenant.asks_for_place()
    tenant.step()
    assert tenant.seat.doing == PROBING
    assert tenant.seat.granted >= 500 * MIB


async def test_who_has_no_place_waits_and_says_for_what(house):
    house.neighbour(resident=900 * MIB, full=900 * MIB, parked=800 * MIB)
    tenant = house.tenant()
    tenant.learns(footprint())
    tenant.asks_for_place()
    step = tenant.step()
    assert not tenant.is_placed
    assert isinstance(tenant.tenancy.turns.waits, NeverFits)
    assert "does not fit on gpu" in tenant.tenancy.turns.waits.reason
    assert step.look_at == pytest.approx(house.now + 1.0)
    assert tenant.seat.asked_at is None


async def test_what_never_fits_is_tried_again_and_goes_on_once_it_does(house, caplog):
    giant = house.neighbour(resident=900 * MIB, full=900 * MIB, parked=800 * MIB)
    tenant = house.tenant()
    tenant.learns(footprint())
    tenant.asks_for_place()
    for _ in range(3):
        tenant.step(after=1.0)
    assert caplog.text.count("does not fit") == 1
    del house.seats[giant]
    tenant.step(after=0.5)
    assert not tenant.is_placed
    tenant.step(after=0.5)
    assert tenant.is_placed


async def test_who_was_retired_asks_for_a_place_when_there_is_work(house):
    tenant = house.tenant()
    tenant.asks_for_place(polls=True)
    tenant.step()
    assert tenant.seat.asked_at is None
    assert tenant.tenancy.wants_work
    tenant.tenancy.found_work()
    tenant.step()
    assert tenant.is_placed


async def test_and_when_it_has_work_in_hand_that_no_queue_tells_of(house):
    tenant = house.tenant()
    tenant.asks_for_place(polls=True)
    tenant.wishes(polls=True)
    tenant.step()
    assert not tenant.is_placed
    tenant.wishes(polls=False)
    tenant.step()
    assert tenant.is_placed


async def test_a_place_that_is_not_wanted_any_more_is_not_waited_for(house):
    lacks = house.neighbour(doing=RUNNING, granted=950 * MIB, until=house.now + 1.0, deadline=house.now + 9.0)
    tenant = house.tenant()
    tenant.asks_for_place()
    tenant.step()
    assert tenant.seat.asked_at is not None
    tenant.tenancy.place = None
    tenant.step()
    assert tenant.seat.asked_at is None
    assert lacks in house.seats


# --- grants -------------------------------------------------------------------------------------------------------


async def test_who_has_work_and_room_is_granted_the_largest_batch_that_is_worth_it(house):
    tenant = house.tenant(known=footprint(needs=(50, 100, 200)), target=4)
    tenant.wishes(4)
    step = tenant.step()
    assert [rung.size for _, rung in step.granted] == [4]
    assert tenant.seat.doing == RUNNING
    assert tenant.seat.granted == pytest.approx(240 * MIB)


async def test_a_batch_that_was_never_measured_is_a_probe_alone_on_the_device_and_ends_as_one(house):
    tenant = house.tenant(known=footprint(needs=()))
    tenant.wishes(1)
    step = tenant.step()
    assert [rung.size for _, rung in step.granted] == [1]
    assert (tenant.seat.doing, tenant.seat.granted) == (PROBING, (1000 - CONTEXT - 200) * MIB)
    tenant.grants[0].shrink_to(0)
    tenant.step()
    assert (tenant.seat.doing, tenant.seat.granted) == (IDLE, 0)


async def test_while_nobody_lacks_room_a_grant_is_prolonged(house):
    tenant = house.tenant(known=footprint())
    tenant.runs()
    before = tenant.seat
    tenant.wishes(1)
    assert len(tenant.step(after=0.05).granted) == 1
    assert tenant.seat.granted == before.granted
    assert tenant.seat.until == pytest.approx(before.until + 0.1)


async def test_what_was_prolonged_is_paid_for(house):
    tenant = house.tenant(known=footprint())
    tenant.runs()
    before = tenant.seat.finish_tag
    tenant.wishes(1)
    tenant.step()
    assert tenant.seat.start_tag == before
    assert tenant.seat.finish_tag > before


async def test_who_lacks_room_ends_that(house):
    tenant = house.tenant(known=footprint())
    tenant.runs()
    lacks_room(house)
    tenant.wishes(1)
    assert not tenant.step().granted


async def test_a_grant_is_retained_when_its_work_is_done_and_nobody_lacks_room(house):
    tenant = house.tenant(known=footprint())
    grant = tenant.runs()
    held = tenant.seat.granted
    grant.give_back(1)
    step = tenant.step(after=0.1)
    assert (step.order, tenant.seat.doing, tenant.seat.granted) == (None, POLLING, held)
    tenant.wishes(1)
    assert len(tenant.step(after=0.1).granted) == 1
    assert (tenant.seat.doing, tenant.seat.granted) == (RUNNING, held)


async def test_who_has_run_out_of_work_and_only_looks_for_more_yields_within_a_slice(house):
    tenant = house.tenant(known=footprint(seconds=3.0))
    grant = tenant.runs()
    tenant.step(after=0.01)
    rung = tenant.tenancy.go_on(1, polls=True)
    look = Grant(rung.size, tenant, may_wait=True)
    tenant.tenancy.held.hand_out(look)
    grant.give_back(1)
    tenant.step(after=0.1)
    assert tenant.seat.doing == POLLING
    lacks_room(house)
    tenant.step(after=POLL_SLICE)
    assert look.is_revoked.is_set()


async def test_whoever_begins_to_wait_rings_for_those_who_run(house):
    running = house.neighbour(resident=100 * MIB, full=100 * MIB, granted=850 * MIB, doing="running", until=200.0)
    house.seats[running] = msgspec.structs.replace(house.seats[running], deadline=300.0)
    tenant = house.tenant()
    tenant.learns(footprint())
    tenant.asks_for_place()
    assert running in tenant.step().rings


async def test_before_it_gives_a_used_grant_back_the_cache_is_emptied(house):
    tenant = house.tenant(known=footprint())
    tenant.runs().give_back(1)
    tenant.step()
    held = tenant.seat.granted
    lacking = lacks_room(house)
    step = tenant.step(after=0.1)
    assert (step.order, tenant.seat.granted) == ("empty", held)
    tenant.has_moved("empty", reserved=200)
    step = tenant.step(after=0.01)
    assert tenant.seat.granted == 0
    assert lacking in step.rings, "and whoever waits is told"


async def test_a_grant_that_nothing_was_run_with_is_given_back_at_once(house):
    tenant = house.tenant(known=footprint())
    tenant.wishes(1)
    tenant.step()
    lacking = lacks_room(house)
    tenant.grants[0].shrink_to(0)
    step = tenant.step()
    assert step.order != "empty"
    assert tenant.seat.granted == 0
    assert lacking in step.rings


async def test_what_does_not_come_back_when_the_cache_is_emptied_is_said(house):
    tenant = house.tenant(known=footprint())
    tenant.runs().give_back(1)
    lacks_room(house)
    assert tenant.step().order == "empty"
    tenant.has_moved("empty", reserved=230)
    tenant.step()
    assert tenant.seat.resident == tenant.seat.full == (CONTEXT + 230) * MIB


async def test_no_grant_is_given_back_before_the_last_of_its_messages_is(house):
    tenant = house.tenant(known=footprint())
    grant = tenant.runs(2)
    lacks_room(house)
    grant.give_back(1)
    assert tenant.step(after=1.0).order is None
    assert tenant.seat.granted > 0
    grant.give_back(1)
    assert tenant.step().order == "empty"


async def test_who_took_more_than_it_was_granted_says_so_and_gives_all_back(house):
    tenant = house.tenant(known=footprint())
    grant = tenant.runs()
    tenant.tenancy.held.used(300 * MIB)
    tenant.step()
    assert tenant.seat.granted == 300 * MIB
    grant.give_back(1)
    assert tenant.step().order == "empty"


async def test_while_a_record_cannot_be_read_nobody_is_given_anything(house):
    tenant = house.tenant(known=footprint())
    tenant.wishes(1)
    assert not tenant.step(is_blurred=True).granted
    assert tenant.seat.granted == 0
    assert len(tenant.step().granted) == 1


async def test_who_waits_while_a_record_cannot_be_read_is_not_passed_over(house):
    tenant = house.tenant(known=footprint())
    house.neighbour(doing=RUNNING, granted=750 * MIB, until=house.now + 1.0, deadline=house.now + 9.0)
    tenant.wishes(1)
    tenant.step()
    assert tenant.seat.asked_at is not None
    tenant.step(after=0.5, is_blurred=True)
    assert tenant.seat.looked_at == house.now


# --- who only looks for work --------------------------------------------------------------------------------------


async def test_a_look_beside_others_takes_no_more_than_the_smallest_batch(house):
    tenant = house.tenant(known=footprint(needs=(50, 100, 200)), target=4)
    house.neighbour()
    tenant.wishes(4, polls=True)
    step = tenant.step()
    assert [rung.size for _, rung in step.granted] == [1]
    assert tenant.seat.doing == POLLING


async def test_a_look_makes_nobody_wait(house):
    tenant = house.tenant(known=footprint())
    lacks_room(house)
    tenant.wishes(1, polls=True)
    assert not tenant.step().granted
    assert tenant.seat.asked_at is None
    assert tenant.tenancy.wants_work, "so it is found out from without"


async def test_not_even_somebody_who_fits_as_long_as_nobody_looks(house):
    tenant = house.tenant(known=footprint())
    lacks_room(house, need=700)
    tenant.wishes(1, polls=True)
    assert not tenant.step().granted


async def test_nor_does_it_wait_for_room(house):
    tenant = house.tenant(known=footprint())
    house.neighbour(doing=RUNNING, granted=700 * MIB, until=house.now + 1.0, deadline=house.now + 9.0)
    tenant.wishes(1, polls=True)
    assert not tenant.step().granted
    assert tenant.seat.asked_at is None
    tenant.tenancy.found_work()
    tenant.step()
    assert tenant.seat.asked_at is not None


async def test_a_look_is_ended_after_its_slice_for_somebody_who_lacks_room(house):
    tenant = house.tenant(known=footprint())
    tenant.wishes(1, polls=True)
    tenant.step()
    grant, began = tenant.grants[0], house.now
    lacks_room(house)
    step = tenant.step(after=POLL_SLICE / 2)
    assert not grant.is_revoked.is_set()
    assert step.look_at == pytest.approx(began + POLL_SLICE)
    tenant.step(after=POLL_SLICE / 2)
    assert grant.is_revoked.is_set()
    grant.shrink_to(0)
    tenant.step()
    assert tenant.seat.granted == 0


async def test_who_was_thought_to_have_work_and_finds_none_keeps_nobody_waiting_for_long(house):
    tenant = house.tenant(known=footprint())
    tenant.wishes(1)
    tenant.step()
    lacks_room(house)
    tenant.step(after=POLL_SLICE)
    assert not tenant.grants[0].is_revoked.is_set()
    tenant.step(after=1.4)
    assert tenant.grants[0].is_revoked.is_set()


async def test_a_look_that_found_something_runs_it_first(house):
    tenant = house.tenant(known=footprint())
    tenant.wishes(1, polls=True)
    tenant.step()
    lacks_room(house)
    tenant.grants[0].shrink_to(1)
    tenant.step(after=1.0)
    assert tenant.seat.doing == RUNNING
    assert not tenant.grants[0].is_revoked.is_set()


async def test_who_keeps_more_than_a_look_takes_gives_it_back_after_a_while_beside_others(house):
    tenant = house.tenant(known=footprint(needs=(50, 100, 200)), target=4)
    house.neighbour()
    tenant.runs(4).give_back(4)
    tenant.step()
    tenant.wishes(4, polls=True)
    assert tenant.step(after=0.5).order is None
    tenant.grants[-1].shrink_to(0)
    tenant.wishes(4, polls=True)
    assert tenant.step(after=1.0).order == "empty"
