"""A ring wakes who waits in another seat, and one that is lost costs a look and no more."""

from __future__ import annotations

import asyncio
import os

import pytest
from ledger_process import holding

from dumbwaiter.devices.ledger import bells

pytestmark = pytest.mark.anyio


@pytest.fixture
def two_seats(open_ledger):
    """Two ledgers with the seats 0 and 1."""
    ledgers = open_ledger(), open_ledger()
    for count, ledger in enumerate(ledgers):
        with ledger.turn() as turn:
            assert turn.take_seat(holding(count)).place == count
    return ledgers


@pytest.fixture
def polls_rarely(monkeypatch):
    """So that only a ring can end a wait."""
    monkeypatch.setattr(bells, "POLL_EVERY", 1000.0)


async def test_who_waits_is_woken_by_a_ring(two_seats, polls_rarely):
    first, second = two_seats
    waiting = asyncio.create_task(second.seat.rung(1000.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    first.ring([1])
    assert await waiting is True


async def test_a_ring_before_the_wait_counts_and_counts_once(two_seats, polls_rarely):
    first, second = two_seats
    first.ring([0, 1])
    first.ring([1])
    assert await second.seat.rung(1000.0) is True
    assert await second.seat.rung(0.0) is False


async def test_all_who_wait_in_one_seat_are_woken(two_seats, polls_rarely):
    first, second = two_seats
    waiting = [asyncio.create_task(second.seat.rung(1000.0)) for _ in range(3)]
    await asyncio.sleep(0)
    first.ring([1])
    assert await asyncio.gather(*waiting) == [True, True, True]


async def test_who_gives_up_waiting_takes_no_ring_from_the_others(two_seats, polls_rarely):
    first, second = two_seats
    waiting = [asyncio.create_task(second.seat.rung(1000.0)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    first.ring([1])
    assert await waiting[1] is True


async def test_without_a_ring_the_wait_ends_in_time_to_look(two_seats):
    assert await two_seats[0].seat.rung(1000.0) is False
    assert await two_seats[0].seat.rung() is False


async def test_ringing_for_seats_that_nobody_has_is_no_error(two_seats, ledger_file):
    first, second = two_seats
    second.close()
    first.ring([1, 7, 255])
    assert sorted(path.name for path in ledger_file.parent.iterdir()) == ["gpu", "gpu.bell-0", "gpu.bell-1"]


async def test_ringing_for_one_who_never_listens_does_not_block(two_seats, polls_rarely):
    first, second = two_seats
    first.ring([1] * 70_000)  # more than a FIFO holds
    assert await second.seat.rung(1000.0) is True


async def test_the_next_in_a_seat_does_not_hear_what_was_rung_for_the_last(two_seats, open_ledger):
    first, second = two_seats
    second.ring([0])
    with first.turn() as turn:
        turn.leave()
    third = open_ledger()
    with third.turn() as turn:
        assert turn.take_seat(holding(3)).place == 0
    assert await third.seat.rung(0.0) is False


async def test_a_seat_that_is_given_up_while_somebody_waits_there_ends_the_wait_in_time(two_seats):
    first, second = two_seats
    waiting = asyncio.create_task(second.seat.rung(1000.0))
    await asyncio.sleep(0)
    second.close()
    first.ring([1])
    assert await waiting is False


async def test_where_no_bell_can_hang_the_seat_is_had_all_the_same(open_ledger, ledger_file, caplog):
    ledger = open_ledger()
    (ledger_file.parent / "gpu.bell-0").write_text("precious")
    with ledger.turn() as turn:
        seat = turn.take_seat(holding(1))
    assert "gpu.bell-0, so looking every 0.05 s instead: another file has its name" in caplog.text
    ledger.ring([0])
    assert await seat.rung(1000.0) is False
    assert (ledger_file.parent / "gpu.bell-0").read_text() == "precious"


async def test_a_link_is_no_bell(open_ledger, ledger_file, tmp_path, caplog):
    os.mkfifo(tmp_path / "elsewhere")
    ledger = open_ledger()
    (ledger_file.parent / "gpu.bell-0").symlink_to(tmp_path / "elsewhere")
    with ledger.turn() as turn:
        turn.take_seat(holding(1))
    assert "gpu.bell-0, so looking" in caplog.text
