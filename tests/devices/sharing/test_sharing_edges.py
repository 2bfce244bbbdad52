"""What workers that share a device do where there is little to do: no room at all, no seat, a lie, a fault of ours."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource

import pytest
from admitted_workers import CAPACITY, AdmittedWorker, Site
from sharing_parts import MIB
from tenants import footprint

from dumbwaiter.devices import opening
from dumbwaiter.devices.admission import Unlimited
from dumbwaiter.devices.fake_memory import SharedMemory
from dumbwaiter.devices.footprint_store import FootprintStore
from dumbwaiter.devices.ledger.file import MOST_SEATS
from dumbwaiter.devices.sharing import Terms, open_admission
from dumbwaiter.devices.sharing.ledger_admission import LedgerAdmission
from dumbwaiter.errors import MissingExtraError
from dumbwaiter.policies.admission import Seat
from dumbwaiter.testing.eventually import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@contextlib.asynccontextmanager
async def looking_for_a_place(site, **terms):
    """An admission of a model of which nothing is known, whose keeper asks for a place."""
    how = {
        "model": "m",
        "target": "nets:M",
        "device": site.address,
        "ledgers": site.ledger.parent,
        "footprints": site.folder / "kept",
    }
    async with open_admission(Terms(**how, **terms)) as admission:
        assert isinstance(admission, LedgerAdmission)
        admission.attach(AdmittedWorker.__new__(AdmittedWorker), _no_work)
        tasks = [asyncio.create_task(admission.run()), asyncio.create_task(admission.make_place())]
        try:
            yield admission
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _no_work():
    return False


async def test_what_does_not_fit_on_the_empty_device_is_hopeless_and_says_why(site):
    async with looking_for_a_place(site, footprint=2 * CAPACITY) as admission:
        await eventually(lambda: admission.is_hopeless)
        assert "does not fit" in admission.reason


async def test_what_would_fit_without_a_stranger_waits_for_it_and_is_not_hopeless(site):
    options = AdmittedWorker(site, "neighbour", footprint()).options
    stranger = SharedMemory(options.folder, options.capacity, frees_after=0.0)
    stranger.join()
    assert stranger.take(600 * MIB)
    async with looking_for_a_place(site, footprint=700 * MIB) as admission:
        await eventually(lambda: admission.reason)
        assert not admission.is_hopeless
    stranger.close()


async def test_a_declaration_that_cannot_be_is_told_with_both_figures(site, caplog):
    async with looking_for_a_place(site, footprint=100 * MIB) as admission:
        with caplog.at_level(logging.WARNING):
            admission.settle_in(footprint(weights=300), 1)
    [told] = [record.getMessage() for record in caplog.records if "declared" in record.getMessage()]
    assert "100 MiB" in told
    assert f"{footprint(weights=300).full // MIB} MiB" in told


async def test_a_worker_that_finds_no_seat_waits_for_one_and_says_so(site):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        ledgers = [stack.enter_context(contextlib.closing(site.open_ledger())) for _ in range(MOST_SEATS)]
        for ledger in ledgers:
            with ledger.turn() as turn:
                turn.take_seat(Seat(model="crowd"))
        async with AdmittedWorker(site, "late", footprint(weights=200)) as late:
            await eventually(lambda: late.admission.reason)
            assert not late.is_ready
            with ledgers[0].turn() as turn:
                turn.leave()
            await eventually(lambda: late.is_ready)


async def test_nobody_looks_who_has_neither_a_runner_nor_a_wish_for_one(site, monkeypatch):
    looks = 0
    look = LedgerAdmission._look

    async def counted(admission):
        nonlocal looks
        looks += 1
        return await look(admission)

    async with looking_for_a_place(site, footprint=2 * CAPACITY) as admission:
        await eventually(lambda: admission.is_hopeless)
        admission._tenancy.place = None  # its keeper backs off
        admission.move_out()
        await asyncio.sleep(0.1)
        monkeypatch.setattr(LedgerAdmission, "_look", counted)
        await asyncio.sleep(1.0)
    assert looks <= 10


async def test_a_fault_while_work_is_looked_for_ends_the_admission_rather_than_its_waking(site):
    async def look_for_work_in_vain():
        async with AdmittedWorker(site, "m", footprint(weights=200), park_after=0.05) as worker:
            await eventually(lambda: "park" in worker.orders)
            worker.broker_error = OSError("a fault of ours")
            wish = asyncio.create_task(worker.admission.acquire(1, polls=True))
            await eventually(worker.running.done)
            wish.cancel()

    with pytest.raises(OSError, match="a fault of ours"):
        await look_for_work_in_vain()


async def test_only_who_does_not_know_of_work_may_wait_for_it_with_the_grant(site):
    async with AdmittedWorker(site, "m", footprint(weights=200), park_after=0.05) as worker:
        await eventually(lambda: "park" in worker.orders)
        worker.work = 1
        found = await worker.admission.acquire(1, polls=True)
        assert not found.may_wait
        found.shrink_to(0)
    async with AdmittedWorker(site, "other", footprint(weights=200)) as worker:
        looks = await worker.admission.acquire(1, polls=True)
        assert looks.may_wait
        looks.shrink_to(0)


async def test_a_gpu_that_nvml_cannot_be_asked_for_is_shared_by_nobody_unless_it_was_named(
    tmp_path, monkeypatch, caplog
):
    sign = tmp_path / "nvidiactl"
    sign.touch()
    monkeypatch.setattr(opening, "_SIGNS", (str(sign).lstrip("/"),))

    def missing():
        raise MissingExtraError("pynvml", "cuda", "nvidia-ml-py")

    monkeypatch.setattr(opening, "started_nvml", missing)
    how = {"model": "m", "ledgers": tmp_path, "footprints": tmp_path}
    with caplog.at_level(logging.WARNING):
        async with open_admission(Terms(device="auto", **how)) as admission:
            assert isinstance(admission, Unlimited)
    assert "nvidia-ml-py" in caplog.text
    assert "--device none" in caplog.text


async def test_what_was_measured_is_there_for_the_next_start(site):
    async with AdmittedWorker(site, "m", footprint(weights=200)) as worker:
        await eventually(lambda: worker.is_ready)
    assert FootprintStore(site.folder / "footprints").load("m") == footprint(weights=200)
