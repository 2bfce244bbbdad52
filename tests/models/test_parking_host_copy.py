"""Host memory for what is parked, as one row of bytes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.models.parking import host_copy
from dumbwaiter.models.parking.host_copy import HostCopy

GROWN = st.lists(st.integers(1, 200), min_size=1, max_size=6)


@pytest.fixture(autouse=True, scope="module")
def _small_slabs():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(host_copy, "_SLAB", 32)
        patched.setattr(host_copy, "_LEAST", 4)
        yield


def grown(steps):
    """What has been as long as each of *steps*, and the sizes of its slabs; each byte is its place."""
    sizes = []

    def allocate(nbytes):
        first = sum(sizes)
        sizes.append(nbytes)
        return (torch.arange(first, first + nbytes) % 251).to(torch.uint8)

    host = HostCopy(allocate)
    for step in steps:
        host.reserve(step)
    return host, sizes


@given(steps=GROWN, ends=st.tuples(st.integers(0, 200), st.integers(0, 200)))
def test_a_part_of_it_is_the_same_bytes_wherever_slabs_end(steps, ends):
    host, _ = grown(steps)
    start, stop = sorted(min(end, max(steps)) for end in ends)
    found = [byte for piece in host.pieces(start, stop) for byte in piece.tolist()]
    assert found == [place % 251 for place in range(start, stop)]


@given(steps=GROWN)
def test_it_is_as_long_as_was_asked_for_in_powers_of_two(steps):
    host, sizes = grown(steps)
    assert host.nbytes == sum(sizes) >= max(steps)
    assert all(size in {4, 8, 16, 32} for size in sizes)


@given(steps=GROWN)
def test_what_it_has_it_does_not_take_again(steps):
    host, sizes = grown(steps)
    taken = len(sizes)
    host.reserve(max(steps))
    assert len(sizes) == taken


def test_a_slab_that_cannot_be_had_leaves_the_others():
    def allocate(nbytes):
        if nbytes < 32:
            raise MemoryError
        return torch.zeros(nbytes, dtype=torch.uint8)

    host = HostCopy(allocate)
    with pytest.raises(MemoryError):
        host.reserve(70)
    assert host.nbytes == 64
