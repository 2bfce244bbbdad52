"""How many workers a model gets: the table ``scaling``, and for one model ``models.NAME.scaling``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from dumbwaiter.config.quantities import MaybeSeconds, Replicas, Seconds, SomeReplicas, Span


class ScalingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's workers follow its work; policies.scaling gives the formulas.

    A model with *max_replicas* gets between *min_replicas* and so many workers; without it, ``models.NAME.replicas``.
    *signal* says what is followed: the work that waits and comes (``work``), the number of messages (``messages``,
    *messages_each* to a worker) or how long the oldest has waited (``age``, *age_target*). For ``work``, what waits is
    to be done within *drain_target*, and *spare* is the safety above the load that comes, in square roots of it;
    *age_target* is when something is taken to be wrong with the estimate.

    More workers come at once; fewer when they were too many for *scale_in_after*, or three cold starts if that is
    longer; none when nothing waited or ran for *idle_after*, or for a cold start. *cold_start* is the time from
    ordering a worker to its first batch (None: as it was measured). It is looked at *look_every* so often.
    """

    signal: Literal["work", "messages", "age"] = "work"
    min_replicas: Replicas = 0
    max_replicas: SomeReplicas | None = None
    drain_target: Span = 5.0
    spare: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 3.0
    age_target: Span = 10.0
    messages_each: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)] = 2.0
    scale_in_after: Seconds = 60.0
    idle_after: Seconds = 60.0
    cold_start: MaybeSeconds = None
    look_every: Span = 2.0

    @property
    def is_on(self) -> bool:
        """Whether the number of workers changes at all."""
        return self.max_replicas is not None
