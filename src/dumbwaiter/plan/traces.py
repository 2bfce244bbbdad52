"""What comes: the requests of one pool, each with its moment, its size and what it adds to its batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Sizes: TypeAlias = npt.NDArray[np.int64]

USUAL_NBYTES = 100_000
"""The size of an input of which nothing else is known."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order: *arrivals* in seconds from the start, *each*: the seconds that each adds to its batch, and
    *nbytes* of their bodies. *duration*: how long was watched, of which the last request may know nothing.
    """

    name: str
    arrivals: Floats
    each: Floats
    nbytes: Sizes
    duration: float

    def __post_init__(self) -> None:
        if not len(self.arrivals) == len(self.each) == len(self.nbytes):
            raise ValueError(f"trace {self.name}: its columns have different lengths")

    def __len__(self) -> int:
        return len(self.arrivals)

    @property
    def work(self) -> float:
        """Seconds that all inputs together add to their batches."""
        return float(self.each.sum())


def in_order(name: str, arrivals: Floats, each: Floats, nbytes: Sizes, duration: float | None = None) -> Trace:
    """A trace of requests in any order, from the first of them on where nobody says how long was watched."""
    order = np.argsort(arrivals, kind="stable")
    arrivals = arrivals[order]
    if duration is None:
        arrivals = arrivals - arrivals[0] if len(arrivals) else arrivals
        duration = float(arrivals[-1]) if len(arrivals) else 0.0
    return Trace(name, arrivals, each[order], nbytes[order], duration)


def faster(trace: Trace, times: float) -> Trace:
    """*trace* replayed *times* as fast; its inputs take as long as before."""
    return Trace(trace.name, trace.arrivals / times, trace.each, trace.nbytes, trace.duration / times)
