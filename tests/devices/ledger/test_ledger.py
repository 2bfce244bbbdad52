"""What the seats of a ledger say to each other, within one process."""

from __future__ import annotations

import asyncio
import os

import msgspec
import pytest
from ledger_process import CAPACITY, DEVICE, Holding, holding

from dumbwaiter.devices.ledger import Ledger, now
from dumbwaiter.devices.ledger.errors import LedgerBusyError, LedgerFullError, LedgerGoneError
from dumbwaiter.devices.ledger.file import MOST_SEATS, SLOT_NBYTES, start_of

pytestmark = pytest.mark.anyio


class HoldingOfTomorrow(Holding, frozen=True):
    """As a newer version writes it."""

    parked: int = 0
    model: str = "kitchen"


def sit(ledger, record):
    with ledger.turn() as turn:
        return turn.take_seat(record).place


def seats(ledger):
    with ledger.turn() as turn:
        return turn.living


def test_a_new_ledger_has_no_seats_and_is_of_this_user_alone(open_ledger, ledger_file):
    ledger = open_ledger()
    with ledger.turn() as turn:
        assert (turn.living, turn.orphaned, turn.unknown) == ([], [], [])
    assert (ledger.device, ledger.capacity) == (DEVICE, CAPACITY)
    assert ledger_file.parent.stat().st_mode & 0o777 == 0o700
    assert ledger_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in ledger_file.parent.iterdir()] == ["gpu"]


def test_each_sees_what_the_others_wrote_last(open_ledger):
    first, second = open_ledger(), open_ledger()
    assert (sit(first, holding(1)), sit(second, holding(2))) == (0, 1)
    assert seats(first) == [(0, holding(1)), (1, holding(2))]
    for count in range(3, 9):
        with second.turn() as turn:
            turn.write(holding(count))
        assert seats(first) == [(0, holding(1)), (1, holding(count))]
        assert seats(second) == seats(first)


def test_a_turn_shows_what_was_said_when_it_began(open_ledger):
    ledger = open_ledger()
    sit(ledger, holding(1))
    with ledger.turn() as turn:
        turn.write(holding(2))
        turn.write(holding(3))
        assert turn.living == [(0, holding(1))]
    assert seats(ledger) == [(0, holding(3))]


def test_who_leaves_is_gone_and_the_seat_is_free(open_ledger):
    first, second = open_ledger(), open_ledger()
    sit(first, holding(1))
    with first.turn() as turn:
        turn.leave()
    with second.turn() as turn:
        assert (turn.living, turn.orphaned, turn.unknown) == ([], [], [])
    assert first.seat is None
    assert sit(second, holding(2)) == 0
    assert sit(first, holding(3)) == 1


def test_who_closes_without_leaving_is_an_orphan_until_forgotten(open_ledger):
    first, second = open_ledger(), open_ledger()
    sit(first, holding(1))
    first.close()
    first.close()
    with second.turn() as turn:
        assert turn.living == []
        assert turn.orphaned == [(0, holding(1))]
        assert turn.take_seat(holding(2)).place == 1  # what is quarantined is no free seat
    with second.turn() as turn:
        turn.forget(0)
    with second.turn() as turn:
        assert turn.living == [(1, holding(2))]
        assert turn.orphaned == []
    assert sit(open_ledger(), holding(3)) == 0


def test_a_living_seat_cannot_be_forgotten(open_ledger):
    first, second = open_ledger(), open_ledger()
    sit(first, holding(1))
    with second.turn() as turn, pytest.raises(ValueError, match=r"seat 0 .* is not that of a dead process"):
        turn.forget(0)


def test_a_record_of_a_newer_version_is_read_and_left_as_it_is(open_ledger, ledger_file):
    old = open_ledger()
    new = Ledger.open(ledger_file, device=DEVICE, capacity=CAPACITY, record=HoldingOfTomorrow)
    sit(old, holding(1))
    sit(new, HoldingOfTomorrow(count=2, check=14, parked=5))
    bytes_of_new = ledger_file.read_bytes()[start_of(1) : start_of(2)]
    for count in range(3, 6):
        with old.turn() as turn:
            assert turn.living[1] == (1, Holding(count=2, check=14))
            turn.write(holding(count))
    assert ledger_file.read_bytes()[start_of(1) : start_of(2)] == bytes_of_new
    assert seats(new) == [
        (0, HoldingOfTomorrow(os.getpid(), 5, 35)),
        (1, HoldingOfTomorrow(count=2, check=14, parked=5)),
    ]
    new.close()


def test_a_record_whose_fields_are_of_other_types_is_unknown_and_not_none(open_ledger, ledger_file):
    class Strange(msgspec.Struct, frozen=True):
        count: str = ""

    ledger, strange = open_ledger(), Ledger.open(ledger_file, device=DEVICE, capacity=CAPACITY, record=Strange)
    sit(strange, Strange("many"))
    with ledger.turn() as turn:
        assert [(one.place, one.is_living) for one in turn.unknown] == [(0, True)]
        assert "Expected `int`, got `str`" in turn.unknown[0].reason
    strange.close()
    with ledger.turn() as turn:
        assert [(one.place, one.is_living) for one in turn.unknown] == [(0, False)]
        turn.forget(0)
    with ledger.turn() as turn:
        assert turn.unknown == []


def test_a_record_that_is_too_long_changes_nothing(open_ledger):
    ledger = open_ledger()
    with ledger.turn() as turn, pytest.raises(ValueError, match=r"of 6\d\d bytes is too long .* \(at most 498\)"):
        turn.take_seat(Holding(note="x" * 600))
    sit(ledger, holding(1))
    with ledger.turn() as turn, pytest.raises(ValueError, match="too long"):
        turn.write(Holding(note="x" * 600))
    assert seats(ledger) == [(0, holding(1))]


