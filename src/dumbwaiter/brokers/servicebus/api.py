"""The client library's two clients, for messages and for management, and one link at a time through the first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import certifi
from azure.core.pipeline.transport import AioHttpTransport
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.aio.management import ServiceBusAdministrationClient

from dumbwaiter.brokers.servicebus.errors import (
    NoEntityError,
    NoLockError,
    RightMissingError,
    TooLargeError,
    translated,
)
from dumbwaiter.brokers.servicebus.location import VARIABLE, Location
from dumbwaiter.errors import BrokerClosedError, BrokerUnavailableError
from dumbwaiter.tasks import end

ANSWER_WITHIN = 10.0
"""Seconds after which a request that has nothing to wait for is given up."""
_CLOSE_WITHIN = 3.0
_UNUSED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For connections without TLS, for which the client makes one too."""

H = TypeVar("H", ServiceBusSender, ServiceBusReceiver)
R = TypeVar("R")


class Api:
    """Both clients of the namespace at *location*."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._client: ServiceBusClient | None = None
        self._management: ServiceBusAdministrationClient | None = None
        self._identity: Any = None

    async def open(self) -> None:
        """Make ready; nothing is asked yet."""
        # The client logs broken connections as errors, with traces; we raise them.
        azure = logging.getLogger("azure")
        azure.addHandler(logging.NullHandler())
        if azure.level == logging.NOTSET:  # it tells of each state of each link, which buries what a worker says
            azure.setLevel(logging.WARNING)
        place = self.location
        options: dict[str, Any] = {"retry_total": 0, "ssl_context": _trusted() if place.is_encrypted else _UNUSED}
        http: dict[str, Any] = {"retry_total": 1, "retry_backoff_factor": 0.1, "connection_timeout": 3}
        http |= {"read_timeout": ANSWER_WITHIN, "user_agent": "dumbwaiter"}
        if not place.is_encrypted:
            http["transport"] = _PlainTransport()
        if place.key is None:
            self._identity = _identity(place)
            self._client = ServiceBusClient(place.host, self._identity, **options)
            self._management = ServiceBusAdministrationClient(place.host, self._identity, **http)
        else:
            self._client = ServiceBusClient.from_connection_string(
                _connection_string(place, place.key, place.host), **options
            )
            self._management = ServiceBusAdministrationClient.from_connection_string(
                _connection_string(place, place.key, place.management_host or place.host), **http
            )

    async def close(self) -> None:
        """Close the clients; links that are open are their users' to close."""
        closing = [one for one in (self._management, self._client, self._identity) if one is not None]
        self._client = self._management = self._identity = None
        for one in closing:
            await one.__aexit__(None, None, None)

    async def manage(
        self, doing: str, call: Callable[[ServiceBusAdministrationClient], Awaitable[R]], *, within: float | None = None
    ) -> R:
        """The answer of the management endpoint. Raises as translated() says."""
        if self._management is None:
            raise BrokerClosedError
        if self.location.management_host is not None:
            doing = f"{doing} at {self.location.management_host} (its management_port)"
        with translated(self.location.shown, doing):
            async with asyncio.timeout(within or ANSWER_WITHIN):
                return await call(self._management)

    def sender(self, name: str) -> ServiceBusSender:
        """A sender to the entity *name*, not yet connected."""
        if self._client is None:
            raise BrokerClosedError
        # Its keep-alive reads the connection beside the calls, and holds up whoever closes it.
        return self._client.get_queue_sender(name, keep_alive=0)

    def receiver(self, name: str) -> ServiceBusReceiver:
        """A receiver of the entity *name*, not yet connected, that asks for nothing by itself."""
        if self._client is None:
            raise BrokerClosedError
        # With a prefetch the client keeps what arrives, and we alone say how much may: see tap.py.
        return self._client.get_queue_receiver(name, keep_alive=0, prefetch_count=1)


