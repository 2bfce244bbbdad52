"""The client to the server: producers that are kept, consumers and readers for whoever needs one.

The C++ client connects again by itself, but waits longer and longer before it does. So whatever has lost its connection
is thrown away here, and made anew when it is needed again; and a server that does not listen is told at once.

Its callbacks come in threads of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import _pulsar
import pulsar

from dumbwaiter.brokers.pulsar.errors import Result, error_of
from dumbwaiter.brokers.pulsar.location import Location
from dumbwaiter.brokers.pulsar.names import SUBSCRIPTION
from dumbwaiter.brokers.pulsar.wire import Copy, Position
from dumbwaiter.errors import BrokerClosedError, BrokerError, BrokerUnavailableError

PATIENCE = 5
"""Seconds that the server may take for one command."""
SLOWEST = 1024 * 1024
"""Bytes a second; a server that takes less is taken for one that does not answer."""
NACK_DELAY = 0.1
"""Seconds after which a message that was handed back is ready again: the client allows no less."""
_PENDING = 100_000
_READ_AHEAD = 20
_NO_BATCH = -1

# Whatever it reports is raised as an error where it matters, with the next step.
_QUIET = pulsar.FileLogger(_pulsar.LoggerLevel.Error, os.devnull)


_open_clients: list[Any] = []


class Link:
    """All that goes to the server at *location*."""

    def __init__(self, location: Location) -> None:
        self.where = location.shown
        self._location = location
        self._client: Any = None
        self._producers: dict[str, Any] = {}
        self._making: dict[str, asyncio.Lock] = {}
        self._waited_for: set[asyncio.Future[Any]] = set()
        self._is_closed = False

    def open(self) -> None:
        """Make the client; nothing is sent yet."""
        self._client = _client_at(self._location)
        _open_clients.append(self._client)

    async def probe(self) -> None:
        """Return if the server listens. Raises BrokerUnavailableError."""
        if self._is_closed:
            raise BrokerClosedError
        try:
            async with asyncio.timeout(PATIENCE):
                _, writer = await asyncio.open_connection(self._location.host, self._location.port)
        except (OSError, TimeoutError) as error:
            said = str(error) or type(error).__name__
            raise BrokerUnavailableError(
                f"cannot work with {self.where}: {said}; start it, or look at its address and log"
            ) from error
        writer.close()

    async def publish(self, copies: Sequence[Copy]) -> None:
        """Return when the server has confirmed all of them.

        Raises MessageTooLargeError, and BrokerUnavailableError, in which case nobody knows which were taken.
        """
        if await self.publish_what_fits(copies):
            raise self._error(Result.MessageTooBig, "", copies[0].topic)

    async def publish_what_fits(self, copies: Sequence[Copy]) -> set[int]:
        """The places of those of *copies* that are too large for the server, once it has confirmed the others.

        Raises BrokerUnavailableError, as above.
        """
        if not copies:
            return set()
        topics = {copy.topic for copy in copies}
        made = await asyncio.gather(*map(self._producer, topics))
        producers = dict(zip(topics, made, strict=True))
        confirmations = _Confirmations(len(copies))
        for place, copy in enumerate(copies):
            producers[copy.topic].send_async(_built(copy), partial(confirmations.add, place))
        nbytes = sum(len(copy.body) for copy in copies)
        result = await self._in_time(confirmations.all, PATIENCE + 1 + nbytes / SLOWEST)
        if result != Result.Ok:
            for topic in topics:
                self._forget(topic, producers[topic])
            raise self._error(result, "", copies[0].topic)
        return confirmations.too_large

    async def subscribe(
        self, topic: str, *, prefetch: int, listener: Callable[[Any, Any], None] | None = None, is_alone: bool = False
    ) -> Any:
        """A consumer of *topic*, which may hold *prefetch* messages before anybody asks for one.

        *listener* is called with each, in a thread of the client's.
        """
        settings = _pulsar.ConsumerConfiguration()
        kind = _pulsar.ConsumerType
        settings.consumer_type(kind.Exclusive if is_alone else kind.Shared)
        settings.receiver_queue_size(prefetch)
        settings.subscription_initial_position(_pulsar.InitialPosition.Earliest)
        settings.negative_ack_redelivery_delay_ms(round(NACK_DELAY * 1000))
        settings.schema(pulsar.schema.BytesSchema().schema_info())
        if listener is not None:
            settings.message_listener(listener)
        return await self._made(
            topic, lambda done: self._client.subscribe_async_v2(topic, SUBSCRIPTION, settings, done)
        )

    async def reader(self, topic: str, after: Position | None, *, from_it: bool = False) -> Any:
        """A reader of what stands behind *after* in *topic* (*from_it*: of that one too); None: of all."""
        start = (
            _pulsar.MessageId.earliest if after is None else _pulsar.MessageId(-1, after.ledger, after.entry, _NO_BATCH)
        )
        settings = _pulsar.ReaderConfiguration()
        settings.receiver_queue_size(_READ_AHEAD)
        settings.start_message_id_inclusive(from_it)
        settings.schema(pulsar.schema.BytesSchema().schema_info())
        # Of a reader that it makes asynchronously the client never lets go, nor of its own threads from then on.
        make = partial(_made_reader, self._client, topic, start, settings)
        loop = asyncio.get_running_loop()
        return await self._made(topic, lambda done: loop.run_in_executor(None, make, done))

    async def ask(self, start: Callable[[Callable[..., None]], object], topic: str = "") -> Any:
        """What the client tells the callback that *start* gives it: a result, and a value with it."""
        result, value = await self.answer(start)
        if result != Result.Ok:
            raise self.error(result, topic)
        return value

    async def answer(self, start: Callable[[Callable[..., None]], object]) -> tuple[Any, Any]:
        """As ask(), but the result is told, whatever it is."""
        answer = _Answer()
        start(answer.give)
        answered: tuple[Any, Any] = await self._in_time(answer.future, PATIENCE)
        return answered

    def error(self, result: Any, topic: str = "") -> BrokerError:
        """What *result* means here."""
        return self._error(result, "", topic)

    async def close(self) -> None:
        """Disconnect; raises nothing."""
        self._is_closed = True
        self._producers.clear()
        for future in self._waited_for:  # a client that is closed does not answer all
            if not future.done():
                future.set_exception(BrokerClosedError())
        client, self._client = self._client, None
        if client is None or client not in _open_clients:  # it is the parent's of a fork
            return
        # Not close_async(): its callback comes in a thread that ends later, and maybe after the interpreter has.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(asyncio.to_thread(_closed, client))

    async def _producer(self, topic: str) -> Any:
        """The producer for *topic*, made anew if it has lost its connection."""
        producer = self._producers.get(topic)
        if producer is not None and producer.is_connected():
            return producer
        async with self._making.setdefault(topic, asyncio.Lock()):
            producer = self._producers.get(topic)
            if producer is None or not producer.is_connected():
                if producer is not None:
                    self._forget(topic, producer)
                settings = _producer_settings()
                producer = self._producers[topic] = await self._made(
                    topic, lambda done: self._client.create_producer_async_v2(topic, settings, done)
                )
            return producer

    def forget(self, topic: str) -> None:
        """Nobody will publish to *topic* any more."""
        producer = self._producers.get(topic)
        self._making.pop(topic, None)
        if producer is not None:
            self._forget(topic, producer)

    def _forget(self, topic: str, producer: Any) -> None:
        # It has lost its connection, or may have: what it has not sent yet shall not come later.
        if self._producers.get(topic) is producer:
            del self._producers[topic]
        producer.close_async(_ignored)

    async def _made(self, topic: str, start: Callable[[Callable[[Any], None]], object]) -> Any:
        await self.probe()
        if self._client is None:
            raise BrokerClosedError
        answer = _Answer()
        start(answer.give_made)
        result, value = await self._in_time(answer.future, PATIENCE + 1)
        if result != Result.Ok:
            raise self._error(result, str(value or ""), topic)
        return value

    async def _in_time(self, future: asyncio.Future[Any], patience: float) -> Any:
        self._waited_for.add(future)
        try:
            async with asyncio.timeout(patience):
                return await future
        except TimeoutError:
            raise self._error(Result.Timeout, "", "") from None
        finally:
            self._waited_for.discard(future)

    def _error(self, result: Any, said: str, topic: str) -> BrokerError:
        return BrokerClosedError() if self._is_closed else error_of(result, said, self.where, topic)


class _Answer:
    """One answer of the client, from its thread to the event loop. What comes for nobody is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[tuple[Any, Any]] = self._loop.create_future()

    def give(self, result: Any, value: Any = None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._set, result, value)

    def give_made(self, made: Any) -> None:
        if isinstance(made, _pulsar.Error):
            self.give(made.error, made.message)
        elif isinstance(made, _pulsar.PulsarException):
            self.give(getattr(Result, type(made).__name__, Result.UnknownError), str(made))
        else:
            self.give(Result.Ok, made)

    def _set(self, result: Any, value: Any) -> None:
        if not self.future.done():
            self.future.set_result((result, value))
        elif hasattr(value, "close_async"):
            value.close_async(_ignored)


