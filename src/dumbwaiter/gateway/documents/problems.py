"""The problems that the gateway answers with, as the documents tell of them: status, codes, and when. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dumbwaiter.gateway.http.problem_codes import by_status

CODES: Mapping[int, Sequence[str]] = by_status()
"""Stable codes for programs. A model may have codes of its own: 500."""

WHEN: Mapping[int, str] = {
    400: "What came is no request: no body, broken JSON, a header of the wrong form, or against another one.",
    401: "An API key is wanted, and there is none, or not this one.",
    403: "The key is of another tenant, or a web page of another origin asks.",
    404: "There is no such thing; where models are concerned, `models` names those that exist.",
    405: "The route takes another method; `Allow` says which.",
    408: "Head or body did not arrive in time.",
    409: "The same key came with another body, or the prediction was canceled.",
    410: "The prediction is older than results are kept.",
    413: "The body is above the limit.",
    415: "The body's content type, or its encoding, is not taken here.",
    421: "The gateway is not known by this host name.",
    422: "The input is not what the model takes, or names a URL that must not be reached.",
    429: "Too many requests with this key; `Retry-After` says when to ask again.",
    431: "The request's head is above the limit.",
    500: "The model raised an error, or the gateway failed.",
    501: "The body is coded for its transfer in a way that nobody knows here.",
    502: "The model's process died or hung over this input.",
    503: "Not now; `Retry-After` says when to ask again.",
    504: "Nobody answered within the patience or deadline of the caller.",
}

GUARD = (400, 401, 403, 421, 429, 431, 503)
"""What any route may answer, before it is even looked at."""

ERROR: Mapping[str, Any] = {
    "type": "object",
    "description": "Why there is no answer, as the Open Inference Protocol says it.",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "code": {"type": "string", "description": "stable, for programs"}},
}

PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "title": "ProblemDetails",
    "description": "Why there is no answer (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "description": "urn:dumbwaiter:problem:CODE"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "the thing, the reason and the next step, on one line for people"},
        "code": {"type": "string", "description": "stable, and for programs"},
        "attempts": {"type": "integer", "description": "how often it was tried"},
        "models": {"type": "array", "items": {"type": "string"}, "description": "the models that exist"},
    },
}


def responses() -> dict[str, Any]:
    """One reusable response per status, and one in the form of the inference protocol."""
    plain = {f"Problem{status}": _response(status, codes) for status, codes in CODES.items()}
    return plain | {f"Error{status}": _with_error(plain[f"Problem{status}"]) for status in CODES}


def references(*statuses: int, form: str = "Problem") -> dict[str, Any]:
    """The responses of an operation that may answer with the problems of *statuses*; *form* may be ``Error``."""
    return {str(status): {"$ref": f"#/components/responses/{form}{status}"} for status in sorted(statuses)}


def _response(status: int, codes: Sequence[str]) -> dict[str, Any]:
    # A model's own codes come with 500, so there the list is open.
    code = {"type": "string", "examples": list(codes)} if status == 500 else {"enum": list(codes)}
    schema = {
        "allOf": [
            {"$ref": "#/components/schemas/ProblemDetails"},
            {"properties": {"status": {"const": status}, "code": code}},
        ]
    }
    example = {
        "type": f"urn:dumbwaiter:problem:{codes[0]}",
        "title": "...",
        "status": status,
        "detail": WHEN[status],
        "code": codes[0],
    }
    response: dict[str, Any] = {
        "description": f"{WHEN[status]} Codes: {', '.join(f'`{one}`' for one in codes)}.",
        "content": {"application/problem+json": {"schema": schema, "example": example}},
    }
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}
    return response


def _with_error(response: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}, **response["content"]}
    return {**response, "content": content}
