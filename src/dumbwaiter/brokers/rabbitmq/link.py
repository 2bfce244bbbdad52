"""One connection to the server, made again when it is needed after it was lost, and channels on it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from aiormq.abc import AbstractChannel
from aiormq.connection import Connection
from aiormq.exceptions import InvalidFrameError
from yarl import URL

from dumbwaiter.brokers.rabbitmq import decoding
from dumbwaiter.brokers.rabbitmq.errors import LIBRARY_ERRORS, MissingQueueError, PreconditionError, translated
from dumbwaiter.brokers.rabbitmq.location import Location
from dumbwaiter.brokers.rabbitmq.names import QUORUM
from dumbwaiter.errors import BrokerClosedError, BrokerUnavailableError

PATIENCE = 8.0
"""Seconds that the server may take for one command, or for a connection."""
OLDEST = (3, 10)
FRAME_MAX = 128 * 1024
"""Bytes of a frame at most, unless the server says otherwise."""

T = TypeVar("T")

decoding.install()
_library_log = logging.getLogger("aiormq")
if _library_log.level == logging.NOTSET:
    # Whatever it reports of lost connections is raised as an error where it matters, with the next step.
    _library_log.setLevel(logging.CRITICAL)


class Link:
    """A connection to *location*; *purpose* is how the server's own tools show it."""

    def __init__(self, location: Location, purpose: str) -> None:
        self.where = location.shown
        self._location = location
        self._purpose = purpose
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._channels: dict[str, AbstractChannel] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._busy: dict[str, asyncio.Lock] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def connection(self) -> Connection:
        """The connection, connected now if it is not. Raises BrokerUnavailableError."""
        if self._connection is not None and self._connection.is_opened:
            return self._connection
        async with self._connecting:
            if self._is_closed:
                raise BrokerClosedError
            if self._connection is None or not self._connection.is_opened:
                await self._drop()
                self._connection = await self.run(self._connect)
            return self._connection

    @property
    def frame_max(self) -> int:
        """The largest frame that the server takes, in bytes."""
        return (self._connection.connection_tune.frame_max if self._connection is not None else 0) or FRAME_MAX

    async def channel(self) -> AbstractChannel:
        """A new channel, whose publishes are confirmed."""
        connection = await self.connection()
        return await self.run(connection.channel)

    async def shared(self, name: str) -> AbstractChannel:
        """The channel of that *name*, opened anew if an error has closed it."""
        channel = self._channels.get(name)
        if channel is not None and not channel.is_closed and self._is_up:
            return channel
        async with self._opening.setdefault(name, asyncio.Lock()):
            channel = self._channels.get(name)
            if channel is None or channel.is_closed or not self._is_up:
                channel = self._channels[name] = await self.channel()
            return channel

    async def run(self, command: Callable[[], Awaitable[T]], name: str = "") -> T:
        """What *command* returns, errors translated; *name* is the physical queue that it names.

        Cancelling this leaves the command alone: the library would close its channel, and what is held there with it.
        """

        async def in_time() -> T:
            with translated(self.where, name):
                async with asyncio.timeout(PATIENCE):
                    return await command()

        task = asyncio.create_task(in_time())
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except BrokerUnavailableError:
            if self._is_closed:  # and that is why
                raise BrokerClosedError from None
            raise

    async def count(self, name: str, by: str = "looks") -> tuple[int, int]:
        """How many messages of the physical queue *name* are ready, and how many consumers it has.

        Raises MissingQueueError. *by* names the channel, which an error closes: those that are asked at the same time
        are asked on channels of their own.
        """
        answer = await self._on(by, lambda channel: channel.queue_declare(name, passive=True), name)
        return answer.message_count or 0, answer.consumer_count or 0

    async def declare(self, name: str, arguments: Mapping[str, str | int]) -> PreconditionError | None:
        """Declare a durable queue; the refusal when there is one of that name with other arguments."""
        try:
            await self._on(
                "declares", lambda channel: channel.queue_declare(name, durable=True, arguments=dict(arguments)), name
            )
        except PreconditionError as error:
            return error
        return None

    async def settle_names(self, throwaway: str) -> None:
        """Have the server write down which queues it has: see docs/brokers/rabbitmq.md, "A new queue"."""
        await self.declare(throwaway, QUORUM)
        await self._on("declares", lambda channel: channel.queue_delete(throwaway), throwaway)

    async def _on(self, by: str, command: Callable[[AbstractChannel], Awaitable[T]], name: str) -> T:
        """*command* on the channel *by*, one at a time: an error closes it, and would be taken for that of all."""
        async with self._busy.setdefault(by, asyncio.Lock()):
            channel = await self.shared(by)
            try:
                return await self.run(lambda: command(channel), name)
            except (MissingQueueError, BrokerUnavailableError):
                self._channels.pop(by, None)
                raise

    async def close(self) -> None:
        """Disconnect; raises nothing."""
        self._is_closed = True
        async with self._connecting:
            await self._drop()
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=PATIENCE)

    @property
    def _is_up(self) -> bool:
        return self._connection is not None and self._connection.is_opened

    async def _drop(self) -> None:
        self._channels.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=2)
            except (*LIBRARY_ERRORS, asyncio.CancelledError):
                # The library ends waits for a lost connection by cancelling them; if it is meant for this task, the
                # next wait tells.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise

    async def _connect(self) -> Connection:
        place = self._location
        url = URL.build(
            scheme="amqps" if place.is_encrypted else "amqp",
            user=place.username,
            password=place.password,
            host=place.host,
            port=place.port,
            path=f"/{place.virtual_host}",
            query={"heartbeat": str(place.heartbeat), "name": f"dumbwaiter {self._purpose}"},
        )
        context = await asyncio.to_thread(_tls, place) if place.is_encrypted else None
        connection = Connection(url, context=context)
        try:
            await _connect_to(connection, self.where)
            require_version(connection.server_properties, self.where)
        except BaseException:
            await connection.close(timeout=2)
            raise
        return connection

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen here, for whoever started it may be gone


async def _connect_to(connection: Connection, where: str) -> None:
    try:
        await connection.connect()
    except InvalidFrameError as error:
        # The library has no error of its own for a server that closes rather than opens.
        if "Connection.OpenOk" not in str(error):
            raise
        raise BrokerUnavailableError(
            f"{where} refuses this virtual host: there is none of that name (rabbitmqctl add_vhost), "
            "or this user has no rights in it (rabbitmqctl set_permissions)"
        ) from None


def require_version(properties: Any, where: str) -> None:
    """Raises BrokerUnavailableError unless the server says that it is a RabbitMQ which is new enough."""
    product, version = str(properties.get("product", "")), str(properties.get("version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if product != "RabbitMQ" or numbers < OLDEST:
        raise BrokerUnavailableError(
            f"{where} is {product or 'an unknown product'} {version}, and this needs RabbitMQ 3.10 or later; update it"
        )


def _tls(place: Location) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=place.ca_certs)
    if not place.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
