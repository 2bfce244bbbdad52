"""The answer to a request, as a message: an output or a failure, with where the time went.

Gateways, clients and workers all speak it, and the result objects in the blob store hold it.
"""

from __future__ import annotations

import time

import msgspec

from dumbwaiter.errors import PredictionError
from dumbwaiter.message import (
    KEEP,
    PREDICTION_FAILED,
    PREDICTION_SUCCEEDED,
    WEBHOOK,
    Failure,
    Message,
    Timings,
    is_url,
)

_TIMINGS = "timings"
_encode_timings = msgspec.json.Encoder().encode
_decode_timings = msgspec.json.Decoder(Timings).decode


def succeeded(request: Message, *, body: bytes, content_type: str, timings: Timings) -> Message:
    """The reply that carries the model's output for *request*."""
    return _answer(request, PREDICTION_SUCCEEDED, body, content_type, timings)


def failed(request: Message, failure: Failure, *, timings: Timings | None = None) -> Message:
    """The reply that says why *request* has no output; its body is the Failure as JSON."""
    return _answer(request, PREDICTION_FAILED, msgspec.json.encode(failure), "application/json", timings or Timings())


def failure_of(answer: Message) -> Failure | None:
    """The failure that *answer* carries, or None when it carries an output."""
    if answer.type != PREDICTION_FAILED:
        return None
    return msgspec.json.decode(answer.body, type=Failure)


def raise_for_failure(answer: Message) -> Message:
    """Return *answer* when it carries an output; raise PredictionError otherwise."""
    failure = failure_of(answer)
    if failure is not None:
        raise PredictionError(failure)
    return answer


def is_kept(request: Message) -> bool:
    """Whether the answer to *request* is kept as a result: nobody waits at an inbox, or it is wanted as well."""
    return (
        request.reply_to is None
        or is_url(request.reply_to)
        or request.extensions.get(KEEP) == "true"
        or WEBHOOK in request.extensions
    )


def timings_of(answer: Message) -> Timings:
    """Where the time of the answered request went."""
    return _decode_timings(answer.extensions[_TIMINGS]) if _TIMINGS in answer.extensions else Timings()


def _answer(request: Message, kind: str, body: bytes, content_type: str, timings: Timings) -> Message:
    return Message(
        body=body,
        content_type=content_type,
        type=kind,
        subject=request.subject,
        time=time.time(),
        correlation_id=request.correlation_id or request.id,
        trace_parent=request.trace_parent,
        tenant=request.tenant,
        extensions={_TIMINGS: _encode_timings(timings).decode()},
    )
