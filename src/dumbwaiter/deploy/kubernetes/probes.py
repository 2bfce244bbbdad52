"""How Kubernetes sees whether a container starts, serves and lives. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.deploy.places import GATEWAY_PORT, SCALER_HTTP_PORT

Object = dict[str, Any]


def of_gateway(*, tls: bool) -> Object:
    """By the health pages of the Open Inference Protocol. Live says that it answers; ready, that the broker does."""

    def at(path: str) -> Object:
        return {"httpGet": {"path": path, "port": GATEWAY_PORT, **_scheme(tls=tls)}, "timeoutSeconds": 5}

    return {
        "startupProbe": {**at("/v2/health/live"), "periodSeconds": 2, "failureThreshold": 60},
        "readinessProbe": {**at("/v2/health/ready"), "periodSeconds": 5, "failureThreshold": 3},
        # A broker that is away is no reason to start a gateway again: so this one does not ask it.
        "livenessProbe": {**at("/v2/health/live"), "periodSeconds": 10, "failureThreshold": 6},
    }


def of_scaler(*, tls: bool) -> Object:
    """By its health page."""
    page = {"httpGet": {"path": "/healthz", "port": SCALER_HTTP_PORT, **_scheme(tls=tls)}, "timeoutSeconds": 5}
    return {
        "startupProbe": {**page, "periodSeconds": 2, "failureThreshold": 60},
        "readinessProbe": {**page, "periodSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {**page, "periodSeconds": 10, "failureThreshold": 6},
    }


def of_worker() -> Object:
    """By the file in which a worker or courier says what it does: it listens nowhere.

    It has started with its first sign of life. Loading a model may take long after that, and a load that hangs is ended
    by the worker itself. Ready says that the model is loaded, so that a roll-out waits for it.
    """
    return {
        "startupProbe": {**_asked("live"), "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": {**_asked("ready"), "periodSeconds": 10, "failureThreshold": 1},
        "livenessProbe": {**_asked("live"), "periodSeconds": 30, "failureThreshold": 3},
    }


def _scheme(*, tls: bool) -> Object:
    return {"scheme": "HTTPS"} if tls else {}


def _asked(what: str) -> Object:
    # Python starts for each look, and on a busy node that takes a while.
    return {"exec": {"command": ["dumbwaiter", "probe", what]}, "timeoutSeconds": 15}
