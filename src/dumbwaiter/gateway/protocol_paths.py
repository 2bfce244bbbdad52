"""Which paths are the Open Inference Protocol's. Pure: those who serve it and those who describe it agree by this."""

from __future__ import annotations

ROOT, HEALTH = "/v2", "/v2/health"


def told_as_error(path: str) -> bool:
    """Whether problems at *path* are told as clients of the protocol read them: below ``/v2``, but for health, which is
    for whoever runs the gateway, and of which no client reads more than the status.
    """
    return path == ROOT or (path.startswith(f"{ROOT}/") and not path.startswith(f"{HEALTH}/"))
