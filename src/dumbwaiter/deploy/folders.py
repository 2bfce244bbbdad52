"""The folders that are rendered into, unless another is named, and where in them secrets are written."""

from __future__ import annotations

KUBERNETES, CHART, COMPOSE, SYSTEMD = RENDERED = ("kubernetes", "chart", "compose", "systemd")
SECRETS = "secrets"
"""In each of them. Neither git nor an image takes what lies there."""
GIT_IGNORES = f"{SECRETS}/\n"
"""The ``.gitignore`` of each."""