class Channel(Generic[H]):
    """A handler of the client for one entity, made by *make* and made anew when it is broken or worn.

    One that has served *lasts* requests is worn: the client remembers something of each. One at a time may use it.
    """

    def __init__(self, api: Api, name: str, make: Callable[[str], H], *, lasts: int = 5000) -> None:
        self._api, self._lasts = api, lasts
        self._make: Callable[[str], H] = make
        self.name = name
        self.handler: H | None = None
        self._served = 0
        self._made: list[Any] = []
        self._is_proven = False
        self._closing: set[asyncio.Task[None]] = set()

    async def use(self, doing: str, work: Callable[[H], Awaitable[R]], *, within: float = ANSWER_WITHIN) -> R:
        """What *work* returns. A handler that has worked before is replaced once if it does not: it may be that the
        connection was idle for too long, or its token over. Raises as translated() says.
        """
        while True:
            was_proven = self._is_proven
            try:
                with translated(self._api.location.shown, doing):
                    async with asyncio.timeout(within):
                        result = await work(await self._ready())
            except (NoLockError, TooLargeError):
                raise
            except BaseException as error:
                self.drop()
                if was_proven and type(error) in (BrokerUnavailableError, RightMissingError):
                    continue
                raise
            self._is_proven = True
            self._served += 1
            return result

    async def _ready(self) -> H:
        if self.handler is not None and self._served >= self._lasts:
            self.drop()
        if self.handler is None:
            handler = self.handler = self._make(self.name)
            self._made = _watch(handler)
            await _open(handler)
        return self.handler

    def drop(self) -> None:
        """Close the handler, in the background."""
        handler, self.handler = self.handler, None
        self._is_proven, self._served = False, 0
        if handler is not None:
            closing = asyncio.get_running_loop().create_task(_close(handler, self._made))
            # Where the loop ends without close() nobody waits for it; the sockets are closed all the same.
            closing._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close it, and wait for that."""
        self.drop()
        if self._closing:
            await asyncio.wait(self._closing)


async def _open(handler: ServiceBusSender | ServiceBusReceiver) -> None:
    """Connect. The client pauses for a twentieth of a second after each of the ten frames that this takes; what arrives
    in its pauses is read here.
    """

    async def read() -> None:
        while True:
            inner = handler._handler  # noqa: SLF001 - it has no other way
            if inner is None or inner._session is None:  # noqa: SLF001 - as above
                await asyncio.sleep(0.005)
            elif await inner.client_ready_async():
                return

    reading = asyncio.get_running_loop().create_task(read())
    try:
        await handler.__aenter__()
    finally:
        await end([reading])


async def _close(handler: ServiceBusSender | ServiceBusReceiver, made: list[Any]) -> None:
    try:
        async with asyncio.timeout(_CLOSE_WITHIN):
            await handler.close()
    except Exception:  # noqa: S110 - it is broken, and closed for that
        pass
    finally:
        for inner in made:
            _abort(inner._connection)  # noqa: SLF001 - see _watch


def _watch(handler: Any) -> list[Any]:
    """What the client makes below *handler*, each time that it connects.

    It leaves the socket of a connection open that was broken by the other side; here they are closed with it.
    """
    made: list[Any] = []
    create = handler._create_handler  # noqa: SLF001 - it has no other way

    def create_and_watch(auth: Any) -> None:
        create(auth)
        inner = handler._handler  # noqa: SLF001 - as above
        close = inner.close_async

        async def close_all() -> None:
            connection = inner._connection  # noqa: SLF001 - as above
            try:
                await close()
            finally:
                _abort(connection)

        inner.close_async = close_all
        made.append(inner)

    handler._create_handler = create_and_watch  # noqa: SLF001 - as above
    return made


def _abort(connection: Any) -> None:
    writer = getattr(getattr(connection, "_transport", None), "writer", None)
    if writer is not None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its sockets with it
            writer.transport.abort()


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities that the client trusts by itself. It would read them anew for each link, which takes 35 ms."""
    return ssl.create_default_context(cafile=certifi.where())


class _PlainTransport(AioHttpTransport):  # type: ignore[misc]
    """HTTP without TLS, for an emulator: the client writes https:// whatever it is told."""

    async def send(self, request: Any, **options: Any) -> Any:
        request.url = urlsplit(request.url)._replace(scheme="http").geturl()
        return await super().send(request, **options)


def _connection_string(place: Location, key: tuple[str, str], host: str) -> str:
    name, secret = key
    plain = "" if place.is_encrypted else "UseDevelopmentEmulator=true;"
    return f"Endpoint=sb://{host};SharedAccessKeyName={name};SharedAccessKey={secret};{plain}"


def _identity(place: Location) -> Any:
    try:
        # Not needed by those with a key, and by no other part of the client.
        from azure.identity.aio import (  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
            DefaultAzureCredential,
        )
    except ModuleNotFoundError:
        raise BrokerUnavailableError(
            f"no credentials for {place.shown}: set {VARIABLE}, write the key into the address, or install "
            "azure-identity for managed identities (pip install azure-identity)"
        ) from None
    return DefaultAzureCredential()


__all__ = ["ANSWER_WITHIN", "Api", "Channel", "NoEntityError"]
