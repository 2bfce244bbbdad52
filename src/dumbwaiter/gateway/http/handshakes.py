"""TLS handshakes that count: each takes a place of the connections, and at the cap the longest makes room.

A server of asyncio or uvloop that does the handshake itself tells of a connection only when that is done; until then
nobody counts it, and nobody can close it.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Sized


class Handshakes:
    """Those under way, oldest first. *connections* are the ones behind theirs, and *most* may be open in all.

    *make* makes the protocol of a connection. A handshake may take *timeout* seconds, and the end of a connection
    *shutdown_timeout*.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        *,
        connections: Sized,
        most: int,
        timeout: float,
        shutdown_timeout: float,
    ) -> None:
        self._context = context
        self._make = make
        self._connections = connections
        self._most = most
        self._timeout = timeout
        self._shutdown_timeout = shutdown_timeout
        self._under_way: dict[asyncio.Task[None], asyncio.Transport] = {}

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    def accept(self) -> asyncio.Protocol:
        """The protocol of a new socket, to be given to create_server()."""
        return _Accepted(self)

    def begin(self, transport: asyncio.Transport) -> None:
        """Do the handshake over *transport*, of which nothing was read yet."""
        early = _Early()
        starting = asyncio.get_running_loop().start_tls(
            transport,
            early,
            self._context,
            server_side=True,
            ssl_handshake_timeout=self._timeout,
            ssl_shutdown_timeout=self._shutdown_timeout,
        )
        task = asyncio.create_task(self._shake(transport, _Begun(starting), early))
        self._under_way[task] = transport
        task.add_done_callback(self._done)
        if len(self._under_way) > 1 and len(self._under_way) + len(self._connections) > self._most:
            self._under_way.pop(next(iter(self._under_way))).abort()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a fault of ours, for the loop's exception handler

    async def _shake(self, transport: asyncio.Transport, begun: _Begun, early: _Early) -> None:
        try:
            secure = await begun
        except OSError:  # also ssl.SSLError and TimeoutError: it speaks no TLS, is too slow, or gone
            transport.abort()
            return
        if secure is None or early.is_lost:
            return
        connection = self._make()
        secure.set_protocol(connection)
        connection.connection_made(secure)
        if early.data:
            connection.data_received(bytes(early.data))


class _Accepted(asyncio.Protocol):
    """A socket whose handshake is about to begin."""

    def __init__(self, handshakes: Handshakes) -> None:
        self._handshakes = handshakes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handshakes.begin(cast(asyncio.Transport, transport))


class _Begun:
    """A coroutine whose first step is done at once, and whose others are awaited.

    The first bytes are the handshake's: by the time that a task would begin, uvloop may have read them already.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, asyncio.Transport | None]) -> None:
        self._steps = coroutine.__await__()
        self._first = next(self._steps)

    def __await__(self) -> Generator[Any, Any, asyncio.Transport | None]:
        yield self._first
        return (yield from self._steps)


class _Early(asyncio.Protocol):
    """Keeps what comes right behind the handshake, until there is a protocol to give it to."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's name for it
        self.is_lost = True
