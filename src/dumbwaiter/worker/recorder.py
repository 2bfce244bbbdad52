"""The flight recorder: what the runner is doing with each input, in memory that survives its death.

The runner writes a state per slot into a shared memory file; after a crash the consumer reads who was being decoded or
run at that moment, and blames only those. It also shows how long the present step has been going on.
"""

from __future__ import annotations

import mmap
import os
import struct
from enum import IntEnum

from dumbwaiter.models.contract import LARGEST_BATCH

SLOTS = 2 * LARGEST_BATCH
_ENTRY = struct.Struct("<Bxxxxxxxd")
_NBYTES = SLOTS * _ENTRY.size


class State(IntEnum):
    """What is happening to the input in a slot. DECODING and RUNNING are the ones that can kill."""

    IDLE = 0
    DECODING = 1
    RUNNING = 2


_STATES = frozenset(State)


class FlightRecorder:
    """SLOTS entries of (state, since when on the monotonic clock) in a memory file that both processes map."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _NBYTES)

    @classmethod
    def create(cls) -> FlightRecorder:
        """A fresh recorder; hand its *fd* to the runner."""
        fd = os.memfd_create("dumbwaiter-recorder")
        os.ftruncate(fd, _NBYTES)
        return cls(fd)

    def mark(self, slot: int, state: State, now: float) -> None:
        """Say what is being done with the input in *slot* from *now* on."""
        _ENTRY.pack_into(self._map, slot * _ENTRY.size, state, now)

    def read(self, slot: int) -> tuple[State, float]:
        """The state of *slot* and since when."""
        state, since = _ENTRY.unpack_from(self._map, slot * _ENTRY.size)
        # A model that writes to descriptors that are not its own may have written here: it is busy, and no good sign.
        return State(state) if state in _STATES else State.RUNNING, since

    def busy(self, slots: list[int]) -> list[int]:
        """Those of *slots* that were being decoded or run."""
        return [slot for slot in slots if self.read(slot)[0] is not State.IDLE]

    def longest(self, slots: list[int], now: float) -> float:
        """Seconds for which the oldest present step has been going on, 0.0 if there is none."""
        entries = (self.read(slot) for slot in slots)
        return max((now - since for state, since in entries if state is not State.IDLE), default=0.0)

    def close(self) -> None:
        """Unmap and close the memory file."""
        self._map.close()
        os.close(self.fd)