class _Confirmations:
    """So many of the client's answers: the first bad result, or Ok, once all are there.

    Of what is *too_large* the places are kept; the client itself refuses it, and nothing else is the worse for it.
    """

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.all: asyncio.Future[Any] = self._loop.create_future()
        self._left = count
        self.too_large: set[int] = set()
        self._result = Result.Ok
        self._lock = threading.Lock()

    def add(self, place: int, result: Any, _message_id: Any = None) -> None:
        with self._lock:
            self._left -= 1
            if result == Result.MessageTooBig:
                self.too_large.add(place)
            elif result != Result.Ok and self._result == Result.Ok:
                self._result = result
            is_last = self._left == 0
        if is_last:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self.all.done():
            self.all.set_result(self._result)


def start_answer(start: Callable[[Callable[..., None]], object]) -> None:
    """Have the client do something whose outcome nobody waits for."""
    start(_ignored)


def _made_reader(client: Any, topic: str, start: Any, settings: Any, done: Callable[[Any], None]) -> None:
    try:
        done(client.create_reader(topic, start, settings))
    except _pulsar.PulsarException as error:
        done(error)


def _closed(client: Any) -> None:
    with contextlib.suppress(Exception):  # it is closed, or as good as that
        client.close()
    _open_clients.remove(client)


