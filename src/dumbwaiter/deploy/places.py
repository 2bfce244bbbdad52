"""What an image of a project and its pods agree on: where things lie, which ports listen, who runs. Pure."""

from __future__ import annotations

PROJECT = "/app"
"""The project's folder in the image, from which models are imported."""
USER = 10001
"""User and group of all processes."""
SETTINGS = "/etc/dumbwaiter"
"""The folder of dumbwaiter.toml."""
STATE = "/run/dumbwaiter"
"""A container's own: what it holds, its sign of life. It outlives the container, not the pod."""
LEDGERS = "/run/ledgers"
"""What the containers that share a GPU write down there."""
BLOBS = "/var/lib/dumbwaiter"
"""A volume for a blob store of files."""
CERTIFICATES = "/etc/dumbwaiter-certificates"
GOOGLE = "/etc/dumbwaiter-google"
HEARTBEAT = f"{STATE}/heartbeat"

GATEWAY_PORT = 8080
SCALER_PORT, SCALER_HTTP_PORT = 9090, 8090
"""KEDA's gRPC, and the page with the same numbers beside ``/healthz``."""
