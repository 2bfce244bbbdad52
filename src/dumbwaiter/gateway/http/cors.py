"""Which web pages may call the gateway from a browser: none, unless the settings name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp

METHODS = ("GET", "HEAD", "POST", "PUT")
REQUEST_HEADERS = (
    "Authorization",
    "X-API-Key",
    "Content-Type",
    "Prefer",
    "Idempotency-Key",
    "Last-Event-ID",
    "Dumbwaiter-Deadline",
    "Dumbwaiter-Priority",
    "Dumbwaiter-Tenant",
    "Inference-Header-Content-Length",
    "traceparent",
)
RESPONSE_HEADERS = (
    "Location",
    "Retry-After",
    "X-Prediction-Id",
    "Preference-Applied",
    "Server-Timing",
    "Inference-Header-Content-Length",
)


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """*app*, which pages of *origins* may call (``*``: all) and whose headers they may read. Cookies are never asked
    for: a page shows who it is by an API key.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=list(origins),
        allow_methods=METHODS,
        allow_headers=REQUEST_HEADERS,
        expose_headers=RESPONSE_HEADERS,
        max_age=3600,
    )
