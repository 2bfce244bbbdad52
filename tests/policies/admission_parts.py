"""What simulations of admission are put together from: models, their workers, what is done wrongly, what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dumbwaiter.policies.admission import Rung, Seat

GIB = 2**30
FOR_EVER = 10**9


class BrokenRuleError(AssertionError):
    """Something happened that must not."""


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    full: int
    parked: int
    ladder: tuple[Rung, ...]
    load_seconds: float
    reload_seconds: float
    park_seconds: float
    weight: float = 1.0

    def seat(self, now: float, *, probe_seconds: float = 0.0) -> Seat:
        return Seat(
            model=self.name,
            weight=self.weight,
            full=self.full,
            parked=self.parked,
            need=self.ladder[0].nbytes,
            seconds=self.ladder[0].seconds,
            longest=max(self.ladder[-1].seconds, probe_seconds),
            load_seconds=self.load_seconds,
            reload_seconds=self.reload_seconds,
            park_seconds=self.park_seconds,
            looked_at=now,
        )


@dataclass(slots=True)
class Worker:
    model: Model
    place: int
    work: int = 0
    polls: bool = False
    probe_seconds: float = 0.0
    epoch: int = 0
    must_start_by: float = math.inf
    bound: float = math.inf
    promised_at: float = 0.0
    asked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Switches:
    """What may be done wrongly, to see that it would be noticed."""

    first_fit: bool = False
    ignores_reserve: bool = False
    evicts_busy: bool = False


RIGHT = Switches()


@dataclass(slots=True)
class Outcome:
    batches: dict[str, int] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)
    longest_wait: dict[str, float] = field(default_factory=dict)
    waits_over_bound: list[float] = field(default_factory=list)
    evictions: int = 0
    errors: int = 0
    crashes: int = 0
    leaks: int = 0
    hangs: int = 0
    events: int = 0
    backfills: int = 0
    seconds: float = 0.0
