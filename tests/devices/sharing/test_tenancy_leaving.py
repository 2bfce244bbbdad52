"""How one worker's model leaves a shared device and comes back, and what its end or a wish taken back leaves."""

from __future__ import annotations

import pytest
from sharing_parts import MIB
from tenants import CONTEXT, PARKED, House, footprint, lacks_room

from dumbwaiter.devices.sharing.tenancy import Stage
from dumbwaiter.policies.admission import IDLE, LOADING, PARKING, RUNNING

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(anyio_backend):
    """On a loop, for wishes belong to one."""
    return House()


# --- leaving the device, and coming back --------------------------------------------------------------------------


async def test_who_has_had_nothing_to_do_for_long_is_parked(house):
    tenant = house.tenant(known=footprint(), park_after=300.0)
    assert tenant.step(after=280.0).order is None
    step = tenant.step(after=20.0)
    assert (step.order, tenant.seat.doing) == ("park", PARKING)
    tenant.has_moved("park", reserved=PARKED)
    tenant.step()
    assert (tenant.seat.doing, tenant.seat.resident) == (IDLE, (CONTEXT + PARKED) * MIB)
    assert tenant.seat.load_seconds == 0.2


async def test_looks_do_not_keep_it_there(house):
    tenant = house.tenant(known=footprint(), park_after=300.0)
    for _ in range(100):
        tenant.wishes(1, polls=True)
        step = tenant.step(after=4.0)
        for grant in tenant.grants:
            grant.is_revoked.set()
            grant.shrink_to(0)
        tenant.grants.clear()
        if step.order is not None:
            break
    assert step.order == "park"


async def test_a_parked_model_is_not_woken_for_a_look(house):
    tenant = house.tenant(known=footprint())
    tenant.is_parked()
    tenant.wishes(1, polls=True)
    step = tenant.step()
    assert (step.order, step.granted, tenant.seat.asked_at) == (None, [], None)
    assert tenant.tenancy.wants_work


async def test_it_is_woken_for_work_and_then_runs_it(house):
    tenant = house.tenant(known=footprint())
    tenant.is_parked()
    wish = tenant.wishes(1)
    step = tenant.step()
    assert (step.order, step.granted, tenant.seat.doing) == ("wake", [], LOADING)
    assert tenant.seat.resident == (CONTEXT + 200) * MIB
    tenant.has_moved("wake", reserved=200)
    step = tenant.step(after=0.2)
    assert [one for one, _ in step.granted] == [wish]
    assert (tenant.seat.doing, tenant.seat.load_seconds) == (RUNNING, 0.0)


async def test_the_first_in_line_has_an_idle_one_parked(house):
    tenant = house.tenant(known=footprint())
    lacks_room(house, need=900)
    step = tenant.step(after=1.0)
    assert step.order == "park"


async def test_one_that_fits_beside_it_does_not(house):
    tenant = house.tenant(known=footprint())
    lacks_room(house, need=700)
    assert tenant.step(after=1.0).order is None


async def test_a_model_that_cannot_be_parked_has_its_runner_ended(house):
    tenant = house.tenant(known=footprint(parked=None))
    step = tenant.step(after=400.0)
    assert (step.order, tenant.seat.doing) == ("retire", PARKING)


async def test_one_that_turns_out_not_to_be_parkable_stays_loaded_until_it_is_ended(house, caplog):
    tenant = house.tenant(known=footprint())
    assert tenant.step(after=400.0).order == "park"
    tenant.has_moved("park", reserved=200, is_done=False)
    step = tenant.step()
    assert "cannot be parked" in caplog.text
    assert step.order == "retire"
    assert tenant.seat.resident == (CONTEXT + 200) * MIB


async def test_a_wake_that_fails_is_tried_again_later(house):
    tenant = house.tenant(known=footprint())
    tenant.is_parked()
    tenant.wishes(1)
    assert tenant.step().order == "wake"
    tenant.has_moved("wake", reserved=PARKED, is_done=False)
    step = tenant.step()
    assert (step.order, step.granted) == (None, [])
    assert (tenant.seat.resident, tenant.seat.granted) == ((CONTEXT + PARKED) * MIB, 0)
    assert step.look_at == pytest.approx(house.now + 1.0)
    assert tenant.step(after=1.0).order == "wake"


