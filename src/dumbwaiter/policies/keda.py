"""What KEDA and its HPA are told of a pool, wherever they are: in a cluster, or simulated. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dumbwaiter.policies.scaling import COLD_STARTS, Look, Rules

LEAST_WINDOW, LONGEST_WINDOW = 300, 3600
"""Of the HPA's stabilisation: its own default, and the most that it takes."""


@dataclass(frozen=True, slots=True)
class KedaTimes:
    """Whole seconds, as a ScaledObject has them. *polling_interval*: between two looks of KEDA's; *cooldown*: after the
    last sign of work, until it ends all workers at once; *window*: for so long the HPA goes by the most that it wanted.
    """

    polling_interval: int
    cooldown: int
    window: int


def keda_times(*, polling_interval: float, scale_in_after: float, idle_after: float, cold_start: float) -> KedaTimes:
    """Those of a model whose settings say so."""
    window = max(LEAST_WINDOW, scale_in_after, COLD_STARTS * cold_start)
    return KedaTimes(
        polling_interval=math.ceil(polling_interval),
        cooldown=math.ceil(max(idle_after, cold_start)),
        window=min(LONGEST_WINDOW, math.ceil(window)),
    )


def cold_start_of(told: float | None, *, boot: float, measured: float) -> float:
    """Seconds from ordering a worker to its first batch: as the settings have *told*, or else what its node and image
    take to come, and what its process and model were *measured* to take from there (0.0: not yet).
    """
    return boot + measured if told is None else told


def is_active(look: Look, rules: Rules, *, has_queue: bool = True) -> bool:
    """Whether the pool must not have zero workers: something waits or runs, or came and went since the look before, or
    the settings say so, or a first worker is to make the queue.

    Decision.raw is no answer: by the load of the last minutes it stays above 0 long after the last message.
    """
    return not look.is_idle or look.arrived > 0 or rules.min_replicas > 0 or not has_queue
