"""``dumbwaiter gateway`` and ``dumbwaiter worker``: settings in, one runtime out."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.cli.beating import beating, noting
from dumbwaiter.cli.event_loop import run_for_long
from dumbwaiter.cli.options import Command, current_settings, setting, settings_options, switch
from dumbwaiter.cli.ports import url_of, usable_port
from dumbwaiter.cli.status_pipe import Report, StatusPipe
from dumbwaiter.cli.stopping import deaf_afterwards
from dumbwaiter.cli.targets import settings_and_models, spec_of, terms_of
from dumbwaiter.config import Settings
from dumbwaiter.observe import configure_logging
from dumbwaiter.takeover import taking_over
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore
    from dumbwaiter.blobs.presence import WorkerStatus
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.models.contract import ModelSpec

Tell = Callable[[Report], None]
_log = logging.getLogger(__name__)
status_fd_option = click.option("--status-fd", type=int, default=None, hidden=True)
host_option = setting("--host", "gateway", "host", text="Address to listen on (default 127.0.0.1).", metavar="ADDRESS")
port_option = setting("--port", "gateway", "port", text="Port (default 8080); 0 takes any free one.", metavar="N")
grace_option = setting("--grace", "worker", "grace", text="Time from SIGTERM to the end (default 25s).", metavar="TIME")
weights_option = click.option(
    "--weights", multiple=True, metavar="[NAME=]URI", help="File or URI that the model's class is given."
)
device_option = click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="[NAME=]DEVICE",
    help="Whose memory it shares with other models: cuda:1, host:8GiB, none, or auto: the first GPU, if there is one.",
)


@click.command(cls=Command)
@host_option
@port_option
@setting(
    "--grace",
    "gateway",
    "grace",
    text="How long waiting requests may take once told to stop (default 30s).",
    metavar="TIME",
)
@switch("--share-port", "gateway", "share_port", text="Let other gateways listen at the same address (Linux).")
@settings_options
@status_fd_option
def gateway(status_fd: int | None) -> int:
    """Run one gateway: it takes predictions by REST, puts them on the queue and waits for the answers.

    Several gateways may share one broker; none of them knows a worker. Beyond this machine (--host) callers need API
    keys: see `dumbwaiter keys`.

    Examples:
      dumbwaiter gateway --port 8080
      dumbwaiter gateway --port 8080 --share-port
      DUMBWAITER_GATEWAY__HOST=0.0.0.0 dumbwaiter gateway

    """
    pipe = StatusPipe(status_fd)
    settings = alone(current_settings(), status_fd)
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    usable_port(settings.gateway.host, settings.gateway.port, share=settings.gateway.share_port)
    if status_fd is None:
        return run_for_long(_gateway(settings, lambda report: click.echo(f"listening on {report.address}")))
    return run_for_long(_gateway(settings, pipe.tell))


@click.command(cls=Command)
@click.argument("model", metavar="[NAME=]MODULE:CLASS")
@weights_option
@device_option
@grace_option
@settings_options
@status_fd_option
def worker(model: str, weights: tuple[str, ...], devices: tuple[str, ...], status_fd: int | None) -> int:
    """Run one worker: it loads the model in a process of its own and pulls from the model's queue.

    The queue is named NAME; NAME is by default that of the class, in lower case. Any number of workers may share a
    queue: they compete for its messages. A bare NAME takes the model of that name from the settings.

    Examples:
      dumbwaiter worker network:Infer --weights weights.safetensors
      dumbwaiter worker cats=examples/classifier/network.py:Infer --device cuda:1

    """
    pipe = StatusPipe(status_fd)
    given, (chosen,) = settings_and_models([model], weights, devices)
    settings = alone(given, status_fd)
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    if status_fd is not None and settings.log_format != "json":
        hide_load_failures()
    tell = _show_tracebacks() if status_fd is None and settings.log_format != "json" else pipe.tell
    return run_for_long(_worker(settings, spec_of(chosen.name, settings), tell))


def alone(settings: Settings, status_fd: int | None) -> Settings:
    """*settings* without the heartbeat for a child of a supervisor, who gives the sign of life for all of them."""
    return settings if status_fd is None else msgspec.structs.replace(settings, heartbeat=None)


def hide_load_failures() -> None:
    """The view of `serve` tells why a model does not load, once and with the place; the log would at each try."""
    logging.getLogger("dumbwaiter.worker.loading").disabled = True


def _show_tracebacks() -> Tell:
    """For a worker that nobody supervises. Its log names the reason; where in the user's code it lies is said once."""
    shown = ""

    def tell(report: Report) -> None:
        nonlocal shown
        traceback = report.reason.partition("\n")[2]
        if report.reason != shown and traceback:
            click.echo(traceback, err=True)
        shown = report.reason

    return tell


