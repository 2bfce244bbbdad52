"""Requests to Pub/Sub. Here its errors become ours.

The client library gives the channel, its credentials and the messages of the protocol. Its own method objects are left
out: they wrap each message once more, which costs more than the request itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
from google.auth.exceptions import GoogleAuthError
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from dumbwaiter.brokers.pubsub.location import Location
from dumbwaiter.errors import BrokerClosedError, BrokerError, BrokerUnavailableError, QueueNotFoundError

ANSWER_WITHIN = 10.0
"""Seconds after which a request that has nothing to wait for is given up."""
LARGEST_BATCH = 1000
"""Messages or ack ids in one request. Pub/Sub takes more of the latter, as many as make up 512 KiB."""

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    # Otherwise whoever opens a broker is told what another one in this process found out a while ago.
    ("grpc.use_local_subchannel_pool", 1),
    # Half a second between the tries to connect again: for a worker that waits there is nothing else to do.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 5000),  # for how long one try may take, whatever its name says
)
_LAST_WORD = 0.05
_SERVICE = "/google.pubsub.v1."
_LOST = "PERMANENT_FAILURE_INVALID_ACK_ID"
_DETAILS = "grpc-status-details-bin"
_STEP = "look at ?endpoint= and ?emulator= in the URL and at the network, or start the emulator"

#: A verb -> its service and method, the type of its answer, and which of a request's fields names what it is about.
_VERBS = {
    "publish": ("Publisher/Publish", types.PublishResponse.pb(), "topic"),
    "create_topic": ("Publisher/CreateTopic", types.Topic.pb(), "name"),
    "list_topics": ("Publisher/ListTopics", types.ListTopicsResponse.pb(), "project"),
    "list_topic_subscriptions": (
        "Publisher/ListTopicSubscriptions",
        types.ListTopicSubscriptionsResponse.pb(),
        "topic",
    ),
    "delete_topic": ("Publisher/DeleteTopic", Empty, "topic"),
    "pull": ("Subscriber/Pull", types.PullResponse.pb(), "subscription"),
    "acknowledge": ("Subscriber/Acknowledge", Empty, "subscription"),
    "modify_ack_deadline": ("Subscriber/ModifyAckDeadline", Empty, "subscription"),
    "create_subscription": ("Subscriber/CreateSubscription", types.Subscription.pb(), "name"),
    "get_subscription": ("Subscriber/GetSubscription", types.Subscription.pb(), "subscription"),
    "list_subscriptions": ("Subscriber/ListSubscriptions", types.ListSubscriptionsResponse.pb(), "project"),
    "delete_subscription": ("Subscriber/DeleteSubscription", Empty, "subscription"),
}


class RefusedError(BrokerUnavailableError):
    """Pub/Sub refuses a request, with a *code*."""

    def __init__(self, message: str, code: grpc.StatusCode) -> None:
        self.code = code
        super().__init__(message)


class RightMissingError(RefusedError):
    """The account may not do that."""


class TimedOutError(BrokerUnavailableError):
    """No answer in time."""


class ExistsError(BrokerError):
    """What was to be made is there already."""


def _serialized(request: Any) -> bytes:
    serialized: bytes = request.SerializeToString()
    return serialized


class Api:
    """A client of Pub/Sub in *location*. The ways to ask raise BrokerUnavailableError, and QueueNotFoundError."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Callable[..., Any]] = {}
        self._under_way = 0
        self._was_cut = False

    def open(self) -> None:
        """Make ready; nothing is asked yet."""
        self._channel = self._new_channel()
        for verb, (path, answer, _) in _VERBS.items():
            self._calls[verb] = self._channel.unary_unary(
                f"{_SERVICE}{path}",
                request_serializer=_serialized,
                response_deserializer=answer.FromString,
            )

    def _new_channel(self) -> grpc.aio.Channel:
        if self.location.is_emulator:
            return grpc.aio.insecure_channel(self.location.place, options=_OPTIONS)
        try:
            return SubscriberGrpcAsyncIOTransport.create_channel(self.location.place, options=_OPTIONS)
        except GoogleAuthError as error:
            raise BrokerUnavailableError(
                f"no credentials for {self.location.shown}: {error}; set GOOGLE_APPLICATION_CREDENTIALS, run "
                "`gcloud auth application-default login`, or give the machine a service account"
            ) from None

    async def close(self) -> None:
        """Break all connections."""
        channel, self._channel = self._channel, None
        self._calls.clear()
        if channel is not None:
            await channel.close()
            if self._under_way or self._was_cut:
                # gRPC tells the event loop of their end a moment later, and must find it open.
                await asyncio.sleep(_LAST_WORD)

    def topic(self, id_: str) -> str:
        """The full name of a topic."""
        return f"projects/{self.location.project}/topics/{id_}"

    def subscription(self, id_: str) -> str:
        """The full name of a subscription."""
        return f"projects/{self.location.project}/subscriptions/{id_}"

    async def ask(self, verb: str, request: Any, *, queue: str | None = None, within: float = ANSWER_WITHIN) -> Any:
        """The answer to *request*; *queue* stands in the error when there is none.

        Raises ExistsError for a verb that makes something.
        """
        with self._ours(verb, queue):
            return await self._call(verb, request, within)

    async def settle(self, verb: str, request: Any, *, queue: str) -> frozenset[str]:
        """Do *verb* with the ack ids in *request*: those of them whose lock somebody else has by now, or nobody.

        Raises BrokerUnavailableError when nobody knows of some whether that was done.
        """
        with self._ours(verb, queue):
            try:
                await self._call(verb, request, ANSWER_WITHIN)
            except grpc.aio.AioRpcError as error:
                failures = failures_of(error)
                if not failures:
                    raise
                if any(reason != _LOST for reason in failures.values()):
                    raise BrokerUnavailableError(
                        f"{self.location.shown} did not do all of {verb}: {sorted(set(failures.values()))}; try again"
                    ) from None
                return frozenset(failures)
        return frozenset()

    async def _call(self, verb: str, request: Any, within: float) -> Any:
        call = self._calls.get(verb)
        if call is None:
            raise BrokerClosedError
        field = _VERBS[verb][2]
        metadata = (("x-goog-request-params", f"{field}={quote(getattr(request, field), safe='/')}"),)
        self._under_way += 1
        try:
            return await call(request, timeout=within, metadata=metadata)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._channel is None and task is not None and not task.cancelling():
                raise BrokerClosedError from None  # a channel that is closed cancels what is under way
            self._was_cut = True
            raise
        finally:
            self._under_way -= 1

    @contextlib.contextmanager
    def _ours(self, verb: str, queue: str | None) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self._of_answer(verb, queue, error) from None
        except grpc.aio.UsageError:
            raise BrokerClosedError from None
        except grpc.aio.BaseError as error:
            raise BrokerUnavailableError(f"cannot reach {self.location.shown}: {error}; {_STEP}") from error

    def _of_answer(self, verb: str, queue: str | None, error: grpc.aio.AioRpcError) -> BrokerError:
        code, text, where = error.code(), error.details() or "", self.location.shown
        if code is grpc.StatusCode.NOT_FOUND:
            return QueueNotFoundError(queue or "", where=None if queue else where)
        if code is grpc.StatusCode.ALREADY_EXISTS:
            return ExistsError(text)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimedOutError(f"{where} does not answer {verb} in time; {_STEP}")
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return BrokerUnavailableError(f"cannot reach {where}: {text or code.name}; {_STEP}")
        return _refused(where, verb, code, text)


