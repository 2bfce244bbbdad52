"""From a gateway's response to the answer that a worker gave, or to the error that says why there is none. Pure."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter import retry_after
from dumbwaiter.answers import failed, succeeded
from dumbwaiter.content_types import parse_content_type
from dumbwaiter.envelope import parse_time
from dumbwaiter.errors import (
    AccessError,
    BadInputError,
    GatewayError,
    GatewayUnavailableError,
    InputRefusedError,
    PredictionNotFoundError,
    PredictionTimeoutError,
    UnknownModelError,
)
from dumbwaiter.message import Failure, Message, Timings
from dumbwaiter.prediction import FINAL, Links, Metrics, PredictionFailure, Status

if TYPE_CHECKING:
    import httpx

LONGEST_SHOWN = 200
_INPUT_STATUSES = frozenset({400, 413, 415, 422})
_TIMING = re.compile(r"(\w+);(?:dur=([\d.]+)|desc=\"(\d+)\")")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction object, as far as clients read it."""

    id: str
    status: Status
    output: msgspec.Raw = msgspec.Raw(b"null")
    output_url: str | None = None
    error: PredictionFailure | None = None
    metrics: Metrics | None = None
    completed_at: str | None = None
    queue_position: int | None = None
    urls: Links | None = None

    @property
    def has_ended(self) -> bool:
        """Whether there is an answer."""
        return self.status in FINAL

    @property
    def is_linked(self) -> bool:
        """Whether the output is too long to stand here."""
        return self.output_url is not None


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    code: str = ""
    detail: str = ""
    attempts: int | None = None
    models: list[str] = []


_decode_prediction = msgspec.json.Decoder(Seen).decode
_decode_problem = msgspec.json.Decoder(_Document).decode


def prediction_of(url: str, response: httpx.Response) -> Seen:
    """The prediction object that *response* holds. Raises GatewayError when it holds none."""
    try:
        return _decode_prediction(response.content)
    except (msgspec.DecodeError, RecursionError):
        raise not_a_gateway(url, response) from None


def is_prediction(response: httpx.Response) -> bool:
    """Whether *response* holds a prediction object rather than an output as it is."""
    return parse_content_type(response.headers.get("content-type")).essence == "application/json"


def answer_in(seen: Seen, *, model: str | None, tenant: str | None = None) -> Message:
    """The answer in a prediction that has ended."""
    request = Message(id=seen.id, subject=model, tenant=tenant)
    timings = _timings_from(seen.metrics)
    if seen.status == "succeeded":
        answer = succeeded(request, body=bytes(seen.output), content_type="application/json", timings=timings)
    else:
        why = seen.error or PredictionFailure(code=seen.status, message=seen.status)
        answer = failed(request, Failure(code=why.code, message=why.message, attempts=why.attempts), timings=timings)
    return msgspec.structs.replace(answer, time=_time_of(seen.completed_at) or answer.time)


def raw_answer(response: httpx.Response, *, id_: str, model: str | None, tenant: str | None = None) -> Message:
    """The answer whose output is the body of *response*."""
    id_ = response.headers.get("x-prediction-id") or id_
    content_type = response.headers.get("content-type", "application/octet-stream")
    timings = _timings_in(response.headers.get("server-timing", ""))
    return succeeded(
        Message(id=id_, subject=model, tenant=tenant),
        body=response.content,
        content_type=content_type,
        timings=timings,
    )


def failure_in(response: httpx.Response, *, id_: str, model: str | None) -> Message | None:
    """The failure that a worker answered with, told as a problem; None for any other problem."""
    document = _document_in(response)
    if document is None or document.attempts is None:
        return None
    id_ = response.headers.get("x-prediction-id") or id_
    failure = Failure(code=document.code, message=document.detail, attempts=document.attempts)
    return failed(Message(id=id_, subject=model), failure)


def is_pending(response: httpx.Response) -> bool:
    """Whether *response* says that there is no output yet."""
    document = _document_in(response) if response.status_code == 404 else None
    return document is not None and document.code == "no-output-yet"


def tells(response: httpx.Response) -> bool:
    """Whether *response* tells of the prediction: that it succeeded, failed, or has not ended yet."""
    if response.is_success or is_pending(response):
        return True
    document = _document_in(response)
    return document is not None and document.attempts is not None


def error_of(url: str, response: httpx.Response, *, model: str | None = None, id_: str | None = None) -> Exception:
    """Why *response* holds no answer."""
    if response.is_redirect:
        elsewhere = response.headers.get("location", "?")[:LONGEST_SHOWN]
        return GatewayError(url, f"it is at {elsewhere} now; use that URL", status=response.status_code)
    document = _document_in(response)
    if document is None:
        return not_a_gateway(url, response)
    status, code, detail = response.status_code, document.code, document.detail
    if status == 404 and code == "unknown-model":
        return UnknownModelError(url, model or "", detail, document.models)
    if status == 404 and id_ is not None:
        return PredictionNotFoundError(url, id_, detail)
    if status == 504:
        return PredictionTimeoutError(detail)
    kind: type[GatewayError] = GatewayError
    if status in {401, 403}:
        kind = AccessError
    elif status in _INPUT_STATUSES:
        kind = InputRefusedError
    elif status in {502, 503}:
        kind = GatewayUnavailableError
    return kind(url, detail, status=status, code=code, retry_after=_wait_of(response))


def _wait_of(response: httpx.Response) -> float | None:
    return retry_after.seconds_of(response.headers.get("retry-after"), now=time.time())


def not_a_gateway(url: str, response: httpx.Response) -> GatewayError:
    """Whatever answers there does not speak as a gateway does."""
    said = " ".join(response.text[:LONGEST_SHOWN].split())
    detail = f"no gateway answers like this: {said or 'an empty body'}; check the URL"
    kind = GatewayUnavailableError if response.status_code in {502, 503, 504} else GatewayError
    return kind(url, detail, status=response.status_code, retry_after=_wait_of(response))


def _document_in(response: httpx.Response) -> _Document | None:
    if parse_content_type(response.headers.get("content-type")).essence != "application/problem+json":
        return None
    try:
        return _decode_problem(response.content)
    except (msgspec.DecodeError, RecursionError):
        return None


def _timings_from(metrics: Metrics | None) -> Timings:
    if metrics is None:
        return Timings()
    return Timings(
        queued=metrics.queued_time,
        batched=metrics.batched_time,
        device=metrics.predict_time,
        batch_size=metrics.batch_size,
    )


def _timings_in(header: str) -> Timings:
    """What a Server-Timing header says, from milliseconds."""
    found = {name: (duration, count) for name, duration, count in _TIMING.findall(header)}

    def seconds(name: str) -> float:
        try:
            return float(found.get(name, ("0", ""))[0] or 0) / 1e3
        except ValueError:
            return 0.0

    batch_size = int(found.get("batch", ("", "1"))[1] or 1)
    return Timings(
        queued=seconds("queued"), batched=seconds("batched"), device=seconds("predict"), batch_size=batch_size
    )


def _time_of(text: str | None) -> float | None:
    try:
        return None if text is None else parse_time("completed_at", text)
    except BadInputError:
        return None
