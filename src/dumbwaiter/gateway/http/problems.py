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
    BlobError,
    BrokerError,
    DumbwaiterError,
    MessageTooLargeError,
    PredictionError,
    PredictionTimeoutError,
)

if TYPE_CHECKING:
    from dumbwaiter.message import Failure

Headers = list[tuple[bytes, bytes]]

CONTENT_TYPE = b"application/problem+json"
LONGEST_DETAIL = 1000
RETRY_SOON, RETRY_LATER = 1, 5

#: Failure code -> status; any other code is the model's own trouble: 500.
STATUS_OF_FAILURE: Mapping[str, int] = {
    "bad-input": 422,
    "canceled": 409,
    "deadline-exceeded": 504,
    "transient": 503,
    "runner-crashed": 502,
    "runner-hung": 502,
}


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


#: Errors whose own text may be shown outside: type, status, code, seconds until another try makes sense.
_RULES: tuple[tuple[type[DumbwaiterError], int, str, int | None], ...] = (
    (PredictionTimeoutError, 504, "no-answer-in-time", None),
    (BadInputError, 422, "bad-input", None),
    (ModelFailingError, 503, "model-failing", RETRY_LATER),
    (ShuttingDownError, 503, "shutting-down", RETRY_SOON),
    (MessageTooLargeError, 413, "body-too-large", None),
)


def problem_of(error: DumbwaiterError) -> Problem:
    """The problem that tells a caller of *error*."""
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, PredictionError):
        return _of_failure(error.failure)
    for kind, status, code, retry_after in _RULES:
        if isinstance(error, kind):
            return Problem(status=status, code=code, detail=one_line(str(error)), retry_after=retry_after)
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
    status = STATUS_OF_FAILURE.get(failure.code, 500)
    return Problem(
        status=status,
        code=failure.code,
        detail=one_line(failure.message),
        retry_after=RETRY_SOON if status == 503 else None,
        members={"attempts": failure.attempts},
    )


def _of_infrastructure(error: DumbwaiterError) -> Problem:
    if isinstance(error, BrokerError):
        detail = "the message broker cannot be reached now; the request may not have been queued: ask again"
        return Problem(status=503, code="broker-unavailable", detail=detail, retry_after=RETRY_SOON)
    if isinstance(error, BlobError):
        detail = "the blob store that large bodies travel through does not work now: ask again"
        return Problem(status=503, code="blob-store-unavailable", detail=detail, retry_after=RETRY_SOON)
    return Problem(status=500, code="internal-error", detail="the gateway failed; its log says why")
