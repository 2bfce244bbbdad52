"""What events of AWS Lambda say and what its limits are, beyond what Mangum makes of them. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Scope

MOST_NBYTES = 6 * 1024 * 1024
"""Lambda lets no larger response through. https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""
API_GATEWAY_WITHIN = 28.0
"""API Gateway gives up after 29 (REST APIs) or 30 seconds (HTTP APIs), whatever the function's own timeout."""
LAST_WORDS = 2.0
"""So many seconds before the function's timeout what it answers should be on its way."""


def seconds_left(context: Any, event: dict[str, Any]) -> float:
    """How long the answer to *event* may still take: less than the function has, and than API Gateway waits."""
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    left = remaining() / 1000.0 - LAST_WORDS if remaining is not None else API_GATEWAY_WITHIN
    request = event.get("requestContext", {})
    waits_long = "elb" in request or ".lambda-url." in str(request.get("domainName", ""))
    return float(left if waits_long else min(left, API_GATEWAY_WITHIN))


def below_its_stage(scope: Scope, event: dict[str, Any]) -> Scope:
    """The path of an HTTP API begins with its stage, unless that is the default one."""
    stage = event["requestContext"].get("stage", "$default") if event.get("version") == "2.0" else "$default"
    path, prefix = scope["path"], f"/{stage}"
    if stage == "$default" or not (path + "/").startswith(prefix + "/"):
        return scope
    return {**scope, "path": path[len(prefix) :] or "/"}


def nbytes_of(response: dict[str, Any]) -> int:
    """What *response* takes on its way out, as JSON. A small one is not measured."""
    body = response.get("body") or ""
    return len(body) if len(body) * 6 <= MOST_NBYTES else len(json.dumps(response, ensure_ascii=False).encode())
