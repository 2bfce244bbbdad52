"""Where the scaler listens, which KEDA asks: the table ``scaler``."""

from __future__ import annotations

import msgspec

from dumbwaiter.config.quantities import Port, Span


class ScalerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a scaler is reached. Port 0 takes a free one.

    *grpc_port* is for KEDA's external and external-push triggers, *http_port* for its metrics-api trigger and for
    probes. *certfile* and *keyfile* (PEM) switch TLS on for both. While a queue is empty and somebody is to be told of
    its first message, it is looked at *glance_every* so often, less often where the broker takes long to tell.
    """

    host: str = "127.0.0.1"
    grpc_port: Port = 9090
    http_port: Port = 8090
    certfile: str | None = None
    keyfile: str | None = None
    glance_every: Span = 0.04
