"""``dumbwaiter scaler``: settings in, one scaler out."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click

from dumbwaiter.brokers import open_broker
from dumbwaiter.cli.beating import beating
from dumbwaiter.cli.event_loop import run_for_long
from dumbwaiter.cli.options import Command, current_settings, setting, settings_options
from dumbwaiter.cli.ports import usable_port
from dumbwaiter.cli.runtimes import checked_store
from dumbwaiter.cli.stopping import deaf_afterwards
from dumbwaiter.errors import ConfigError
from dumbwaiter.observe import configure_logging
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from dumbwaiter.config import Settings
    from dumbwaiter.scaler.run import Doors


@click.command(cls=Command)
@setting("--host", "scaler", "host", text="Address to listen on (default 127.0.0.1).", metavar="ADDRESS")
@setting("--grpc-port", "scaler", "grpc_port", text="Port for gRPC (default 9090); 0 takes a free one.", metavar="N")
@setting("--http-port", "scaler", "http_port", text="Port for HTTP (default 8090); 0 takes a free one.", metavar="N")
@settings_options
def scaler() -> int:
    """Run one scaler: KEDA asks it how many workers a model needs, and scales them on Kubernetes.

    By gRPC it is an external-push scaler, which tells of the first message at once; by HTTP it serves the metrics-api
    trigger at /v1/scale/MODEL. It changes nothing, and any number of them may run. See docs/keda.md.

    Examples:
      dumbwaiter scaler --host 0.0.0.0
      dumbwaiter scaler --http-port 8091 --broker redis://cache:6379

    """
    settings = current_settings()
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    options = settings.scaler
    for port, flag in ((options.grpc_port, "--grpc-port"), (options.http_port, "--http-port")):
        usable_port(options.host, port, flag=flag, setting="scaler.host")
    if options.grpc_port == options.http_port != 0:
        raise ConfigError(f"gRPC and HTTP cannot both have port {options.http_port}; choose another --http-port")
    return run_for_long(_scaler(settings))


async def _scaler(settings: Settings) -> int:
    from dumbwaiter.scaler import run_scaler  # noqa: PLC0415 - `--help` need not import the web stack

    async with (
        beating(settings.heartbeat) as note,
        open_broker(settings.broker, lock_duration=settings.lock_duration) as broker,
    ):

        def ready(doors: Doors) -> None:
            note("ready")
            _say(doors)

        if not broker.capabilities.multi_process:
            where = "lives within one process; no scaler can look into it"
            raise ConfigError(f"{shown(settings.broker)} {where}; take another --broker")
        store = await checked_store(settings)
        with deaf_afterwards(signal.SIGINT, signal.SIGTERM):
            return await run_scaler(broker, store, settings, on_ready=ready)


def _say(doors: Doors) -> None:
    host = f"[{doors.host}]" if ":" in doors.host else doors.host
    scheme = "https" if doors.tls else "http"
    click.echo(f"listening on {host}:{doors.grpc_port} (gRPC) and {scheme}://{host}:{doors.http_port}")
