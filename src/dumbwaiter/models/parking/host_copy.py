"""Host memory for what is parked: allocated once, and kept for the next time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_SLAB = 64 << 20
_LEAST = 1 << 20


class HostCopy:
    """A row of bytes that grows and never shrinks.

    It is made of slabs whose sizes are powers of two: torch rounds pinned memory up to the next one, so that a piece of
    4.1 GB would take 8. Pinning takes as long as copying ten to twenty times as much, so no slab is given back.
    """

    def __init__(self, allocate: Callable[[int], Any]) -> None:
        self._allocate = allocate
        self._slabs: list[tuple[int, Any]] = []
        self.nbytes = 0

    def reserve(self, nbytes: int) -> None:
        """Be at least *nbytes* long. What *allocate* raises passes through; what there is stays."""
        while self.nbytes < nbytes:
            lacking = nbytes - self.nbytes
            size = min(_SLAB, max(_LEAST, 1 << (lacking - 1).bit_length()))
            self._slabs.append((self.nbytes, self._allocate(size)))
            self.nbytes += size

    def pieces(self, start: int, stop: int) -> Iterator[Any]:
        """The bytes from *start* up to *stop*, in order, slab by slab; no copies."""
        for first, slab in self._slabs:
            begin, end = max(start - first, 0), min(stop - first, slab.numel())
            if begin < end:
                yield slab[begin:end]
