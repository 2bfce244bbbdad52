"""Which of a model's workers is sent away first. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Stage: TypeAlias = Literal["failing", "starting", "loading", "draining", "ready"]
"""How far a worker is, those that do no work first."""
_STAGES: tuple[Stage, ...] = get_args(Stage)


def turn(stage: Stage, *, in_hand: int, place: int) -> tuple[int, int, int]:
    """When a worker's turn comes to be sent away: the least goes first. *in_hand*: its messages; *place*: the more, the
    later it was started.

    Those that do no work go before those that serve, then whoever has least to finish; of equals the newest, which is
    the farthest from serving, or the one that others would have to warm up for. Kubernetes, too, goes by readiness,
    pod-deletion-cost and age.
    """
    return _STAGES.index(stage), in_hand, -place
