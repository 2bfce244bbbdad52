"""The values that travel: messages, deliveries, dead letters, queue statistics, failures. No behaviour, no I/O."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Mapping
from typing import Literal

import msgspec

MAX_QUEUE_NAME = 80
_QUEUE_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_QUEUE_NAME - 1}}}")

SYSTEM_QUEUES = "dumbwaiter."
"""A queue whose name begins so is the system's own, and no model's."""

WEBHOOKS_QUEUE = f"{SYSTEM_QUEUES}webhooks"
"""Where notifications wait for a courier."""

LEAST_PRIORITY, GREATEST_PRIORITY = -9, 9
"""What callers from outside may ask for; 0 is the usual one."""

LONGEST_TENANT = 128
"""Characters of a tenant's name."""

LONGEST_ID = 1024
"""Characters of an id that is asked about; anything longer is a mistake, such as a whole file."""

KEEP, WEBHOOK, WEBHOOK_EVENTS = "keep", "webhook", "webhookevents"
"""Extensions of a request: ``true`` keeps its result; a URL that is told of it, and of which events (a,b,c)."""
WebhookEvent = Literal["start", "output", "logs", "completed"]
"""What a webhook may be told of."""

PREDICTION_REQUESTED = "dumbwaiter.prediction.requested"
PREDICTION_SUCCEEDED = "dumbwaiter.prediction.succeeded"
PREDICTION_FAILED = "dumbwaiter.prediction.failed"
PREDICTION_NOTIFIED = "dumbwaiter.prediction.notified"


_ID_RANDOM = 10
_POOLED_IDS = 256
_random_pool: list[str] = []
os.register_at_fork(after_in_child=_random_pool.clear)


def new_id() -> str:
    """A new unique id that sorts by creation time: 12 hex digits of milliseconds, then 80 random bits."""
    try:
        unique = _random_pool.pop()
    except IndexError:
        # The kernel is asked for many at once: one by one it costs more than all the rest of a message.
        bits = secrets.token_hex(_ID_RANDOM * _POOLED_IDS)
        width = 2 * _ID_RANDOM
        _random_pool.extend(bits[start : start + width] for start in range(width, len(bits), width))
        unique = bits[:width]
    return f"{time.time_ns() // 1_000_000:012x}{unique}"


def is_url(address: str) -> bool:
    """Whether a reply address is a URL that a courier delivers to, rather than an inbox."""
    return address[:8].lower().startswith(("http://", "https://"))


def is_queue_name(name: str) -> bool:
    """Whether *name* can name a queue on every broker: letters, digits, ``.``, ``_`` and ``-``, at most 80.

    The first one is a letter or digit. Each product takes this, or its adapter can map it there without two names
    becoming one: SQS has 80 characters and no dots, Kafka and Service Bus these characters, NATS no dots, Pub/Sub wants
    a letter first, and RabbitMQ and Redis take any text.
    """
    return _QUEUE_NAME.fullmatch(name) is not None


def is_model_name(name: str) -> bool:
    """Whether *name* can name a model: whether its queue is not one of the system's own."""
    return not name.startswith(SYSTEM_QUEUES)


def is_tenant_name(text: str) -> bool:
    """Whether *text* can name a tenant: 1 to LONGEST_TENANT printable characters."""
    return 0 < len(text) <= LONGEST_TENANT and text.isprintable()


def is_message_id(text: str) -> bool:
    """Whether *text* can be the id of a request that somebody asks about: 1 to LONGEST_ID printable characters."""
    return 0 < len(text) <= LONGEST_ID and text.isprintable()


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request, reply or notification: a CloudEvents 1.0 event (see envelope.py for the wire forms).

    *time* and *deadline* are seconds since the Unix epoch; None means unknown and none.
    *data_ref* is the claim check: when set, the body lies in the blob store under that reference.
    A larger *priority* is served first. *extensions* holds further CloudEvents attributes, as text.
    """

    body: bytes = b""
    id: str = msgspec.field(default_factory=new_id)
    content_type: str | None = None
    type: str = PREDICTION_REQUESTED
    source: str = "/dumbwaiter"
    subject: str | None = None
    time: float | None = None
    data_ref: str | None = None
    trace_parent: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    deadline: float | None = None
    priority: int = 0
    tenant: str | None = None
    idempotency_key: str | None = None
    extensions: Mapping[str, str] = msgspec.field(default_factory=dict)


class Delivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message under a lock.

    *lock_token* proves the lock to the broker; *locked_until* is on this process's time.monotonic();
    *delivery_count* is 1 on the first delivery.
    """

    message: Message
    queue: str
    lock_token: str
    locked_until: float
    delivery_count: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message that was given up on, with the reason (a short code) and the detail (traceback, exit signal).

    *key* names it for redrive and purge; *dead_at* is in seconds since the Unix epoch.
    """

    key: str
    message: Message
    queue: str
    reason: str
    detail: str
    delivery_count: int
    dead_at: float


class QueueStats(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Counts of one queue now.

    *oldest_age* is the seconds that the oldest ready message has waited, 0.0 if there is none. Each is None where the
    broker cannot tell: that is no 0.
    """

    ready: int | None
    locked: int | None
    delayed: int | None
    dead: int | None
    oldest_age: float | None


class Failure(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why a request has no output.

    *code* is stable and for programs (``bad-input``, ``model-error``, ``deadline-exceeded``, ``runner-crashed``,
    ``runner-hung``, ``delivery-limit`` ...); *message* is one line for people; *detail* may hold a traceback.
    """

    code: str
    message: str
    detail: str = ""
    attempts: int = 1


class Timings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where the time of one request went, in seconds.

    *queued*: from send to receive; *batched*: from receive to the start of its batch (decoding included);
    *device*: the model's own time for the whole batch; *batch_size*: with how many it ran.
    """

    queued: float = 0.0
    batched: float = 0.0
    device: float = 0.0
    batch_size: int = 1
