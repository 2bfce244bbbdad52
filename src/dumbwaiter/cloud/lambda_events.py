"""What events of AWS Lambda say and what its limits are, beyond what Mangum makes of them. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Scope

MOST_NBYTES = 6 * 1024 * 1024
"""Lambda lets no larger response through. https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""
MOST_NBYTES_BALANCED = 1_000_000
"""Nor does a load balancer, whose callers get a 502 without a word instead. AWS says "1 MB"; it may mean a little more.
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
"""
API_GATEWAY_WITHIN = 28.0
"""API Gateway gives up after 29 (REST APIs) or 30 seconds (HTTP APIs), whatever the function's own timeout."""
_UNESCAPED = frozenset({"AWS_Lambda_python3.12", "AWS_Lambda_python3.13"})
"""The runtimes whose JSON is UTF-8. In that of others what is not ASCII takes six bytes, or twelve: their client, which
sends what a handler has returned, goes by the same names in AWS_EXECUTION_ENV. https://pypi.org/project/awslambdaric/
"""
_LONGEST_ESCAPE = 12
LAST_WORDS = 2.0
"""So many seconds before the function's timeout what it answers should be on its way."""


def seconds_left(context: Any, event: dict[str, Any]) -> float:
    """How long the answer to *event* may still take: less than the function has, and than API Gateway waits."""
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    left = remaining() / 1000.0 - LAST_WORDS if remaining is not None else API_GATEWAY_WITHIN
    request = event.get("requestContext", {})
    waits_long = is_balanced(event) or ".lambda-url." in str(request.get("domainName", ""))
    return float(left if waits_long else min(left, API_GATEWAY_WITHIN))


def is_balanced(event: dict[str, Any]) -> bool:
    """Whether *event* comes from a load balancer."""
    return "elb" in event.get("requestContext", {})


def most_nbytes(event: dict[str, Any]) -> int:
    """How large the response to *event* may be, as JSON."""
    return MOST_NBYTES_BALANCED if is_balanced(event) else MOST_NBYTES


def below_its_stage(scope: Scope, event: dict[str, Any]) -> Scope:
    """The path of an HTTP API begins with its stage, unless that is the default one."""
    stage = event["requestContext"].get("stage", "$default") if event.get("version") == "2.0" else "$default"
    path, prefix = scope["path"], f"/{stage}"
    if stage == "$default" or not (path + "/").startswith(prefix + "/"):
        return scope
    return {**scope, "path": path[len(prefix) :] or "/"}


def nbytes_of(response: dict[str, Any], most: int, *, runtime: str) -> int:
    """What *response* takes on its way out, as JSON of *runtime*, by its name. One that is far below *most* is not
    measured.
    """
    body = response.get("body") or ""
    if len(body) * _LONGEST_ESCAPE <= most:
        return len(body)
    return len(json.dumps(response, ensure_ascii=runtime not in _UNESCAPED).encode())
