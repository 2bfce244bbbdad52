"""A change of what is on the device is seen in its checksums."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dumbwaiter.models.parking.checksums import checked_nbytes, checksums

NBYTES = (1 << 20) + 70_000
CHECKED = checked_nbytes(NBYTES)
PLACES = st.integers(0, CHECKED - 8)
DATA = torch.randint(0, 256, (NBYTES,), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
SUMS = checksums(torch, DATA)


def test_the_same_bytes_have_the_same_checksums():
    assert torch.equal(SUMS, checksums(torch, DATA.clone()))


@settings(max_examples=50)
@given(place=PLACES, value=st.integers(0, 255))
def test_a_byte_that_changes_is_seen(place, value):
    assume(DATA[place] != value)
    changed = DATA.clone()
    changed[place] = value
    assert not torch.equal(SUMS, checksums(torch, changed))


@settings(max_examples=50)
@given(one=PLACES, other=PLACES)
def test_numbers_that_change_places_are_seen(one, other):
    one, other = one // 4 * 4, other // 4 * 4
    changed = DATA.clone()
    changed[one : one + 4], changed[other : other + 4] = DATA[other : other + 4], DATA[one : one + 4]
    assume(not torch.equal(changed[one : one + 4], DATA[one : one + 4]))
    assert not torch.equal(SUMS, checksums(torch, changed))


@pytest.mark.parametrize("distance", [8, 64, 65_536, 131_072, 65_544])
def test_neighbours_that_change_places_are_seen(distance):
    changed = DATA.clone()
    changed[:8], changed[distance : distance + 8] = DATA[distance : distance + 8], DATA[:8]
    assert not torch.equal(SUMS, checksums(torch, changed))


@pytest.mark.parametrize("shift", [1, 4, 8, 65_536, 500_000])
def test_a_buffer_that_moves_on_is_seen(shift):
    assert not torch.equal(SUMS, checksums(torch, DATA.roll(shift)))


def test_all_but_the_end_is_checked():
    assert CHECKED <= NBYTES < CHECKED + 65_536


def test_what_is_small_is_not_worth_a_look():
    assert checked_nbytes((1 << 20) - 1) == 0
    assert checksums(torch, DATA[: 1 << 19]) is None
