"""Notifications: what a courier is to tell the webhooks and reply URLs of requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from dumbwaiter import notification, prediction
from dumbwaiter.blobs.events import Event
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.errors import BrokerError, QueueNotFoundError
from dumbwaiter.message import WEBHOOK, WEBHOOKS_QUEUE, Message
from dumbwaiter.signing import created_at

_log = logging.getLogger(__name__)


class Notifier:
    """Puts notifications of requests to *model* on the courier's queue, which it creates when it is first needed."""

    def __init__(self, broker: Broker, model: str) -> None:
        self._broker = broker
        self._model = model
        self._has_queue = False

    def completed(self, request: Message, answer: Message) -> list[Message]:
        """What is to be sent now that *answer* is the stored result of *request*; often nothing."""
        return [one for one in notification.completed(request, answer, model=self._model) if self._fits(one)]

    async def send(self, messages: Sequence[Message]) -> None:
        """Send them all; nothing for none. Raises BrokerError."""
        if not messages:
            return
        if not self._has_queue:
            await self._broker.create_queue(WEBHOOKS_QUEUE)
            self._has_queue = True
        try:
            await self._broker.send(WEBHOOKS_QUEUE, messages)
        except QueueNotFoundError:
            self._has_queue = False  # the next try creates it
            raise

    async def progressed(self, request: Message, events: Sequence[Event]) -> None:
        """Tell of *events*, all of one attempt and in order, where the request asks for it. The answer matters more:
        what cannot be told is passed over.
        """
        if WEBHOOK not in request.extensions:
            return
        messages = [
            message
            for name, body, occasion in self._told(request, events)
            for message in notification.progressed(request, name, body, model=self._model, occasion=occasion)
        ]
        try:
            await self.send(messages)
        except BrokerError as error:
            _log.warning("the webhook of %s is not told of its progress: %s", request.id, error)

    def _fits(self, message: Message) -> bool:
        """A URL that is longer than what the broker takes cannot be told, however often its request comes again."""
        limit = self._broker.capabilities.max_message_nbytes
        fits = limit is None or len(message.body) <= limit
        if not fits:
            _log.error("the notification of %s is larger than what the broker takes", message.correlation_id)
        return fits

    def _told(self, request: Message, events: Sequence[Event]) -> list[tuple[notification.Event, bytes, str]]:
        """Event, prediction and occasion of each notification: all chunks together, and all that was printed."""
        told: list[tuple[notification.Event, bytes, str]] = []
        chunks = [event for event in events if event.event == "output"]
        prints = [event for event in events if event.event == "log"]
        started = [event for event in events if event.event == "start"]
        if started:
            last = started[-1].id
            told.append(("start", self._unfinished(request, event_id=last), last))
        if chunks and notification.wants(request, "output"):
            values = [msgspec.Raw(prediction.output_as_json(one.content_type, one.data)) for one in chunks]
            last = chunks[-1].id
            told.append(("output", self._unfinished(request, event_id=last, output=values), last))
        if prints:
            text = b"".join(one.data for one in prints).decode(errors="replace")
            last = prints[-1].id
            told.append(("logs", self._unfinished(request, event_id=last, logs=text), last))
        return told

    def _unfinished(self, request: Message, **more: Any) -> bytes:
        made_at = created_at(request.id) or request.time or time.time()
        # Without links: the courier knows under which URL callers see the gateway, and whether that knows the id.
        object_ = prediction.unfinished(request.id, self._model, created_at=made_at, started=True, links=None)
        return msgspec.json.encode({**msgspec.to_builtins(object_), **more})
