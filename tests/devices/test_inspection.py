"""What a ledger tells whoever only looks."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.devices.inspection import inspect_ledger, ledgers_at, report_of
from dumbwaiter.devices.ledger import Ledger, Unknown, now
from dumbwaiter.devices.ledger.file import SLOT_NBYTES, start_of
from dumbwaiter.devices.sharing import ledger_path
from dumbwaiter.policies import admission
from dumbwaiter.policies.admission import LOADING, PARKING, PROBING, RUNNING, Seat
from seat_process import CAPACITY, DEVICE, GIB, Seated

NOW = 1000.0
CARD = admission.Device(DEVICE, CAPACITY)
SMALL = Seat(model="small", resident=2 * GIB, full=2 * GIB, need=GIB, seconds=0.1)
BIG = Seat(model="big", resident=GIB, full=5 * GIB, parked=GIB, need=GIB, seconds=0.5, load_seconds=1.0)


def having(seat, **fields):
    return msgspec.structs.replace(seat, **fields)


def running(seat, *, granted=GIB, until=NOW + 0.1, deadline=NOW + 2.0):
    return having(seat, doing=RUNNING, granted=granted, granted_at=NOW - 0.1, until=until, deadline=deadline)


def waiting(seat, *, since=NOW - 3.0, looked_at=NOW):
    return having(seat, asked_at=since, looked_at=looked_at)


def report(*seats, unknown=(), device=CARD):
    return report_of(device, dict(enumerate(seats)), unknown, NOW)


@pytest.fixture
def ledger_file(tmp_path):
    return ledger_path(tmp_path / "ledgers", DEVICE)


@pytest.fixture
def sit(ledger_file):
    with contextlib.ExitStack() as stack:
        yield lambda seat: stack.enter_context(Seated(ledger_file, seat))


def test_who_lives_is_told_with_what_it_holds_and_does(ledger_file, sit):
    sit(SMALL)
    sit(running(BIG, until=now() + 60.0, deadline=now() + 200.0))
    told = inspect_ledger(ledger_file)
    assert (told.name, told.ledger, told.capacity, told.error) == (DEVICE, str(ledger_file), CAPACITY, None)
    assert told.limit == CAPACITY - max(256 * 2**20, -(-CAPACITY * 3 // 100))
    small, big = told.seats
    assert (small.place, small.model, small.doing, small.resident, small.granted) == (0, "small", "idle", 2 * GIB, 0)
    assert (big.place, big.model, big.doing, big.resident, big.granted) == (1, "big", "running", GIB, GIB)
    assert (small.evictable, big.evictable) == (2 * GIB, 0)
    assert (small.waits, small.reason, told.first, told.starts_in) == (None, "", None, None)


def test_a_killed_process_is_dead_and_what_it_held_is_told_until_it_is_forgotten(ledger_file, sit):
    sit(running(SMALL)).kill()
    (dead,) = inspect_ledger(ledger_file).seats
    assert (dead.doing, dead.model, dead.resident, dead.granted) == ("dead", "small", 2 * GIB, GIB)
    assert "died while running, and nobody has seen its memory free yet" in dead.reason
    ledger = Ledger.look(ledger_file, record=Seat)
    with contextlib.closing(ledger), ledger.turn() as turn:
        turn.forget(0)
    assert inspect_ledger(ledger_file).seats == []


def test_who_waits_is_told_since_when_and_for_whom(ledger_file, sit):
    moment = now()
    sit(running(SMALL, granted=5 * GIB, until=moment + 60.0, deadline=moment + 200.0))
    sit(waiting(BIG, since=moment - 3.0, looked_at=moment))
    told = inspect_ledger(ledger_file)
    small, big = told.seats
    assert small.waits is None
    assert 3.0 <= big.waits < 30.0
    assert "big waits for 4.00 GiB for its weights" in big.reason
    assert "small (place 0) holds 7.00 GiB, running" in big.reason
    assert told.first == 1
    assert 30.0 < told.starts_in <= 60.0


def test_a_damaged_seat_is_unreadable_and_nothing_is_predicted_beside_it(ledger_file, sit):
    sit(SMALL)
    sit(waiting(BIG, since=now(), looked_at=now()))
    with ledger_file.open("r+b") as file:
        file.seek(start_of(0))
        file.write(b"\xff" * SLOT_NBYTES)
    told = inspect_ledger(ledger_file)
    damaged, big = told.seats
    assert (damaged.place, damaged.doing, damaged.model, damaged.resident) == (0, "unreadable", None, None)
    assert "what its process says cannot be read: it is damaged until its owner writes again" in damaged.reason
    assert big.waits is not None
    assert big.reason == "nobody is given anything until what holds place 0 has written again"
    assert (told.first, told.starts_in) == (None, None)


def test_to_look_changes_nothing(ledger_file, sit):
    sit(waiting(BIG, since=now(), looked_at=now()))
    sit(SMALL).kill()
    before, beside = ledger_file.read_bytes(), sorted(ledger_file.parent.iterdir())
    inspect_ledger(ledger_file)
    assert ledger_file.read_bytes() == before
    assert sorted(ledger_file.parent.iterdir()) == beside


@pytest.mark.parametrize(
    ("content", "words"), [(b"hello", "is no ledger"), (None, "does not exist")], ids=["another file", "no file"]
)
def test_what_cannot_be_read_is_an_error_of_its_own(ledger_file, content, words):
    ledger_file.parent.mkdir()
    if content is not None:
        ledger_file.write_bytes(content)
    told = inspect_ledger(ledger_file)
    assert (told.name, told.ledger, told.capacity, told.seats) == (DEVICE, str(ledger_file), None, ())
    assert f"the ledger {ledger_file} {words}" in told.error


def test_what_lies_beside_a_ledger_is_none(tmp_path):
    a, b = ledger_path(tmp_path, "a"), ledger_path(tmp_path, "b")
    for file in (b, a, a.with_name(f"{a.name}.new"), tmp_path / "notes"):
        file.touch()
    os.mkfifo(a.with_name(f"{a.name}.bell-0"))
    ledger_path(tmp_path, "folder").mkdir()
    assert ledgers_at(tmp_path) == [a, b]
    assert ledgers_at(tmp_path / "notes") == [tmp_path / "notes"]
    assert ledgers_at(tmp_path / "nowhere") == []


def test_who_has_loaded_nothing_of_its_weights_is_parked():
    assert [seat.doing for seat in report(BIG, SMALL, having(BIG, doing=PARKING, until=NOW, deadline=NOW)).seats] == [
        "parked",
        "idle",
        "parking",
    ]


@pytest.mark.parametrize("doing", [RUNNING, LOADING, PROBING, PARKING])
def test_who_is_late_is_told_to_be(doing):
    late = having(running(SMALL, until=NOW - 7.0, deadline=NOW - 5.0), doing=doing)
    assert report(late).seats[0].reason == f"{doing} for 7.0 s longer than expected"
    assert report(having(late, deadline=NOW + 1.0)).seats[0].reason == ""


def test_who_can_never_start_is_told_so_and_is_not_first_in_line():
    told = report(waiting(having(BIG, full=9 * GIB)), waiting(SMALL))
    assert "big does not fit on GPU-1" in told.seats[0].reason
    assert (told.first, told.starts_in) == (1, 0.0)


def test_whose_turn_has_come_is_told_so():
    assert report(waiting(SMALL)).seats[0].reason == "its turn has come"


def test_who_does_not_look_any_more_is_passed_by():
    told = report(waiting(SMALL, looked_at=NOW - 9.0))
    assert told.seats[0].reason.startswith("it has not looked for its turn for 9.0 s, so others pass it by; ")
    assert told.first is None


def test_a_start_that_cannot_be_predicted_is_no_number():
    overdue = running(SMALL, granted=5 * GIB, until=NOW - 9.0, deadline=NOW - 5.0)
    told = report(overdue, waiting(BIG))
    assert (told.first, told.starts_in) == (1, None)


def test_what_others_hold_is_not_given_out():
    told = report(SMALL, device=admission.Device(DEVICE, CAPACITY, outside=3 * GIB))
    assert told.outside == 3 * GIB
    assert told.limit == report(SMALL).limit - 3 * GIB


_BYTES = st.integers(0, 9 * GIB)
_MOMENTS = st.floats(NOW - 20.0, NOW + 20.0)
_SEATS = st.builds(
    Seat,
    model=st.sampled_from(["a", "b"]),
    doing=st.sampled_from(["idle", "running", "polling", "loading", "probing", "parking", "of a newer version"]),
    resident=_BYTES,
    full=_BYTES,
    parked=_BYTES,
    need=_BYTES,
    granted=_BYTES,
    seconds=st.floats(0.0, 9.0),
    load_seconds=st.floats(0.0, 9.0),
    asked_at=st.none() | _MOMENTS,
    looked_at=_MOMENTS,
    granted_at=_MOMENTS,
    until=_MOMENTS,
    deadline=_MOMENTS,
    polls=st.booleans(),
    probes=st.booleans(),
)


@given(st.lists(_SEATS, max_size=6), st.sets(st.integers(0, 5)), st.sets(st.integers(6, 9), max_size=2))
def test_whatever_seats_say_each_is_told_once_and_a_program_can_read_it(seats, dead, unknown):
    quarantined = {place: NOW for place in dead if place < len(seats)}
    strange = [Unknown(place, True, "it is damaged") for place in unknown]
    told = report(*seats, unknown=strange, device=admission.Device(DEVICE, CAPACITY, quarantined=quarantined))
    assert [seat.place for seat in told.seats] == [*range(len(seats)), *sorted(unknown)]
    states = Counter(seat["doing"] for seat in json.loads(msgspec.json.encode(told))["seats"])
    assert (states["dead"], states["unreadable"]) == (len(quarantined), len(unknown))
    assert told.first is None or (told.seats[told.first].waits is not None and not unknown)
