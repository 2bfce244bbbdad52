"""Workers share a device by its ledger: with real files, real memory of a fake device, and what can go wrong there."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys

import pytest
import turn_holder
from admitted_workers import AdmittedWorker, Site, workers
from sharing_parts import MIB
from tenants import CONTEXT, PARKED, footprint

from dumbwaiter.devices.ledger import LedgerGoneError
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.policies.admission import IDLE, POLLING
from dumbwaiter.testing.eventually import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def small(site, model="small", **how):
    return AdmittedWorker(site, model, footprint(weights=200, needs=(100,), seconds=0.002), **how)


def large(site, model="large", **how):
    """One that does not fit beside another of its kind."""
    return AdmittedWorker(site, model, footprint(weights=500, needs=(200,), seconds=0.002), **how)


# --- two models ---------------------------------------------------------------------------------------------------


async def test_a_place_tells_the_runner_all_it_needs(site):
    async with small(site) as worker:
        await eventually(lambda: worker.is_ready)
        [place] = worker.places
        assert place.device == worker.options.address
        assert place.seat_fd is not None
        assert not place.probes


async def test_models_that_fit_beside_each_other_stay_there(site):
    async with workers(small(site), small(site, "other")) as several:
        await asyncio.gather(*(worker.serve(20) for worker in several))
        assert all({"park", "retire"}.isdisjoint(worker.orders) for worker in several)
    assert site.record().refused == 0


async def test_models_that_do_not_take_turns_and_neither_runs_out_of_memory(site):
    async with workers(large(site), large(site, "other")) as several:
        await asyncio.gather(*(worker.serve(3) for worker in several))
        assert any("park" in worker.orders for worker in several)
    assert site.record().refused == 0
    assert site.record().most_used <= 1000 * MIB


async def test_two_workers_of_the_same_kind_beside_a_large_one_starve_nobody(site):
    async with workers(small(site), small(site), large(site)) as several:
        await asyncio.gather(*(worker.serve(5) for worker in several))
    assert site.record().refused == 0


async def test_a_model_that_nobody_has_measured_is_told_to_measure_itself(site):
    worker = AdmittedWorker(site, "new")
    worker.measured = footprint()
    async with worker:
        await eventually(lambda: worker.is_ready)
        assert worker.places[0].probes
        await worker.serve()
    assert worker.store.load("new") == footprint()


async def test_who_waits_says_for_what(site):
    async with workers(large(site), small(site, "other")) as (worker, other):
        await eventually(lambda: worker.is_ready and other.is_ready)
        assert worker.admission.reason == ""
        held = await other.admission.acquire(1)
        held.shrink_to(1)
        waiting = asyncio.create_task(worker.serve())
        await eventually(lambda: waiting.done() or "large waits for" in worker.admission.reason)
        assert "other (place 1) holds" in worker.admission.reason
        held.give_back(1)
        await waiting
        await eventually(lambda: worker.admission.reason == "")


# --- grants and their end -----------------------------------------------------------------------------------------


async def test_a_look_into_a_queue_is_ended_for_somebody_who_lacks_the_room(site):
    async with small(site) as looker:
        grant = await looker.admission.acquire(1, polls=True)
        assert not grant.is_revoked.is_set()
        async with large(site) as worker:
            serving = asyncio.create_task(worker.serve())
            await grant.is_revoked.wait()
            grant.shrink_to(0)
            await serving


async def test_grants_of_a_runner_that_died_are_void_and_the_next_one_gets_its_own(site):
    async with small(site) as worker:
        grant = await worker.admission.acquire(1)
        worker.dies.set()
        await eventually(lambda: grant.is_void)
        assert grant.is_revoked.is_set()
        grant.give_back(1)
        await worker.serve()
        assert len(worker.places) == 2


async def test_a_runner_that_dies_while_its_memory_is_moved_keeps_nobody_waiting(site):
    async with workers(large(site), large(site, "other")) as (first, second):
        for _ in range(3):
            await first.serve()
            serving = asyncio.create_task(second.serve())
            await eventually(lambda task=serving: task.done() or "park" in first.orders)
            first.orders.clear()
            first.dies.set()
            await serving
        await first.serve()
    assert site.record().refused == 0


async def test_the_memory_of_a_dead_runner_is_waited_for(tmp_path):
    site = Site(tmp_path, frees_after="300ms")
    async with workers(large(site)) as [worker]:
        await worker.serve()
        worker.dies.set()
        await eventually(lambda: not worker.is_ready)
        await eventually(lambda: worker.is_ready)
        await worker.serve()
    assert site.record().refused == 0


async def test_acquiring_and_giving_up_over_and_over_leaves_nothing_granted(site):
    dice = random.Random(5)

    async def storm(worker):
        for _ in range(60):
            trying = asyncio.create_task(worker.serve(2, polls=dice.random() < 0.3))
            await asyncio.wait((trying,), timeout=dice.random() * 0.01)
            trying.cancel()
            await asyncio.wait((trying,))
            if not trying.cancelled() and trying.exception() is not None:
                raise trying.exception()

    async with workers(large(site), large(site, "other"), small(site)) as several:
        await asyncio.gather(*(storm(worker) for worker in several))
        assert all(not worker.admission._tenancy.held.grants for worker in several)
        assert all(not list(worker.admission._tenancy.wishes) for worker in several)
        await asyncio.gather(*(worker.serve() for worker in several))
        await eventually(lambda: {seat.doing for seat in site.seats()[0]} <= {IDLE, POLLING})
    assert site.record().refused == 0


async def test_asking_for_a_place_and_giving_up_over_and_over_leaves_nothing_granted(site):
    dice = random.Random(6)
    worker = small(site)
    worker.running = asyncio.create_task(worker.admission.run())
    for _ in range(100):
        asking = asyncio.create_task(worker.admission.make_place())
        await asyncio.wait((asking,), timeout=dice.random() * 0.002)
        if not asking.done():
            asking.cancel()
            await asyncio.wait((asking,))
        if not asking.cancelled():
            worker.admission.move_out()
    await eventually(lambda: site.seats()[0] == [] or site.seats()[0][0].granted == 0)
    living, _ = site.seats()
    assert all(seat.resident == 0 for seat in living)
    worker.running.cancel()
    await asyncio.wait((worker.running,))
    await worker.admission.close()


async def test_a_place_that_is_granted_as_it_is_given_up_is_nobodys(site):
    worker = small(site)
    asking = asyncio.create_task(worker.admission.make_place())
    await asyncio.sleep(0)
    await worker.admission._look()
    assert not asking.done()
    asking.cancel()
    await asyncio.wait((asking,))
    assert asking.cancelled()
    living, _ = site.seats()
    assert living == []
    await worker.admission.close()


# --- leaving the device, and coming back --------------------------------------------------------------------------


async def test_an_idle_model_leaves_the_device_and_comes_back_for_work(site):
    async with small(site, park_after=0.1) as worker:
        await worker.serve()
        await eventually(lambda: "park" in worker.orders)
        await eventually(lambda: site.seats()[0][0].resident == (CONTEXT + PARKED) * MIB)
        assert site.record().used == (CONTEXT + PARKED) * MIB
        await worker.serve()
        assert worker.orders.count("wake") == 1


async def test_while_it_is_away_its_queue_is_looked_into_from_without(site):
    async with small(site, park_after=0.1) as worker:
        await eventually(lambda: "park" in worker.orders)
        looking = asyncio.create_task(worker.serve(polls=True))
        await asyncio.sleep(0.3)
        assert not looking.done()
        assert "wake" not in worker.orders
        worker.work = 1
        await looking
        assert "wake" in worker.orders


async def test_a_queue_that_does_not_tell_is_said_to_be_what_is_waited_for(site):
    async with small(site, park_after=0.1) as worker:
        await eventually(lambda: "park" in worker.orders)
        worker.broker_error = BrokerUnavailableError("the broker is down")
        looking = asyncio.create_task(worker.serve(polls=True))
        await eventually(lambda: "the broker is down" in worker.admission._trouble)
        worker.broker_error, worker.work = None, 1
        await looking


async def test_a_model_that_cannot_be_parked_is_ended_and_started_again_for_work(site):
    worker = AdmittedWorker(site, "stays", footprint(parked=None), park_after=0.1)
    async with worker:
        await worker.serve()
        await eventually(lambda: "retire" in worker.orders)
        await eventually(lambda: site.record().used == 0)
        assert not worker.is_ready
        looking = asyncio.create_task(worker.serve(polls=True))
        await asyncio.sleep(0.3)
        assert not looking.done()
        worker.work = 1
        await looking
        assert len(worker.places) == 2


async def test_it_comes_back_too_for_a_message_that_is_in_no_queue_any_more(site):
    worker = AdmittedWorker(site, "stays", footprint(parked=None), park_after=0.1)
    async with worker:
        await eventually(lambda: "retire" in worker.orders and not worker.is_ready)
        await worker.serve()


# --- what goes wrong ----------------------------------------------------------------------------------------------


async def test_a_process_that_stops_in_its_turn_is_named_and_survived(site):
    async with small(site, patience=0.1) as worker:
        await worker.serve()
        holder = await asyncio.create_subprocess_exec(
            sys.executable, turn_holder.__file__, str(site.ledger), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert await holder.stdout.readline() == b"inside\n"
            serving = asyncio.create_task(worker.serve(3))
            await eventually(lambda: "has been locked for" in worker.admission.reason)
            assert f"process {holder.pid}" in worker.admission.reason
            assert not worker.running.done()
            holder.send_signal(signal.SIGCONT)
            await serving
            await eventually(lambda: worker.admission.reason == "")
        finally:
            with contextlib.suppress(ProcessLookupError):
                holder.kill()
            await holder.communicate()


async def test_a_ledger_that_is_removed_ends_it_with_what_to_do(site):
    worker = small(site)
    async with worker:
        await eventually(lambda: worker.is_ready)
        site.ledger.unlink()
        await asyncio.wait((worker.running,), timeout=20.0)
        with pytest.raises(LedgerGoneError, match="restart all processes that use the device"):
            worker.running.result()
        worker.running = asyncio.create_task(asyncio.Event().wait())


async def test_who_leaves_leaves_nothing_behind(site):
    async with small(site) as worker:
        await worker.serve()
    assert site.seats() == ([], [])
    assert site.record().used == 0


async def test_who_leaves_does_not_wait_for_ever_for_memory_that_is_not_free(tmp_path):
    site = Site(tmp_path, frees_after="never")
    async with small(site) as worker:
        await worker.serve()
    living, orphans = site.seats()
    assert living == []
    assert len(orphans) == 1
