"""How a gateway behaves."""

from __future__ import annotations

import msgspec

from dumbwaiter.asking import CLAIM_THRESHOLD


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds. Port 0 takes a free one.

    *header_timeout* bounds the wait for a complete request head, from the first byte or, on a fresh connection, from
    the start. *body_timeout* bounds the body; every 64 KiB that arrive add a second. *idle_timeout* is how long a
    connection may rest between two requests. *grace* is how long waiting requests may take once told to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    body_limit: int = 32 * 1024 * 1024
    header_limit: int = 32 * 1024
    default_patience: float = 60.0
    max_patience: float = 600.0
    claim_threshold: int = CLAIM_THRESHOLD
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    idle_timeout: float = 5.0
    max_connections: int = 4096
    grace: float = 30.0