async def _gateway(settings: Settings, tell: Tell) -> int:
    async with (
        beating(settings.heartbeat) as note,
        open_broker(settings.broker, lock_duration=settings.lock_duration) as broker,
    ):
        store = await checked_store(settings)
        with deaf_afterwards(signal.SIGINT, signal.SIGTERM):
            return await run_gateway_with(settings, broker, store, noting(note, tell), None)


async def _worker(settings: Settings, spec: ModelSpec, tell: Tell) -> int:
    async with (
        beating(settings.heartbeat) as note,
        open_broker(settings.broker, lock_duration=settings.lock_duration) as opened,
        taking_over(opened, Path(settings.slots), spec.name) as broker,
    ):
        store = await checked_store(settings)
        if not broker.capabilities.durable:
            _log.warning(
                "what waits on %s is lost when its server stops, as that is configured; "
                "dumbwaiter doctor says what to change",
                shown(settings.broker),
            )
        with deaf_afterwards(signal.SIGINT, signal.SIGTERM):
            return await run_worker_with(settings, spec, broker, store, noting(note, tell), None, is_own_process=True)


async def checked_store(settings: Settings) -> BlobStore:
    """The blob store, after a look at it: what is wrong with it ends a runtime that starts. Raises BlobError."""
    store = open_store(settings.blobs)
    await store.check()
    return store


async def run_gateway_with(
    settings: Settings, broker: Broker, store: BlobStore, tell: Tell, stop: asyncio.Event | None
) -> int:
    """Run a gateway until *stop* (None: SIGTERM or SIGINT); *tell* hears when it is ready, and where."""
    from dumbwaiter.gateway import run_gateway  # noqa: PLC0415 - a worker need not import the web stack

    def ready(host: str, port: int) -> None:
        tell(Report(state="ready", address=url_of(host, port, tls=settings.gateway.certfile is not None)))

    code: int = await run_gateway(
        broker, store, settings.gateway, outbound=settings.outbound, on_ready=ready, stop=stop
    )
    return code


async def run_worker_with(
    settings: Settings,
    spec: ModelSpec,
    broker: Broker,
    store: BlobStore,
    tell: Tell,
    stop: asyncio.Event | None,
    hurry: asyncio.Event | None = None,
    *,
    is_own_process: bool = False,
) -> int:
    """Run a worker until *stop* (None: SIGTERM or SIGINT); *tell* hears of each of its states.

    *is_own_process*: this process was started for it, so its age is part of how long a worker takes to start.
    """
    from dumbwaiter.devices.sharing import open_admission  # noqa: PLC0415 - a gateway need not import it
    from dumbwaiter.worker.run import run_worker  # noqa: PLC0415 - as above
    from dumbwaiter.worker.workload import process_age  # noqa: PLC0415 - as above

    def heard(status: WorkerStatus) -> None:
        tell(Report(state=status.state, reason=status.reason, signature=status.signature, worker=status.worker))

    async with open_admission(terms_of(spec, settings)) as admission:
        return await run_worker(
            broker,
            store,
            spec,
            settings.worker,
            outbound=settings.outbound,
            admission=admission,
            on_status=heard,
            stop=stop,
            hurry=hurry,
            start_seconds=process_age() if is_own_process else 0.0,
        )
