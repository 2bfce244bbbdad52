"""The prediction object: what callers see of a request, in responses, events and webhooks. Pure.

Source of the shape: Replicate's and Cog's HTTP APIs (https://github.com/replicate/cog/blob/main/docs/http.md). JSON and
text outputs stand in it as JSON values; bytes such as pictures as a ``data:`` URL. Of a kept one a long output does not
stand in it: `output` is null, and `output_url`, which is there only then, says where it is.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dumbwaiter import data_urls
from dumbwaiter.answers import failure_of, timings_of
from dumbwaiter.content_types import parse_content_type
from dumbwaiter.envelope import format_time
from dumbwaiter.message import Failure, Message, Timings, WebhookEvent

CANCELED = "canceled"
"""The failure code of a request that was cancelled."""
INLINE_NBYTES = 1024 * 1024
"""Longer outputs do not stand in a kept prediction; it links to them."""

Status = Literal["starting", "processing", "succeeded", "failed", "canceled"]
FINAL = frozenset({"succeeded", "failed", "canceled"})

UNMEASURED = Timings()
"""Of what no worker had in hand, such as what was cancelled while it waited."""
_NULL = msgspec.Raw(b"null")
_encode_json = msgspec.json.Encoder().encode


class Metrics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where the time went, in seconds."""

    queued_time: float
    batched_time: float
    predict_time: float
    batch_size: int


class Links(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a kept prediction is read, followed, cancelled, and its output had as it is."""

    get: str
    cancel: str
    stream: str
    output: str


class PredictionFailure(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why there is no output: Failure without what only the system's own people should see. All of it is written."""

    code: str
    message: str
    attempts: int = 1


class Prediction(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Times are RFC 3339 text. *queue_position* counts those that are served before it, where the broker knows.

    *output_url* is there where an output is too long for *output*, which is null then: a link in its place would be
    taken for a text that the model wrote.
    """

    id: str
    model: str
    status: Status
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    output_url: str | None = None
    error: PredictionFailure | None = None
    metrics: Metrics | None = None
    created_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    queue_position: int | None = None
    urls: Links | None = None


class ToldPrediction(Prediction, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A prediction as a webhook is told of it, because of *event*.

    While it runs, *output* is the list of the parts, and *logs* the text, that came since the last post of that event.
    *event_id* is that of the last of them, as followers of the events see it. These ids sort as text: as the events
    came, and those of a later attempt, whose name stands before the hyphen, behind those of an earlier one.
    """

    event: WebhookEvent
    event_id: str | None = None
    logs: str | None = None


def as_told(prediction: Prediction, event: WebhookEvent) -> ToldPrediction:
    """*prediction*, which has ended, as a webhook is told of it."""
    return ToldPrediction(event=event, **msgspec.structs.asdict(prediction))


def encode_prediction(prediction: Prediction) -> bytes:
    """*prediction* as one line of JSON, with its newline."""
    return _encode_json(prediction) + b"\n"


def links_of(id_: str, public_url: str | None = None) -> Links:
    """The links of the kept prediction *id_*; paths, unless it is known under which URL callers see this gateway."""
    root = f"{(public_url or '').rstrip('/')}/v1/predictions/{id_}"
    return Links(get=root, cancel=f"{root}/cancel", stream=f"{root}/events", output=f"{root}/output")


def unfinished(
    id_: str, model: str, *, created_at: float, started: bool, links: Links | None, position: int | None = None
) -> Prediction:
    """A kept prediction that has no answer yet."""
    return Prediction(
        id=id_,
        model=model,
        status="processing" if started else "starting",
        created_at=format_time(created_at),
        queue_position=None if started else position,
        urls=links,
    )


def finished(
    answer: Message,
    *,
    id_: str,
    model: str,
    created_at: float | None = None,
    links: Links | None = None,
    linked: bool = False,
) -> Prediction:
    """The prediction that *answer* ends. The same arguments give the same bytes, in whichever process.

    *linked*: the output, which is long, is not in *answer*; the object of a kept one, which has *links*, tells where.
    """
    timings = timings_of(answer)
    failure = failure_of(answer)
    output_url = links.output if links and failure is None and (linked or len(answer.body) > INLINE_NBYTES) else None
    began = None if answer.time is None or not timings.device else answer.time - timings.device
    return Prediction(
        id=id_,
        model=model,
        status=status_of(failure),
        output=msgspec.UNSET if failure else _NULL if output_url else _output(answer),
        output_url=output_url,
        error=None if failure is None else shown_failure(failure),
        metrics=None if failure and timings == UNMEASURED else metrics_of(timings),
        created_at=None if created_at is None else format_time(created_at),
        started_at=None if began is None or links is None else format_time(began),
        completed_at=None if answer.time is None or links is None else format_time(answer.time),
        urls=links,
    )


def status_of(failure: Failure | None) -> Status:
    """How a request ended."""
    if failure is None:
        return "succeeded"
    return "canceled" if failure.code == CANCELED else "failed"


def shown_failure(failure: Failure) -> PredictionFailure:
    """*failure* on one line, without its traceback."""
    return PredictionFailure(code=failure.code, message=failure.message.partition("\n")[0], attempts=failure.attempts)


def metrics_of(timings: Timings) -> Metrics:
    """*timings*, rounded to the microsecond."""
    return Metrics(
        queued_time=round(timings.queued, 6),
        batched_time=round(timings.batched, 6),
        predict_time=round(timings.device, 6),
        batch_size=timings.batch_size,
    )


def output_as_json(content_type: str | None, body: bytes) -> bytes:
    """An output as a JSON value: JSON as it is, text as a string, anything else as a ``data:`` URL."""
    said = parse_content_type(content_type)
    if said.is_json:
        return body
    if said.is_text:
        try:
            return _encode_json(body.decode())
        except UnicodeDecodeError:
            pass
    return _encode_json(data_urls.write(content_type, body))


def _output(answer: Message) -> msgspec.Raw:
    return msgspec.Raw(output_as_json(answer.content_type, answer.body))
