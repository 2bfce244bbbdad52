"""Messages that came to a queue, told from counts that are seen one after the other and never quite agree. Pure.

What came so far is what is there plus what has left. What is there the broker tells now; what has left, workers tell
some seconds later. So the sum dips while a burst is worked off and comes back when they have told, and what comes
beyond its highest point is new. A dip that stays, as after a purge, is forgiven after WINDOW seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dumbwaiter.policies.scaling import arrivals

WINDOW = 20.0
"""Seconds within which every worker that lives has told what it settled."""
FORGOTTEN_AFTER = 600.0
"""A worker that nobody has heard of for so many seconds does not come back."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker has told: *settled* messages in all; *base* of them before it counted here; *heard_at*."""

    settled: int
    base: int
    heard_at: float


@dataclass(frozen=True, slots=True)
class Inflow:
    """What is remembered between two looks: the workers by name, and the *sums* of the last WINDOW seconds."""

    workers: Mapping[str, Told] = field(default_factory=dict)
    gone: int = 0
    sums: tuple[tuple[float, int], ...] = ()

    def after(self, there: int, settled: Mapping[str, int], now: float, *, young: frozenset[str]) -> tuple[Inflow, int]:
        """*there* messages are in the queue, waiting or in flight, and each worker has settled so many: the new state,
        and how many have come since the look before; 0 at the first look, which has nothing to compare with.

        *young*: the workers that were started after the look before. Of another one that was not known what it has
        settled so far is no news.
        """
        known = {name: told for name, told in self.workers.items() if now - told.heard_at <= FORGOTTEN_AFTER}
        forgotten = [told for name, told in self.workers.items() if name not in known]
        gone = self.gone + sum(told.settled - told.base for told in forgotten)
        for name, count in settled.items():
            told = known.get(name)
            base = told.base if told is not None else 0 if name in young else count
            known[name] = Told(max(count, told.settled if told else 0), base, now)
        left = gone + sum(told.settled - told.base for told in known.values())
        recent = [(at, total) for at, total in self.sums if now - at <= WINDOW] or list(self.sums[-1:])
        came = arrivals(before=max(total for _, total in recent), after=there, settled=left) if recent else 0
        return Inflow(known, gone, (*recent, (now, there + left))), came
