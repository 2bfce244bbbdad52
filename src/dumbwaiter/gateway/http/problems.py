"""Errors as callers see them: problem+json (RFC 9457). Pure: from an error to a status, a text and headers.

What is said outside names the thing, the reason and the next step, and never shows a traceback or an address within.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.errors import (
    BadInputError,
    BlobDamagedError,
    BlobError,
    BrokerError,
    DumbwaiterError,
    MessageTooLargeError,
    PredictionError,
    PredictionTimeoutError,
)
from dumbwaiter.gateway.http.problem_codes import CODES, code_of_failure

if TYPE_CHECKING:
    from dumbwaiter.message import Failure

Headers = list[tuple[bytes, bytes]]

CONTENT_TYPE = b"application/problem+json"
LONGEST_DETAIL = 1000


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One problem. *code* is stable and for programs; *members* are further facts, shown beside the standard ones.

    *retry_after* is in seconds.
    """

    status: int
    code: str
    detail: str
    retry_after: int | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    members: Mapping[str, Any] = msgspec.field(default_factory=dict)


class ProblemError(DumbwaiterError):
    """Ends a request with *problem*."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.detail)


def problem(status: int, code: str, detail: str, **facts: Any) -> ProblemError:
    """The error that ends a request with such a Problem; *facts* are its other fields."""
    return ProblemError(Problem(status=status, code=code, detail=detail, **facts))


class ModelFailingError(DumbwaiterError):
    """No worker of the model can load it; *reason* is what the latest of them says."""

    def __init__(self, model: str, reason: str) -> None:
        self.model = model
        self.reason = reason
        super().__init__(f"model {model!r} cannot be loaded: {reason or 'its workers do not say why'}")


class ShuttingDownError(DumbwaiterError):
    """The gateway was told to stop and its grace is over."""


class NoAnswerError(PredictionTimeoutError):
    """No answer came in time; *reason* is what the model's workers say of themselves."""

    def __init__(self, error: PredictionTimeoutError, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{error}; {reason}")


#: Errors whose own text may be shown outside, and their codes.
_RULES: tuple[tuple[type[DumbwaiterError], str], ...] = (
    (PredictionTimeoutError, "no-answer-in-time"),
    (BadInputError, "bad-input"),
    (ModelFailingError, "model-failing"),
    (ShuttingDownError, "shutting-down"),
    (MessageTooLargeError, "body-too-large"),
    (BlobDamagedError, "result-damaged"),
)


def problem_of(error: DumbwaiterError) -> Problem:
    """The problem that tells a caller of *error*."""
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, PredictionError):
        return _of_failure(error.failure)
    for kind, code in _RULES:
        if isinstance(error, kind):
            return _known(code, one_line(str(error)))
    return _of_infrastructure(error)


def encode(problem: Problem, *, close: bool = False) -> tuple[Headers, bytes]:
    """Headers and body of the response. With *close* the connection ends after it: the request's body was not read."""
    document = {
        "type": f"urn:dumbwaiter:problem:{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        **problem.members,
    }
    body = msgspec.json.encode(document) + b"\n"
    headers: Headers = [(b"content-type", CONTENT_TYPE), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers.items()]
    if problem.retry_after is not None:
        headers.append((b"retry-after", str(problem.retry_after).encode()))
    if close:
        headers.append((b"connection", b"close"))
    return headers, body


def one_line(text: str) -> str:
    """The first line of *text*, shortened; what follows it may be a traceback."""
    line = text.strip().partition("\n")[0].rstrip()
    return line if len(line) <= LONGEST_DETAIL else line[: LONGEST_DETAIL - 1] + "…"


def _of_failure(failure: Failure) -> Problem:
    code = code_of_failure(failure.code)
    return Problem(
        status=code.status,
        code=failure.code,
        detail=one_line(failure.message),
        retry_after=code.retry_after,
        members={"attempts": failure.attempts},
    )


def _of_infrastructure(error: DumbwaiterError) -> Problem:
    if isinstance(error, BrokerError):
        detail = "the message broker cannot be reached now; the request may not have been queued: ask again"
        return _known("broker-unavailable", detail)
    if isinstance(error, BlobError):
        return _known(
            "blob-store-unavailable", "the blob store that large bodies travel through does not work now: ask again"
        )
    return FAULT


def _known(code: str, detail: str) -> Problem:
    known = CODES[code]
    return Problem(status=known.status, code=code, detail=detail, retry_after=known.retry_after)


FAULT = _known("internal-error", "the gateway failed; its log says why")
"""A fault of ours, of which nothing is told outside."""
