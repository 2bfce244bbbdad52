"""The bytes of a ledger: what was spoiled is noticed, and what was cut off leaves what was there before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.devices.ledger.file import (
    BLANK,
    HEADER_NBYTES,
    MOST_RECORD_NBYTES,
    SLOT_NBYTES,
    Header,
    NoLedgerError,
    header_page,
    next_write,
    read_header,
    read_slot,
)

HEADER = Header(format=1, oldest_writer=1, device="GPU-1", capacity=8, boot="b", clock="c")
payloads = st.binary(min_size=1, max_size=MOST_RECORD_NBYTES)
flips = st.integers(1, 255)


def put(slot, payload):
    start, content = next_write(read_slot(slot), payload)
    return slot[:start] + content + slot[start + len(content) :]


def slot_of(*written):
    slot = bytes(SLOT_NBYTES)
    for payload in written:
        slot = put(slot, payload)
    return slot


def flipped(content, where, flip):
    return content[:where] + bytes([content[where] ^ flip]) + content[where + 1 :]


@given(st.lists(payloads, min_size=1, max_size=5))
def test_a_slot_says_what_was_written_last(written):
    slot = read_slot(slot_of(*written))
    assert (slot.payload, slot.is_whole) == (written[-1], True)


def test_a_slot_that_was_never_used_is_blank_and_one_that_was_emptied_is_not():
    assert read_slot(bytes(SLOT_NBYTES)) is BLANK
    emptied = read_slot(slot_of(b"one", b""))
    assert (emptied.payload, emptied.is_whole) == (b"", True)
    assert emptied.number > 0


@given(st.lists(payloads, min_size=1, max_size=3), st.integers(0, SLOT_NBYTES - 1), flips)
def test_any_byte_that_is_spoiled_is_noticed(written, where, flip):
    slot = read_slot(flipped(slot_of(*written), where, flip))
    assert not slot.is_whole
    assert slot.payload in written


@given(payloads, payloads, st.integers(0, SLOT_NBYTES // 2 - 1), st.integers(SLOT_NBYTES // 2, SLOT_NBYTES - 1), flips)
def test_a_slot_whose_copies_are_both_spoiled_says_nothing_until_it_is_written(payload, other, first, second, flip):
    spoiled = flipped(flipped(slot_of(payload), first, flip), second, flip)
    assert read_slot(spoiled).payload is None
    mended = read_slot(put(spoiled, other))
    assert (mended.payload, mended.is_whole) == (other, True)


@given(payloads, st.integers(0, SLOT_NBYTES - 1), flips, payloads)
def test_one_write_mends_a_slot_that_is_spoiled_anywhere(payload, where, flip, other):
    mended = read_slot(put(flipped(slot_of(payload, payload), where, flip), other))
    assert (mended.payload, mended.is_whole) == (other, True)


@given(st.lists(payloads, min_size=1, max_size=3), payloads, st.data())
def test_a_write_that_was_cut_off_leaves_the_record_before_it(written, payload, data):
    slot = slot_of(*written)
    start, content = next_write(read_slot(slot), payload)
    done = data.draw(st.integers(0, len(content)))
    torn = slot[:start] + content[:done] + slot[start + done :]
    assert read_slot(torn).payload in {written[-1], payload}


@given(payloads, st.integers(0, SLOT_NBYTES))
def test_a_first_write_that_was_cut_off_is_never_another_record(payload, done):
    _, content = next_write(BLANK, payload)
    torn = read_slot(content[:done].ljust(SLOT_NBYTES, b"\0"))
    assert torn.payload in {payload, None} or torn is BLANK


@pytest.mark.parametrize("half", [0, SLOT_NBYTES // 2])
def test_a_copy_that_was_overwritten_with_zeros_is_noticed(half):
    slot = slot_of(b"one", b"two")
    end = half + SLOT_NBYTES // 2
    assert not read_slot(slot[:half] + bytes(SLOT_NBYTES // 2) + slot[end:]).is_whole


def test_a_copy_in_the_place_of_the_other_is_noticed():
    slot, half = slot_of(b"one", b"two"), SLOT_NBYTES // 2
    assert read_slot(slot[half:] + slot[:half]).payload is None


def test_a_record_that_is_too_long_is_refused():
    assert read_slot(slot_of(b"x" * 498)).payload == b"x" * 498
    with pytest.raises(ValueError, match=r"499 bytes is too long for a ledger \(at most 498\)"):
        next_write(BLANK, b"x" * 499)


def test_a_header_says_whose_ledger_it_is():
    page = header_page(HEADER)
    assert len(page) == HEADER_NBYTES
    assert read_header(page) == HEADER


def test_a_header_with_fields_of_a_newer_version_is_read():
    class HeaderOfTomorrow(Header, frozen=True, kw_only=True):
        colour: str = "red"

    newer = HeaderOfTomorrow(format=2, oldest_writer=1, device="GPU-1", capacity=8, boot="b", clock="c")
    assert read_header(header_page(newer)).format == 2


@given(st.integers(0, HEADER_NBYTES - 1), flips)
def test_any_byte_of_the_header_that_is_spoiled_is_noticed(where, flip):
    with pytest.raises(NoLedgerError, match=r"is no ledger|has a damaged header"):
        read_header(flipped(header_page(HEADER), where, flip))


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", header_page(HEADER)[:-1]])
def test_what_is_no_header_is_told(content):
    with pytest.raises(NoLedgerError):
        read_header(content)


def test_a_header_without_what_it_needs_is_told():
    page = header_page(Header(format="one", oldest_writer=1, device="GPU-1", capacity=8, boot="b", clock="c"))
    with pytest.raises(NoLedgerError, match="header of another kind"):
        read_header(page)


def test_a_device_with_an_endless_name_has_no_ledger():
    with pytest.raises(ValueError, match=r"'xxx.* is too long"):
        header_page(Header(format=1, oldest_writer=1, device="x" * 2000, capacity=8, boot="b", clock="c"))