def _refused(where: str, verb: str, code: grpc.StatusCode, text: str) -> RefusedError:
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return RightMissingError(f"{where} refuses {verb}: {text}; give a role to this account, see the docs", code)
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return RefusedError(f"{where} does not take these credentials: {text}", code)
    return RefusedError(f"{where} answered {verb} with {code.name}: {text}", code)


def failures_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """Why single ack ids of a request to an exactly-once subscription failed; empty if that is not what *error* says.

    Source: https://cloud.google.com/pubsub/docs/exactly-once-delivery, "Verify acknowledgement".
    """
    failures: dict[str, str] = {}
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS or not isinstance(value, bytes):
            continue
        for detail in Status.FromString(value).details:
            info = ErrorInfo()
            if detail.Unpack(info):
                failures.update((id_, why) for id_, why in info.metadata.items() if "_FAILURE_" in why)
    return failures


def chunks(sizes: Sequence[int], limit: int) -> list[range]:
    """Neighbours that go into one request: at most LARGEST_BATCH, and together no more than *limit* bytes."""
    found: list[range] = []
    start = nbytes = 0
    for i, size in enumerate(sizes):
        if i > start and (i - start == LARGEST_BATCH or nbytes + size > limit):
            found.append(range(start, i))
            start, nbytes = i, 0
        nbytes += size
    if len(sizes) > start:
        found.append(range(start, len(sizes)))
    return found
