"""How long ago each worker was heard of, by one watcher's own clock. Pure.

Workers say when they spoke by the clocks of their machines, which may be wrong: one that was set back leaves behind
what seems to have been said in the future. So what counts is what the watcher saw change; only of what it sees for the
first time it takes the moment that is written there, if that can be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dumbwaiter.blobs.presence import WorkerStatus

AHEAD = 5.0
"""What is dated so many seconds ahead is by a clock that is wrong: nobody knows how old it is until it changes."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """What is remembered between two looks, the last one at *at*: of each worker the moment that it named, and when
    that was by the watcher's own clock.
    """

    heard: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    at: float = -math.inf

    def after(self, said: Sequence[WorkerStatus], *, wall: float, now: float) -> tuple[Hearing, dict[str, float]]:
        """A look at *now*, and at *wall* seconds since the Unix epoch, found what was *said*: the new state, and for
        how many seconds each worker has been silent; infinite where that cannot be told.
        """
        heard = {status.worker: (status.announced_at, self._heard_at(status, wall, now)) for status in said}
        return Hearing(heard, now), {name: now - at for name, (_, at) in heard.items()}

    def _heard_at(self, status: WorkerStatus, wall: float, now: float) -> float:
        before = self.heard.get(status.worker)
        if before is not None and before[0] == status.announced_at:
            return before[1]
        age = wall - status.announced_at
        if before is None:
            return now - max(0.0, age) if age >= -AHEAD else -math.inf
        # It has spoken since the last look, whatever its clock says.
        return now - min(max(0.0, age), now - self.at)
