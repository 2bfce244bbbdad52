"""The scaler's HTTP server: uvicorn, started and stopped by whoever has it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvicorn

from dumbwaiter.errors import ConfigError
from dumbwaiter.scaler.http_connection import make_protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from dumbwaiter.scaler.certificate import Certificate

MOST_REQUESTS = 1000
"""At once, at the most."""
LAST_WORDS = 1
"""Seconds for requests under way to end in once the server stops."""


def most_requests() -> int:
    """How many requests this process takes at once: half of the files that it may open are left to everything else."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_REQUESTS if files == resource.RLIM_INFINITY else max(1, min(MOST_REQUESTS, files // 2))


class HttpServer:
    """Serves *app* on *host* and *port* (0: any free one); *port* is the true one once it is made. Above *most*
    connections those that have been idle for longest make room.

    Raises ConfigError when it cannot listen there.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, certificate: Certificate | None, *, most: int) -> None:
        self._listener = _listen(host, port)
        self._server = _Server(_config(app, certificate, most))
        self._serving: asyncio.Task[None] | None = None
        self.port: int = self._listener.getsockname()[1]

    async def start(self) -> None:
        """Return once it takes requests."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        await self._server.is_up.wait()
        if not self._server.started:
            await self._serving  # it says why

    async def stop(self) -> None:
        """Take no more requests, and break off after LAST_WORDS those that have not ended."""
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.wait({self._serving})

    def close(self) -> None:
        """Give up the port, also of one that was never started."""
        self._listener.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.is_up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to run_scaler: uvicorn would close this door first, and pass them on when that is done."""
        yield


def _config(app: ASGIApp, certificate: Certificate | None, most: int) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=make_protocol(most),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="error",  # a caller that does not speak HTTP is worth no line
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=LAST_WORDS,
    )
    config.load()
    if certificate is not None:
        config.ssl = certificate.context  # one that can be renewed
    return config


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno) if isinstance(error.errno, int) and error.errno > 0 else error.strerror
        raise ConfigError(f"cannot listen on {host} port {port} for HTTP: {reason}") from None
