"""Serving the gateway: uvicorn with our connections, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import uvicorn

from dumbwaiter.blobs.signing_key import load_signing_key
from dumbwaiter.config import OutboundSettings, is_loopback
from dumbwaiter.errors import ConfigError
from dumbwaiter.gateway.access.callers import Access
from dumbwaiter.gateway.app import Gateway
from dumbwaiter.gateway.http.connection import LINGER, Phase, make_protocol
from dumbwaiter.gateway.http.crowd import sweep
from dumbwaiter.gateway.http.handshakes import Handshakes
from dumbwaiter.gateway.http.listening import BACKLOG, Certificate, certificate_of, connections_within, listen
from dumbwaiter.gateway.http.problems import Problem
from dumbwaiter.outbound import AddressPolicy
from dumbwaiter.signals import told_to_stop
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from typing import Any

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import GatewaySettings

LAST_WORDS = 2.0
"""Seconds for the 503 of those who still wait when the grace is over to reach them."""

RENEW_EVERY = 10.0
"""Seconds between two looks at whether the certificate's files have changed."""

_WAYS_IN = 'make one with `dumbwaiter keys create`, or let everybody in with gateway.auth = "off"'

_log = logging.getLogger("dumbwaiter.gateway")


async def run_gateway(
    broker: Broker,
    store: BlobStore,
    options: GatewaySettings,
    *,
    outbound: OutboundSettings | None = None,
    on_ready: Callable[[str, int], object] | None = None,
    stop: asyncio.Event | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; waiting requests may finish within ``options.grace`` seconds. Returns 0.

    *outbound* says which webhooks callers may name. *on_ready* is called with host and true port once it listens. With
    *stop* it serves until that event is set, leaves the process's signals alone, and so shares an event loop with
    others. *broker* and *store* are open, and stay the caller's to close. Raises ConfigError when it cannot listen at
    the address, when the certificate cannot be used, and when it would listen beyond loopback while nobody has an API
    key; BlobError when the key that signs ids cannot be read.
    """
    outbound = outbound or OutboundSettings()
    certificate = await check_options(store, options, outbound)
    signing = await load_signing_key(store, options.signing_key)
    options = msgspec.structs.replace(options, max_connections=connections_within(options.max_connections))
    gateway = Gateway(broker, store, options, signing=signing, outbound=outbound)
    await _tell_who_may_ask(gateway.access, options)
    listener = listen(options.host, options.port, share=options.share_port)
    host, port = listener.getsockname()[:2]
    server = _Server(
        _uvicorn_config(gateway, options),
        certificate,
        handshake_timeout=options.header_timeout,
        max_connections=options.max_connections,
        on_started=lambda scheme: _announce(scheme, host, port, on_ready),
    )
    with told_to_stop(stop) as (asked, _):
        await _serve(
            server,
            listener,
            beside=[_sweep(server, options), _follow(certificate), _drain(server, gateway, asked, options.grace)],
        )
    _log.info("gateway on %s:%d stopped", host, port)
    return 0


async def _serve(server: _Server, listener: socket.socket, *, beside: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Serve until the server is told to exit, with what is to run *beside* it."""
    tasks = [asyncio.create_task(each) for each in beside]
    try:
        await server.serve(sockets=[listener])
    finally:
        await end(tasks)
        listener.close()


async def check_options(store: BlobStore, options: GatewaySettings, outbound: OutboundSettings) -> Certificate | None:
    """What would keep a gateway from starting, before anything is started for it; run_gateway() does it too. Returns
    the certificate, if there is one.

    Raises ConfigError, naming the setting: a certificate that cannot be used, a host or network in *outbound* that is
    none, listening beyond loopback while nobody has an API key in *store*. Raises BlobError when nobody can tell.
    """
    certificate = certificate_of(options)
    AddressPolicy(outbound)
    if options.needs_keys and not is_loopback(options.host) and not await Access(store, options).has_keys():
        raise ConfigError(f"the gateway would listen on {options.host}, and nobody has an API key: {_WAYS_IN}")
    return certificate


async def _tell_who_may_ask(access: Access, options: GatewaySettings) -> None:
    if not options.needs_keys and not is_loopback(options.host):
        _log.warning('everybody who reaches %s may ask: gateway.auth is "off"', options.host)
    elif options.needs_keys and not await access.has_keys():
        _log.warning("callers need an API key, and nobody has one: %s", _WAYS_IN)


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        certificate: Certificate | None,
        *,
        handshake_timeout: float,
        max_connections: int,
        on_started: Callable[[str], None],
    ) -> None:
        super().__init__(config)
        self._certificate = certificate
        self._handshake_timeout = max(handshake_timeout, 0.1)  # asyncio takes no 0
        self._max_connections = max_connections
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._certificate is None:
            await super().startup(sockets)
        else:
            await self._startup_with_tls(sockets or [], self._certificate)
        self._on_started("http" if self._certificate is None else "https")

    async def _startup_with_tls(self, sockets: list[socket.socket], certificate: Certificate) -> None:
        """As uvicorn does it, but with a handshake that is as bounded as a head, and a certificate that can change."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(1)
        config, state = self.config, self.lifespan.state

        def connection() -> asyncio.Protocol:
            make: Any = config.http_protocol_class  # uvicorn types it as any protocol
            made: asyncio.Protocol = make(config=config, server_state=self.server_state, app_state=state)
            return made

        handshakes = Handshakes(
            certificate.context,
            connection,
            connections=self.server_state.connections,
            most=self._max_connections,
            timeout=self._handshake_timeout,
            shutdown_timeout=LINGER,
        )
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(handshakes.accept, sock=listener, backlog=BACKLOG) for listener in sockets
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to run_gateway: uvicorn would raise them again at the end and die of them."""
        yield


def _announce(scheme: str, host: str, port: int, on_ready: Callable[[str, int], object] | None) -> None:
    _log.info("gateway listens on %s://%s:%d", scheme, f"[{host}]" if ":" in host else host, port)
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
        proxy_headers=False,  # nothing here depends on who is said to be behind a proxy
        timeout_keep_alive=options.idle_timeout,  # type: ignore[arg-type] # it is given to call_later
        timeout_graceful_shutdown=options.grace + LAST_WORDS,  # type: ignore[arg-type] # it is given to wait_for
    )


async def _sweep(server: uvicorn.Server, options: GatewaySettings) -> None:
    every = min(1.0, options.header_timeout / 4, options.body_timeout / 4)
    while True:
        await asyncio.sleep(every)
        closed = sweep(list(server.server_state.connections), time.monotonic())
        if closed:
            _log.info("closed %d connection(s) that were too slow", closed)


async def _follow(certificate: Certificate | None) -> None:
    while certificate is not None:
        await asyncio.sleep(RENEW_EVERY)
        certificate.renew()


async def _drain(server: uvicorn.Server, gateway: Gateway, stop: asyncio.Event, grace: float) -> None:
    await stop.wait()
    _log.info("gateway stops; waiting requests have %g s", grace)
    gateway.stop_following()
    server.should_exit = True  # no more connections; the idle ones close, the others after their response
    await asyncio.sleep(grace)
    gateway.stop_waiting()
    problem = Problem(status=503, code="shutting-down", detail="the gateway is shutting down; ask again", retry_after=1)
    for connection in list(server.server_state.connections):
        if connection.phase in (Phase.HEAD, Phase.BODY):  # type: ignore[union-attr] # all are ours
            connection.refuse(problem)  # type: ignore[union-attr]
