"""How a worker behaves, whatever its model."""

from __future__ import annotations

import msgspec


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds.

    *grace*: how long after SIGTERM a running batch may still take; *claim_threshold*: replies above so many bytes
    travel by claim check; *max_nbytes_in_hand*: no further large body is fetched while the runner has so many bytes;
    *receive_wait*: how long one receive waits for messages; *load_timeout*: how long the model's
    constructor may take.
    """

    grace: float = 25.0
    claim_threshold: int = 262_144
    max_nbytes_in_hand: int = 268_435_456
    receive_wait: float = 20.0
    load_timeout: float = 600.0