def _leave_to_parent() -> None:
    """The threads of a client stay with the parent: a child that closes it, or drops it, waits for them for ever."""
    for client in _open_clients:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))
    _open_clients.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@atexit.register
def _shut_down() -> None:
    """The library aborts a process that ends while one of its clients has threads."""
    for client in _open_clients:
        with contextlib.suppress(Exception):
            client.close()


def _ignored(*_: object) -> None:
    """For answers that change nothing."""


def _built(copy: Copy) -> Any:
    builder = _pulsar.MessageBuilder()
    builder.content(copy.body)
    for name, value in copy.properties.items():
        builder.property(name, value)
    if copy.deliver_at is not None:
        builder.deliver_at(round(copy.deliver_at * 1000))
    return builder.build()


def _producer_settings() -> Any:
    settings = _pulsar.ProducerConfiguration()
    settings.schema(pulsar.schema.BytesSchema().schema_info())
    # A batch is one message to the server: completing one of it would complete all, or none.
    settings.batching_enabled(False)
    settings.send_timeout_millis(PATIENCE * 1000)
    settings.max_pending_messages(_PENDING)
    settings.block_if_queue_full(False)
    return settings


def _client_at(location: Location) -> Any:
    authentication: Any = None
    if location.token is not None:
        authentication = pulsar.AuthenticationToken(location.token)
    elif location.username is not None:
        authentication = pulsar.AuthenticationBasic(location.username, location.password)
    elif location.cert is not None:
        authentication = pulsar.AuthenticationTLS(location.cert, location.key)
    client = pulsar.Client(
        location.service_url,
        authentication=authentication,
        operation_timeout_seconds=PATIENCE,
        connection_timeout_ms=PATIENCE * 1000,
        stats_interval_in_seconds=0,
        tls_trust_certs_file_path=location.ca_certs,
        tls_allow_insecure_connection=not location.verify,
        tls_validate_hostname=location.verify,
        tls_certificate_file_path=location.cert,
        tls_private_key_file_path=location.key,
        logger=_QUIET,
    )
    return client._client  # noqa: SLF001 - its asyncio layer takes a wake-up of the loop for each message
