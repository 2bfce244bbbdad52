"""Connections: one for all verbs, on which those that are called at the same time travel together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from hiredis import pack_command
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import RedisError, ResponseError

from dumbwaiter.brokers.redis.errors import of_connection, of_reply
from dumbwaiter.brokers.redis.location import Location
from dumbwaiter.errors import BrokerUnavailableError

CONNECT_PATIENCE = 3.0
PATIENCE = 8.0
"""Seconds that an answer may take beyond its own waiting and the time for its bytes."""
SLOWEST_NBYTES_A_SECOND = 4e6

Argument: TypeAlias = str | bytes | int

# Its stub takes tuples of one only.
_pack: Callable[[tuple[Argument, ...]], bytes] = pack_command  # type: ignore[assignment]


class Wire:
    """A connection to *location* that connects by itself. Not for several tasks at once."""

    def __init__(self, location: Location) -> None:
        self.where = location.shown
        self._with_tls = location.is_encrypted
        self._connection = _connection(location)

    async def connect(self) -> bool:
        """Connect unless that is done and has held; True for a new connection. Raises BrokerUnavailableError."""
        if self._connection.is_connected and not _has_ended(self._connection):
            return False
        try:
            async with asyncio.timeout(CONNECT_PATIENCE):
                await self.disconnect()
                await self._connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            await self.disconnect()
            raise of_connection(error, self.where, with_tls=self._with_tls) from error
        return True

    async def exchange(self, packed: bytes, count: int, *, wait: float = 0.0) -> list[Any]:
        """Send *packed*, which is *count* commands, and return their answers; a refusal stands there as ResponseError.

        *wait* is how long the commands may wait at the server, in seconds. Raises BrokerUnavailableError: nobody knows
        then which of the commands were done.
        """
        patience = PATIENCE + wait + len(packed) / SLOWEST_NBYTES_A_SECOND
        done = False
        try:
            async with asyncio.timeout(patience):
                await self._connection.send_packed_command(packed, check_health=False)
                answers = [await self._answer() for _ in range(count)]
            done = True
        except (RedisError, OSError) as error:
            raise of_connection(error, self.where) from error
        finally:
            if not done:
                await self.disconnect()
        return answers

    async def disconnect(self) -> None:
        """Hang up, and wait a bit until that is done."""
        with contextlib.suppress(RedisError, OSError):
            await self._connection.disconnect()

    async def _answer(self) -> Any:
        try:
            return await self._connection.read_response(disable_decoding=True, disconnect_on_error=False)
        except ResponseError as error:
            return error


class Pipeline:
    """Commands of many tasks over one Wire: what is called while an exchange is under way goes with the next one.

    A call that is cancelled is done all the same; its answer is dropped.
    """

    def __init__(self, location: Location) -> None:
        self._wire = Wire(location)
        self._waiting: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._running: asyncio.Task[None] | None = None

    def call(self, *arguments: Argument) -> asyncio.Future[Any]:
        """The answer to a command. It raises ResponseError, or BrokerUnavailableError where there is none."""
        packed = _pack(arguments)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((packed, future))
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._run())
        return future

    async def ask(self, *arguments: Argument) -> Any:
        """call(), with a refusal as one of our errors."""
        try:
            return await self.call(*arguments)
        except ResponseError as error:
            raise of_reply(error, self._wire.where) from error

    async def close(self) -> None:
        """Hang up once all calls are answered."""
        if self._running is not None:
            await asyncio.wait([self._running])
        await self._wire.disconnect()

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._wire.connect()
                answers = await self._wire.exchange(b"".join(packed for packed, _ in batch), len(batch))
            except BaseException as error:
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                _tell(future, answer)


def _tell(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, asyncio.CancelledError):
        future.cancel()
    elif isinstance(answer, BrokerUnavailableError):
        # One each: several tasks raise it.
        future.set_exception(BrokerUnavailableError(str(answer)).with_traceback(answer.__traceback__))
    elif isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def pack(commands: Sequence[Sequence[Argument]]) -> bytes:
    """*commands* in the server's own form, for Wire.exchange()."""
    return b"".join(_pack(tuple(command)) for command in commands)


def _connection(location: Location) -> Connection:
    arguments: dict[str, Any] = {
        "host": location.host,
        "port": location.port,
        "db": location.database,
        "username": location.username,
        "password": location.password,
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_PATIENCE,
        "socket_keepalive": True,
        "client_name": "dumbwaiter",
    }
    if not location.is_encrypted:
        return Connection(**arguments)
    certificates = "required" if location.verify else "none"
    return SSLConnection(
        ssl_ca_certs=location.ca_certs,
        ssl_cert_reqs=certificates,
        ssl_check_hostname=location.verify,
        **arguments,
    )


def _has_ended(connection: Connection) -> bool:
    """Whether the server has hung up, as far as the event loop knows.

    The library's own look is a read that is given no time: as slow as some exchanges.
    """
    stream: asyncio.StreamReader | None = connection._reader  # noqa: SLF001 - see above
    return stream is None or stream.at_eof() or stream.exception() is not None
