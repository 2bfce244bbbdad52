"""From an answer to an HTTP response. Pure.

JSON and text come back inside a prediction object (the shape of Replicate and Cog); bytes such as pictures come back as
they are. ``Accept`` can ask for text as it is, and for bytes as a ``data:`` URL inside the object.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.answers import timings_of

if TYPE_CHECKING:
    from dumbwaiter.gateway.problems import Headers
    from dumbwaiter.message import Message, Timings


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time went, in seconds."""

    queued_time: float
    batched_time: float
    predict_time: float
    batch_size: int


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a successful response."""

    id: str
    model: str
    status: str
    output: msgspec.Raw
    metrics: Metrics


_encode = msgspec.json.Encoder().encode


def write_answer(answer: Message, *, id_: str, model: str, accept: str) -> tuple[Headers, bytes]:
    """Headers and body of the 200 response for a successful *answer*; *accept* is the request's Accept header."""
    content_type = answer.content_type or "application/octet-stream"
    timings = timings_of(answer)
    output = _as_json(content_type, answer.body, accept)
    if output is None:
        body = answer.body
    else:
        content_type, body = "application/json", _prediction(output, timings, id_=id_, model=model)
    headers: Headers = [
        (b"content-type", content_type.encode("latin-1", "replace")),
        (b"content-length", str(len(body)).encode()),
        (b"server-timing", server_timing(timings).encode()),
        (b"x-prediction-id", id_.encode("latin-1", "replace")),
    ]
    return headers, body


def server_timing(timings: Timings) -> str:
    """*timings* as a Server-Timing header (W3C), in milliseconds."""
    return (
        f"queued;dur={timings.queued * 1e3:.3f}, batched;dur={timings.batched * 1e3:.3f}, "
        f'predict;dur={timings.device * 1e3:.3f}, batch;desc="{timings.batch_size}"'
    )


def _prediction(output: bytes, timings: Timings, *, id_: str, model: str) -> bytes:
    metrics = Metrics(
        queued_time=round(timings.queued, 6),
        batched_time=round(timings.batched, 6),
        predict_time=round(timings.device, 6),
        batch_size=timings.batch_size,
    )
    prediction = Prediction(id=id_, model=model, status="succeeded", output=msgspec.Raw(output), metrics=metrics)
    return _encode(prediction) + b"\n"


def _as_json(content_type: str, body: bytes, accept: str) -> bytes | None:
    """The output as a JSON value, or None when it is to be sent as it is."""
    base = content_type.partition(";")[0].strip().lower()
    if base == "application/json" or base.endswith("+json"):
        return body
    as_it_is, as_object = quality(accept, base), quality(accept, "application/json")
    if base.startswith("text/"):
        if as_it_is > as_object:
            return None
        try:
            return _encode(body.decode())
        except UnicodeDecodeError:
            return None
    # Most clients say */* and mean "whatever you have".
    if as_object > as_it_is:
        return _encode(f"data:{content_type};base64,{base64.b64encode(body).decode()}")
    return None


def quality(accept: str, media_type: str) -> float:
    """How welcome *media_type* is by name or by family (RFC 9110, 12.5.1): 0 to 1; ``*/*`` does not count."""
    best = 0.0
    family = media_type.partition("/")[0] + "/*"
    for offer in accept.split(","):
        name, *parameters = (part.strip().lower() for part in offer.split(";"))
        if name in (media_type, family):
            weights = [p[2:] for p in parameters if p.startswith("q=")]
            best = max(best, _weight(weights[0]) if weights else 1.0)
    return best


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
