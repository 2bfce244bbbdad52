"""Serving both doors of the scaler until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from dumbwaiter.scaler.certificate import RENEW_EVERY, certificate_of
from dumbwaiter.scaler.http_server import HttpServer, most_requests
from dumbwaiter.scaler.page import page_of
from dumbwaiter.scaler.pools import Pools
from dumbwaiter.signals import told_to_stop
from dumbwaiter.tasks import end, every

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import ScalerSettings, Settings
    from dumbwaiter.scaler.certificate import Certificate

_log = logging.getLogger("dumbwaiter.scaler")


class Doors(NamedTuple):
    """Where a scaler listens, with the true ports."""

    host: str
    grpc_port: int
    http_port: int
    tls: bool


async def run_scaler(
    broker: Broker,
    store: BlobStore,
    settings: Settings,
    *,
    on_ready: Callable[[Doors], object] | None = None,
    stop: asyncio.Event | None = None,
) -> int:
    """Answer until *stop* (None: SIGTERM or SIGINT), which ends it within a second or two. Returns 0.

    *broker* and *store* are open, and stay the caller's to close. *on_ready* is called once it listens. Raises
    ConfigError when it cannot listen or the certificate cannot be used, MissingExtraError without grpcio or protobuf.
    """
    options = settings.scaler
    certificate = certificate_of(options)
    with told_to_stop(stop) as (asked, _):
        async with _pools(broker, store, settings) as pools, _doors(pools, options, certificate) as doors:
            where = f"{doors.host}, ports {doors.grpc_port} (gRPC) and {doors.http_port} (HTTP)"
            _log.info("the scaler listens on %s", where)
            if on_ready is not None:
                on_ready(doors)
            await asked.wait()
            # Streams are told first, so that the servers find nothing to wait for.
            await pools.close()
    _log.info("the scaler on %s stopped", where)
    return 0


@contextlib.asynccontextmanager
async def _pools(broker: Broker, store: BlobStore, settings: Settings) -> AsyncIterator[Pools]:
    pools = Pools(broker, store, settings)
    try:
        yield pools
    finally:
        await pools.close()


@contextlib.asynccontextmanager
async def _doors(pools: Pools, options: ScalerSettings, certificate: Certificate | None) -> AsyncIterator[Doors]:
    from dumbwaiter.scaler.grpc_server import GrpcServer  # noqa: PLC0415 - grpcio and protobuf are an extra
    from dumbwaiter.scaler.service import ExternalScaler  # noqa: PLC0415 - as above

    most = most_requests()
    http = HttpServer(page_of(pools, most=most), options.host, options.http_port, certificate, most=most)
    beside: list[asyncio.Task[NoReturn]] = []
    try:
        grpc = GrpcServer(ExternalScaler(pools), options.host, options.grpc_port, certificate)
        await grpc.start()
        try:
            await http.start()
            if certificate is not None:
                beside.append(asyncio.create_task(every(RENEW_EVERY, certificate.renew)))
            yield Doors(options.host, grpc.port, http.port, tls=certificate is not None)
        finally:
            await asyncio.gather(grpc.stop(), http.stop())
    finally:
        await end(beside)
        http.close()
