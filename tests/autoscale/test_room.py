"""How many workers a device's memory has room for, by its ledger and by what one was measured to take."""

from __future__ import annotations

import time

import pytest

from dumbwaiter.autoscale.room import DeviceRoom, Room, seated_in, workers_that_fit
from dumbwaiter.devices.footprint_store import FootprintStore, device_key, key_of
from dumbwaiter.devices.inspection import DeviceReport, SeatReport
from dumbwaiter.devices.opening import open_device
from dumbwaiter.devices.sharing import Terms, open_admission
from dumbwaiter.policies.footprints import Footprint, Measured, activation

GIB = 1 << 30


def report(*seats: SeatReport, limit: int | None = 10 * GIB) -> DeviceReport:
    return DeviceReport(name="it", limit=limit, seats=seats)


def seat(model: str, resident: int | None, granted: int = 0) -> SeatReport:
    return SeatReport(place=0, doing="idle", model=model, resident=resident, granted=granted)


def test_as_many_fit_as_the_memory_that_others_leave_has_room_for():
    assert workers_that_fit(report(), "cats", 3 * GIB) == 3
    assert workers_that_fit(report(seat("dogs", 4 * GIB, GIB)), "cats", 2 * GIB) == 2
    assert workers_that_fit(report(seat("dogs", 11 * GIB)), "cats", 2 * GIB) == 0


def test_its_own_workers_are_among_those_that_fit():
    assert workers_that_fit(report(seat("cats", 2 * GIB), seat("cats", 2 * GIB, GIB)), "cats", 3 * GIB) == 3


def test_all_of_its_workers_are_seated_whoever_keeps_them_and_whatever_they_do():
    dead = SeatReport(place=1, doing="dead", model="cats", resident=GIB)
    assert (
        seated_in(report(seat("cats", GIB), dead, seat("dogs", GIB), SeatReport(place=3, doing="unreadable")), "cats")
        == 2
    )


def test_what_cannot_be_read_is_not_guessed():
    assert workers_that_fit(report(limit=None), "cats", GIB) is None
    assert workers_that_fit(report(seat("dogs", None)), "cats", GIB) is None


@pytest.fixture
def terms(tmp_path):
    def of(**facts) -> Terms:
        return Terms(
            **{
                "model": "cats",
                "device": f"fake:8GiB?path={tmp_path}/device",
                "ledgers": tmp_path / "ledgers",
                "footprints": tmp_path / "footprints",
                "project": str(tmp_path),
                **facts,
            }
        )

    return of


def test_where_no_device_is_shared_nothing_bounds_them(terms):
    assert DeviceRoom(terms(device="none")).look() is None


@pytest.mark.anyio
async def test_what_was_measured_on_the_device_bounds_them(terms):
    its = terms()
    device = open_device(its.device)
    key = key_of(
        model="cats", target="", weights=None, project=its.footprints.parent, parameters={}, device=device_key(device)
    )
    device.close()
    room = DeviceRoom(its)
    measured = Measured(nbytes=GIB, seconds=0.1, at=time.time())
    known = Footprint(context=GIB // 2, weights=GIB // 2, batches={"": {1: measured}})
    async with open_admission(its):
        assert room.look() is None, "nothing was measured yet"
        FootprintStore(its.footprints).save(key, known)
        need = GIB + activation(known, 1, time.time())
        assert room.look() == Room(3, seated=0)
        assert (8 * GIB - round(0.03 * 8 * GIB)) // need == 3
        assert room.name


@pytest.mark.anyio
async def test_what_its_users_say_that_it_takes_bounds_them_too(terms):
    its = terms(footprint=2 * GIB)
    async with open_admission(its):
        assert DeviceRoom(its).look() == Room(3, seated=0)
