"""Servers for tests of brokers: those of dumbwaiter.testing.servers, and a wire that can be cut.

A missing one raises MissingServerError: the test is skipped at home, and fails where all must be there (conftest.py).
"""

from __future__ import annotations

import asyncio
import threading

from dumbwaiter.testing.servers import (
    HOST,
    NatsServer,
    RabbitmqServer,
    RedisServer,
    SqsServer,
    free_port,
    oldest_redis_program,
    redis_program,
    valkey_program,
)

__all__ = [
    "HOST",
    "NatsServer",
    "RabbitmqServer",
    "RedisServer",
    "SqsServer",
    "Wire",
    "free_port",
    "oldest_redis_program",
    "redis_program",
    "valkey_program",
]

START_SECONDS = 20.0


class Wire:
    """The way to a server that lives on when it is cut, as a service far away does: connections to *port* of this
    machine go to *target*.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def join(self) -> None:
        """Take connections."""
        asyncio.run_coroutine_threadsafe(self._join(), self._loop).result(START_SECONDS)

    def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(START_SECONDS)

    def close(self) -> None:
        """Cut, for good."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _join(self) -> None:
        self._server = await asyncio.start_server(self._carry, HOST, self.port, limit=2**20)

    async def _cut(self) -> None:
        if self._server is not None:
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
            # asyncio loses a connection that it is about to take while its server closes.
            for _ in range(3):
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        for _ in range(3):  # until those that carry have seen it
            await asyncio.sleep(0)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection(HOST, self._target, limit=2**20)
            ends.append(back)
            self._writers.add(back)
            await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer))
        except OSError:
            pass
        finally:
            for end in ends:
                end.transport.abort()
                self._writers.discard(end)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()