async def test_a_model_that_cannot_be_woken_twice_has_its_runner_ended(house):
    tenant = house.tenant(known=footprint())
    tenant.is_parked()
    tenant.wishes(1)
    assert tenant.step().order == "wake"
    tenant.has_moved("wake", reserved=PARKED, is_done=False)
    tenant.step()
    assert tenant.step(after=1.0).order == "wake"
    tenant.has_moved("wake", reserved=PARKED, is_done=False)
    assert tenant.step().order == "retire"


async def test_an_order_that_was_carried_out_by_a_runner_that_is_dead_says_nothing_of_the_next(house):
    tenant = house.tenant(known=footprint())
    assert tenant.step(after=400.0).order == "park"
    tenant.tenancy.move_out()
    tenant.has_moved("park", reserved=PARKED)
    tenant.place = None
    tenant.moves_in()
    assert tenant.seat.resident == (CONTEXT + 200) * MIB


# --- the end ------------------------------------------------------------------------------------------------------


async def test_grants_of_a_runner_that_died_are_void(house):
    tenant = house.tenant(known=footprint())
    running = tenant.runs()
    tenant.wishes(1)
    tenant.step()
    waiting = tenant.grants[-1]
    tenant.tenancy.move_out()
    assert tenant.tenancy.stage is Stage.OUT
    for grant in (running, waiting):
        assert grant.is_void
        assert grant.is_revoked.is_set()
    assert not tenant.tenancy.held.grants


async def test_moving_out_twice_is_no_error(house):
    tenant = house.tenant(known=footprint())
    tenant.tenancy.move_out()
    tenant.tenancy.move_out()
    assert tenant.tenancy.stage is Stage.OUT


# --- wishes that are taken back -----------------------------------------------------------------------------------


async def test_a_wish_that_is_taken_back_while_it_waits_leaves_no_ticket(house):
    tenant = house.tenant(known=footprint())
    house.neighbour(doing=RUNNING, granted=750 * MIB, until=house.now + 1.0, deadline=house.now + 9.0)
    wish = tenant.wishes(1)
    tenant.step()
    assert tenant.seat.asked_at is not None
    tenant.tenancy.wishes.remove(wish)
    tenant.step()
    assert (tenant.seat.asked_at, tenant.seat.granted, tenant.tenancy.turns.waits) == (None, 0, None)


async def test_one_that_is_taken_back_while_the_model_is_woken_leaves_no_grant(house):
    tenant = house.tenant(known=footprint())
    tenant.is_parked()
    wish = tenant.wishes(1)
    assert tenant.step().order == "wake"
    tenant.tenancy.wishes.remove(wish)
    tenant.has_moved("wake", reserved=200)
    lacks_room(house)
    step = tenant.step()
    assert not step.granted
    assert (tenant.seat.granted, tenant.seat.doing) == (0, IDLE)


async def test_one_that_is_taken_back_when_it_was_granted_leaves_nothing_to_be_kept_from_others(house):
    tenant = house.tenant(known=footprint())
    tenant.wishes(1)
    tenant.step()
    tenant.grants[0].shrink_to(0)
    assert not tenant.tenancy.held.grants
    lacks_room(house)
    tenant.step()
    assert tenant.seat.granted == 0


async def test_a_ticket_survives_while_somebody_else_here_still_has_work(house):
    tenant = house.tenant(known=footprint())
    house.neighbour(doing=RUNNING, granted=750 * MIB, until=house.now + 1.0, deadline=house.now + 9.0)
    first, _ = tenant.wishes(1), tenant.wishes(1)
    tenant.step()
    asked_at = tenant.seat.asked_at
    tenant.tenancy.wishes.remove(first)
    tenant.step(after=0.1)
    assert tenant.seat.asked_at == asked_at
