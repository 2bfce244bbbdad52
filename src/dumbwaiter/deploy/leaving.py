"""How long a worker that must leave is given, by what was measured of its batches. Pure."""

from __future__ import annotations

import math

from dumbwaiter.deploy.models import Model
from dumbwaiter.policies.leaving import SHARE_FOR_BATCH

ROOM_OF_NODE = 5
"""Seconds between the end of a worker's grace and that of its node."""
ROOM = 10
"""Seconds between the end of a worker's grace and SIGKILL."""


def grace(model: Model, least: float, notice: float | None = None) -> int:
    """How long a worker may take from SIGTERM to its end, at *least* so long, but no longer than the *notice* of nodes
    that are taken back: what is not done by then is handed back while there is time.

    The batch that runs gets its part of it: 999 of 1,000 batches, and loading the model, for the runner may have just
    been started again. While that was not measured it is the model's timeout, which no batch outlives.
    """
    batch = model.measured.long_batch
    longest = model.settings.timeout if batch is None else batch + model.measured.load_seconds
    wanted = math.ceil(max(least, longest / SHARE_FOR_BATCH))
    return wanted if notice is None else max(1, min(wanted, math.floor(notice) - ROOM_OF_NODE))


def termination(grace_seconds: float) -> int:
    """After how many seconds whoever runs it kills a process that has so much *grace*."""
    return math.ceil(grace_seconds) + ROOM
