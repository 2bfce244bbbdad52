"""A ring wakes who listens in another seat, and one that is lost costs a look and no more."""

from __future__ import annotations

import asyncio
import os

import pytest
from ledger_process import holding

pytestmark = pytest.mark.anyio


class Ear:
    """Hears what is rung for a seat."""

    def __init__(self, seat):
        self.heard = 0
        self._again = asyncio.Event()
        seat.listen(self._hear)

    def _hear(self):
        self.heard += 1
        self._again.set()

    async def hears(self):
        """Whether it hears a ring now, or has heard one since the last call."""
        for _ in range(3):  # a bell that was rung is readable at once, and the loop looks at it in its next round
            await asyncio.sleep(0)
        told = self._again.is_set()
        self._again.clear()
        return told


@pytest.fixture
def two_seats(open_ledger):
    """Two ledgers with the seats 0 and 1."""
    ledgers = open_ledger(), open_ledger()
    for count, ledger in enumerate(ledgers):
        with ledger.turn() as turn:
            assert turn.take_seat(holding(count)).place == count
    return ledgers


async def test_who_listens_hears_each_ring_for_its_seat(two_seats):
    first, second = two_seats
    ear, other = Ear(second.seat), Ear(first.seat)
    assert not await ear.hears()
    first.ring([1])
    assert await ear.hears()
    first.ring([1])
    assert await ear.hears()
    assert not await other.hears()


async def test_a_ring_before_one_listens_counts_and_counts_once(two_seats):
    first, second = two_seats
    first.ring([0, 1])
    first.ring([1])
    ear = Ear(second.seat)
    assert await ear.hears()
    assert not await ear.hears()
    assert ear.heard == 1


async def test_who_listens_last_in_a_seat_hears_alone(two_seats):
    first, second = two_seats
    former, latter = Ear(second.seat), Ear(second.seat)
    first.ring([1])
    assert await latter.hears()
    assert not await former.hears()


async def test_a_seat_that_hears_is_not_deaf(two_seats):
    assert not two_seats[0].seat.is_deaf


async def test_ringing_for_seats_that_nobody_has_is_no_error(two_seats, ledger_file):
    first, second = two_seats
    second.close()
    first.ring([1, 7, 255])
    assert sorted(path.name for path in ledger_file.parent.iterdir()) == ["gpu", "gpu.bell-0", "gpu.bell-1"]


async def test_ringing_for_one_who_never_listens_does_not_block(two_seats):
    first, second = two_seats
    first.ring([1] * 70_000)  # more than a FIFO holds
    assert await Ear(second.seat).hears()


async def test_the_next_in_a_seat_does_not_hear_what_was_rung_for_the_last(two_seats, open_ledger):
    first, second = two_seats
    second.ring([0])
    with first.turn() as turn:
        turn.leave()
    third = open_ledger()
    with third.turn() as turn:
        assert turn.take_seat(holding(3)).place == 0
    ear = Ear(third.seat)
    assert not await ear.hears()
    second.ring([0])
    assert await ear.hears()


async def test_who_gives_its_seat_up_hears_no_more(two_seats):
    first, second = two_seats
    ear, seat = Ear(second.seat), second.seat
    second.close()
    assert seat.is_deaf
    seat.close()
    first.ring([1])
    assert not await ear.hears()


async def test_where_no_bell_can_hang_the_seat_is_had_all_the_same(open_ledger, ledger_file, caplog):
    ledger = open_ledger()
    (ledger_file.parent / "gpu.bell-0").write_text("precious")
    with ledger.turn() as turn:
        seat = turn.take_seat(holding(1))
    assert "gpu.bell-0, so looking every 0.05 s instead: another file has its name" in caplog.text
    assert seat.is_deaf
    ear = Ear(seat)
    ledger.ring([0])
    assert not await ear.hears()
    assert (ledger_file.parent / "gpu.bell-0").read_text() == "precious"


async def test_a_link_is_no_bell(open_ledger, ledger_file, tmp_path, caplog):
    os.mkfifo(tmp_path / "elsewhere")
    ledger = open_ledger()
    (ledger_file.parent / "gpu.bell-0").symlink_to(tmp_path / "elsewhere")
    with ledger.turn() as turn:
        seat = turn.take_seat(holding(1))
    assert "gpu.bell-0, so looking" in caplog.text
    assert seat.is_deaf
