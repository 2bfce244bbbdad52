"""A ledger that was spoiled misleads nobody: what cannot be trusted is unknown, and its living owners mend it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_process import Holding, holding, opened

from dumbwaiter.devices.ledger import Ledger
from dumbwaiter.devices.ledger.errors import LedgerRefusedError
from dumbwaiter.devices.ledger.file import HEADER_NBYTES, SLOT_NBYTES, start_of

LIVING, LEFT, DEAD = 0, 1, 2
"""The seats of the ledger: one in which somebody sits, one that was left, one whose owner is dead."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A ledger in which every seat was written to several times; its owner's view, and its bytes."""
    path = tmp_path_factory.mktemp("damage") / "ledgers" / "gpu"
    ledgers = [opened(path) for _ in range(3)]
    for ledger in ledgers:
        for count in range(1, 4):
            with ledger.turn() as turn:
                turn.write(holding(count)) if ledger.seat else turn.take_seat(holding(count))
    with ledgers[LEFT].turn() as turn:
        turn.leave()
    ledgers[DEAD].close()
    yield ledgers[LIVING], path.read_bytes()
    for ledger in ledgers:
        ledger.close()


def spoil(path, content, *flips):
    """Write *content* to the file, with bits of some bytes flipped."""
    spoiled = bytearray(content)
    for where, flip in flips:
        spoiled[where] ^= flip
    with path.open("r+b") as file:
        file.write(spoiled)


def look(path):
    """What a newcomer sees: living, orphaned, and the places of the unknown."""
    with contextlib.closing(Ledger.look(path, record=Holding)) as ledger, ledger.turn() as turn:
        return dict(turn.living), dict(turn.orphaned), {one.place: one.is_living for one in turn.unknown}


def spots(start, end):
    return st.tuples(st.integers(start, end - 1), st.integers(1, 255))


@given(spots(0, HEADER_NBYTES))
def test_any_spoiled_byte_of_the_header_is_told_and_mended_by_whoever_has_it_open(shared, spot):
    ledger, content = shared
    spoil(ledger.path, content, spot)
    with pytest.raises(LedgerRefusedError, match=r"is no ledger|has a damaged header"):
        look(ledger.path)
    with ledger.turn() as turn:
        assert dict(turn.living) == {LIVING: holding(3)}
    assert ledger.path.read_bytes() == content


@given(spots(start_of(LIVING), start_of(LIVING + 1)))
def test_a_living_seat_with_any_spoiled_byte_is_unknown_until_its_owner_writes(shared, spot):
    ledger, content = shared
    spoil(ledger.path, content, spot)
    assert look(ledger.path) == ({}, {DEAD: holding(3)}, {LIVING: True})
    with ledger.turn() as turn:
        assert [one.place for one in turn.unknown] == [LIVING]
        turn.write(holding(9))
    assert look(ledger.path) == ({LIVING: holding(9)}, {DEAD: holding(3)}, {})


@given(spots(start_of(LEFT), start_of(LEFT + 1)))
def test_a_free_seat_with_any_spoiled_byte_is_unknown_until_it_is_forgotten(shared, spot):
    ledger, content = shared
    spoil(ledger.path, content, spot)
    # The copy before the last may still be read: then it is that one, for the last may have been cut off.
    living, orphaned, unknown = look(ledger.path)
    assert living == {LIVING: holding(3)}
    assert (orphaned.get(LEFT), unknown) in [(holding(3), {}), (None, {LEFT: False})]
    with ledger.turn() as turn:
        turn.forget(LEFT)
    assert look(ledger.path) == ({LIVING: holding(3)}, {DEAD: holding(3)}, {})


@given(spots(start_of(DEAD), start_of(DEAD + 1)))
def test_a_dead_seat_with_any_spoiled_byte_says_one_of_the_last_two_things_it_said(shared, spot):
    ledger, content = shared
    spoil(ledger.path, content, spot)
    living, orphaned, unknown = look(ledger.path)
    assert living == {LIVING: holding(3)}
    assert orphaned[DEAD] in {holding(3), holding(2)}
    assert unknown == {}


@given(st.sampled_from([LIVING, LEFT, DEAD]), st.data())
def test_a_seat_whose_copies_are_both_spoiled_is_unknown(shared, place, data):
    ledger, content = shared
    start, half = start_of(place), SLOT_NBYTES // 2
    first, second = (data.draw(spots(begin, begin + half)) for begin in (start, start + half))
    spoil(ledger.path, content, first, second)
    assert look(ledger.path)[2] == {place: place == LIVING}


@given(st.lists(spots(0, start_of(DEAD + 1)), max_size=6))
def test_whatever_is_spoiled_no_record_is_read_that_was_not_written(shared, flips):
    ledger, content = shared
    spoil(ledger.path, content, *flips)
    with contextlib.suppress(LedgerRefusedError):
        living, orphaned, unknown = look(ledger.path)
        assert set(living.items()) <= {(LIVING, holding(3))}
        assert set(orphaned) <= {LEFT, DEAD}
        assert set(orphaned.values()) <= {holding(2), holding(3)}
        assert {LIVING, DEAD} <= {*living, *orphaned, *unknown}


def test_a_living_seat_of_zeros_is_unknown_and_no_free_one(shared):
    ledger, content = shared
    start, end = start_of(LIVING), start_of(LIVING + 1)
    spoil(ledger.path, content[:start] + bytes(end - start) + content[end:])
    assert look(ledger.path) == ({}, {DEAD: holding(3)}, {LIVING: True})
    with contextlib.closing(opened(ledger.path)) as other, other.turn() as turn:
        assert turn.take_seat(holding(1)).place == LEFT
