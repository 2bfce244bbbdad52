"""Notifications: what a worker puts on the webhooks queue so that a courier tells somebody how a request is getting on.

A notification names the result, and the courier fetches it: no output travels twice. Whoever sends one again for the
same answer (a worker that got the request a second time) makes the same message id, which is also the ``webhook-id``
that receivers see: brokers drop the double where they can, and receivers can tell it where they cannot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

from dumbwaiter.errors import BadInputError
from dumbwaiter.message import PREDICTION_NOTIFIED, WEBHOOK, WEBHOOK_EVENTS, Message, WebhookEvent, is_url

Event = WebhookEvent
Style = Literal["webhook", "reply"]
EVENTS: Sequence[Event] = get_args(Event)


class Notification(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Tell *url* of *event* of the request *id*, a prediction by *model*.

    *style* ``webhook``: the prediction object; ``reply``: the answer as it is, as a CloudEvent over HTTP. *prediction*
    is the object to send where there is no result yet (all events but ``completed``). *created_at*: when the request
    was made, in seconds since the Unix epoch, where it is known. *answer* is the id of the answer that it tells of:
    where another one is stored by now, the request was redriven, and that one has a notification of its own.
    """

    id: str
    model: str
    url: str
    event: Event = "completed"
    style: Style = "webhook"
    created_at: float | None = None
    answer: str | None = None
    prediction: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(Notification).decode


def wants(request: Message, event: Event) -> bool:
    """Whether the webhook of *request*, if it has one, is to be told of *event*. By default only of ``completed``."""
    if WEBHOOK not in request.extensions:
        return False
    chosen = request.extensions.get(WEBHOOK_EVENTS, "completed")
    return event in {name.strip() for name in chosen.split(",")}


def completed(request: Message, answer: Message, *, model: str) -> list[Message]:
    """The messages for the webhooks queue now that *answer* is the stored result of *request*; often none."""
    sent = []
    if wants(request, "completed"):
        about = _about(request, model, request.extensions[WEBHOOK], "webhook", answer.id)
        sent.append(_message(request, about, answer.id))
    if request.reply_to is not None and is_url(request.reply_to):
        about = _about(request, model, request.reply_to, "reply", answer.id)
        sent.append(_message(request, about, answer.id))
    return sent


def progressed(request: Message, event: Event, prediction: bytes, *, model: str, occasion: str) -> list[Message]:
    """The message that tells of *event*, or none when the caller did not ask for it.

    *prediction* is the object to send, as JSON; *occasion* tells this time from others of the same event (such as the
    event's id).
    """
    if not wants(request, event):
        return []
    about = _about(request, model, request.extensions[WEBHOOK], "webhook")
    about = msgspec.structs.replace(about, event=event, prediction=msgspec.Raw(prediction))
    return [_message(request, about, occasion)]


def read(message: Message) -> Notification:
    """The notification that *message* carries. Raises BadInputError when it carries none."""
    try:
        return _decode(message.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(f"not a notification: {error}") from None


def _about(request: Message, model: str, url: str, style: Style, answer: str | None = None) -> Notification:
    return Notification(id=request.id, model=model, url=url, style=style, created_at=request.time, answer=answer)


def _message(request: Message, about: Notification, occasion: str) -> Message:
    # Ids of requests may be any text; this one has to fit into a header, and into a signature that is split at dots.
    named = msgspec.json.encode([about.id, about.event, about.style, about.url, occasion])
    return Message(
        body=msgspec.json.encode(about),
        id=f"msg_{hashlib.sha256(named).hexdigest()[:40]}",
        content_type="application/json",
        type=PREDICTION_NOTIFIED,
        subject=about.model,
        trace_parent=request.trace_parent,
        correlation_id=request.id,
        tenant=request.tenant,
    )