def test_there_is_an_end_to_seats(open_ledger):
    ledgers = [open_ledger() for _ in range(MOST_SEATS)]
    assert [sit(ledger, holding(place)) for place, ledger in enumerate(ledgers)] == list(range(MOST_SEATS))
    assert len(seats(ledgers[0])) == MOST_SEATS
    one_more = open_ledger()
    with one_more.turn() as turn, pytest.raises(LedgerFullError, match=r"all 256 are taken; end some"):
        turn.take_seat(holding(0))


@pytest.mark.parametrize(
    "options",
    [{"frozen": False}, {"frozen": True, "array_like": True}, {"frozen": True, "forbid_unknown_fields": True}],
)
def test_a_record_that_other_versions_could_not_read_is_refused(ledger_file, options):
    record = msgspec.defstruct("Record", [("count", int, 0)], **options)
    with pytest.raises(TypeError, match="Record cannot be a ledger's record: make it a frozen"):
        Ledger.open(ledger_file, device=DEVICE, capacity=CAPACITY, record=record)


def test_a_record_with_a_field_that_older_ones_lack_is_refused(ledger_file):
    record = msgspec.defstruct("Record", [("count", int)], frozen=True)
    with pytest.raises(TypeError, match="all have defaults"):
        Ledger.look(ledger_file, record=record)


def test_nothing_is_written_outside_a_turn_nor_without_a_seat(open_ledger):
    ledger = open_ledger()
    with ledger.turn() as turn, pytest.raises(ValueError, match=r"no seat .* take_seat\(\) first"):
        turn.write(holding(1))
    for call in (lambda: turn.take_seat(holding(1)), lambda: turn.write(holding(1)), turn.leave):
        with pytest.raises(ValueError, match="is over, or has not begun"):
            call()
    sit(ledger, holding(1))
    with ledger.turn() as turn, pytest.raises(ValueError, match="has the seat 0"):
        turn.take_seat(holding(2))


def test_a_closed_ledger_says_so(open_ledger):
    ledger = open_ledger()
    ledger.close()
    with pytest.raises(LedgerGoneError, match="is closed in this process; open it again"):
        ledger.turn().__enter__()


def test_two_turns_at_once_exclude_each_other_within_a_process_too(open_ledger):
    ledger, other = open_ledger(patience=0.05), open_ledger(patience=0.05)
    with ledger.turn():
        for one in (ledger, other):
            with pytest.raises(LedgerBusyError, match=rf"locked for 0\.\d s by process {os.getpid()}; continue"):
                one.turn().__enter__()
    assert seats(other) == []


async def test_a_turn_is_waited_for_without_blocking_the_loop(open_ledger):
    ledger, other = open_ledger(), open_ledger()
    order = []

    async def enter():
        async with other.turn():
            order.append("entered")

    with ledger.turn():
        waiting = asyncio.create_task(enter())
        for _ in range(100):
            await asyncio.sleep(0)
        order.append("left")
    await waiting
    assert order == ["left", "entered"]


async def test_who_gives_up_waiting_for_a_turn_holds_nothing(open_ledger):
    ledger, other = open_ledger(), open_ledger()
    with ledger.turn():
        waiting = asyncio.create_task(other.turn().__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert seats(ledger) == []
    assert seats(other) == []


async def test_a_turn_that_cannot_be_had_is_told_on_the_loop_as_well(open_ledger):
    ledger, other = open_ledger(), open_ledger(patience=0.05)
    with ledger.turn():
        with pytest.raises(LedgerBusyError) as caught:
            await other.turn().__aenter__()
        assert caught.value.waited >= 0.05
        assert caught.value.holder == f"process {os.getpid()}"
    async with other.turn() as turn:
        assert turn.living == []


async def test_an_error_inside_a_turn_ends_it(open_ledger):
    ledger = open_ledger()
    with pytest.raises(RuntimeError, match="mine"):
        async with ledger.turn():
            raise RuntimeError("mine")
    assert seats(ledger) == []


def test_a_ledger_that_was_cut_short_forgets_nobody_who_lives(open_ledger, ledger_file):
    ledgers = [open_ledger() for _ in range(3)]
    for count, ledger in enumerate(ledgers):
        sit(ledger, holding(count))
    os.truncate(ledger_file, start_of(1) + SLOT_NBYTES // 3)
    for looker in (*ledgers, open_ledger()):
        with looker.turn() as turn:
            assert turn.living == [(0, holding(0))]
            assert [(one.place, one.is_living) for one in turn.unknown] == [(1, True), (2, True)]
    for count, ledger in enumerate(ledgers):
        with ledger.turn() as turn:
            turn.write(holding(count))
    assert seats(open_ledger()) == [(place, holding(place)) for place in range(3)]


@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
def test_a_ledger_that_is_not_the_one_at_its_path_any_more_is_not_used(open_ledger, ledger_file, how):
    ledger = open_ledger()
    sit(ledger, holding(1))
    if how == "removed":
        ledger_file.unlink()
    else:
        ledger_file.rename(ledger_file.with_name("other"))
    if how == "replaced":
        open_ledger()
    with pytest.raises(LedgerGoneError, match=r"was removed, or begun anew.*restart all processes"):
        ledger.turn().__enter__()


def test_the_clock_of_a_ledger_goes_on(open_ledger):
    before = now()
    open_ledger()
    assert now() > before > 0.0
