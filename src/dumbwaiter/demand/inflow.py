"""Messages that came to a queue, told from counts that are seen one after the other and never quite agree. Pure.

What came so far is what is there plus what has left. What is there the broker tells now; what has left, workers tell
some seconds later. So the sum dips while a burst is worked off and comes back when they have told, and what comes
beyond its highest point is new. A dip that stays, as after a purge, is forgiven after WINDOW seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from dumbwaiter.policies.scaling import arrivals

WINDOW = 20.0
"""Seconds within which every worker that lives has told what it settled."""
FORGOTTEN_AFTER = 600.0
"""A worker that nobody has heard of for so many seconds does not come back."""
MOST_EACH = 10_000.0
"""Messages that one worker can settle in a second, where nobody knows how long one takes."""
SLACK = 4.0
"""One worker settles no more than so many times what is expected of it: those that come may be smaller than usual."""
_TELLS_EVERY = 5.0
_SOME = 16
"""Messages that may be settled in no time: those that run out of time, or that nobody can read."""


def most_each(seconds_each: float | None) -> float:
    """Messages that one worker can settle in a second, where one is expected to take *seconds_each*."""
    return min(MOST_EACH, SLACK / seconds_each) if seconds_each else MOST_EACH


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker has told: *settled* messages in all; *base* of them do not count here; *heard_at*; and *news_at*,
    when it last told more.
    """

    settled: int
    base: int
    heard_at: float
    news_at: float

    @classmethod
    def first(cls, count: int, now: float, *, is_young: bool) -> Told:
        """Of one that was not known."""
        return cls(0, 0, now, now) if is_young else cls(count, count, now, now)

    def after(self, count: int, now: float, most_each: float) -> Told:
        """It says *count* now. What is more than *most_each* a second since it last told more is damage or a lie, and
        does not count, now or later.
        """
        if count <= self.settled:
            return Told(self.settled, self.base, now, self.news_at)
        most = _SOME + math.ceil(min(now - self.news_at + _TELLS_EVERY, WINDOW) * most_each)
        return Told(count, self.base + max(0, count - self.settled - most), now, now)


@dataclass(frozen=True, slots=True)
class Inflow:
    """What is remembered between two looks: the workers by name, and the *sums* of the last WINDOW seconds."""

    workers: Mapping[str, Told] = field(default_factory=dict)
    gone: int = 0
    sums: tuple[tuple[float, int], ...] = ()

    def after(
        self,
        there: int,
        settled: Mapping[str, int],
        now: float,
        *,
        young: frozenset[str],
        most_each: float = MOST_EACH,
    ) -> tuple[Inflow, int]:
        """*there* messages are in the queue, waiting or in flight, and each worker has settled so many: the new state,
        and how many have come since the look before; 0 at the first look, which has nothing to compare with.

        *young*: the workers that were started after the look before. Of another one that was not known what it has
        settled so far is no news. No worker settles more than *most_each* a second.
        """
        known = {name: told for name, told in self.workers.items() if now - told.heard_at <= FORGOTTEN_AFTER}
        forgotten = [told for name, told in self.workers.items() if name not in known]
        gone = self.gone + sum(told.settled - told.base for told in forgotten)
        for name, count in settled.items():
            told = known.get(name) or Told.first(count, now, is_young=name in young)
            known[name] = told.after(count, now, most_each)
        left = gone + sum(told.settled - told.base for told in known.values())
        recent = [(at, total) for at, total in self.sums if now - at <= WINDOW] or list(self.sums[-1:])
        came = arrivals(before=max(total for _, total in recent), after=there, settled=left) if recent else 0
        return Inflow(known, gone, (*recent, (now, there + left))), came
