"""Serving the gateway: uvicorn with our connections, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import time
from typing import TYPE_CHECKING

import uvicorn

from dumbwaiter.errors import ConfigError
from dumbwaiter.gateway.app import Gateway
from dumbwaiter.gateway.connection import Phase, make_protocol, sweep
from dumbwaiter.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import GatewaySettings

LAST_WORDS = 2.0
"""Seconds for the 503 of those who still wait when the grace is over to reach them."""

_log = logging.getLogger("dumbwaiter.gateway")


async def run_gateway(
    broker: Broker,
    store: BlobStore,
    options: GatewaySettings,
    *,
    on_ready: Callable[[str, int], object] | None = None,
    stop: asyncio.Event | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; waiting requests may finish within ``options.grace`` seconds. Returns 0.

    *on_ready* is called with host and true port once it listens. With *stop* it serves until that event is set, leaves
    the process's signals alone, and so shares an event loop with others. *broker* and *store* are open, and stay the
    caller's to close. Raises ConfigError when it cannot listen at the address.
    """
    listener = _listen(options.host, options.port)
    gateway = Gateway(broker, store, options)
    host, port = listener.getsockname()[:2]
    server = _Server(_uvicorn_config(gateway, options), lambda: _announce(host, port, on_ready))
    with contextlib.ExitStack() as stack:
        if stop is None:
            stop = stack.enter_context(_stop_by_signal())
            _tune_garbage_collection()
        background = [
            asyncio.create_task(_sweep(server, options)),
            asyncio.create_task(_drain(server, gateway, stop, options.grace)),
        ]
        try:
            await server.serve(sockets=[listener])
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            listener.close()
    _log.info("gateway on %s:%d stopped", host, port)
    return 0


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to run_gateway: uvicorn would raise them again at the end and die of them."""
        yield


def _announce(host: str, port: int, on_ready: Callable[[str, int], object] | None) -> None:
    _log.info("gateway listens on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    if on_ready is not None:
        on_ready(host, port)


def _uvicorn_config(gateway: Gateway, options: GatewaySettings) -> uvicorn.Config:
    return uvicorn.Config(
        gateway.app,
        http=make_protocol(options),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="error",  # a caller that does not speak HTTP is worth no line
        server_header=False,
        timeout_keep_alive=options.idle_timeout,  # type: ignore[arg-type] # it is given to call_later
        timeout_graceful_shutdown=options.grace + LAST_WORDS,  # type: ignore[arg-type] # it is given to wait_for
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another host") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port") from None
    listener.setblocking(False)
    return listener


@contextlib.contextmanager
def _stop_by_signal() -> Iterator[asyncio.Event]:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _tune_garbage_collection() -> None:
    # What exists by now lives as long as the process; looking through it again and again costs p99 (19 -> 8 ms).
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _sweep(server: uvicorn.Server, options: GatewaySettings) -> None:
    every = min(1.0, options.header_timeout / 4, options.body_timeout / 4)
    while True:
        await asyncio.sleep(every)
        closed = sweep(list(server.server_state.connections), time.monotonic())
        if closed:
            _log.info("closed %d connection(s) that were too slow", closed)


async def _drain(server: uvicorn.Server, gateway: Gateway, stop: asyncio.Event, grace: float) -> None:
    await stop.wait()
    _log.info("gateway stops; waiting requests have %g s", grace)
    server.should_exit = True  # no more connections; the idle ones close, the others after their response
    await asyncio.sleep(grace)
    gateway.stop_waiting()
    problem = Problem(status=503, code="shutting-down", detail="the gateway is shutting down; ask again", retry_after=1)
    for connection in list(server.server_state.connections):
        if connection.phase in (Phase.HEAD, Phase.BODY):  # type: ignore[union-attr] # all are ours
            connection.refuse(problem)  # type: ignore[union-attr]
