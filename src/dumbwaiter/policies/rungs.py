"""What a batch of some size takes: the rungs of the ladder that admission climbs. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rung:
    """A batch of *size* takes *nbytes* of activation and runs for *seconds*."""

    size: int
    nbytes: int
    seconds: float
