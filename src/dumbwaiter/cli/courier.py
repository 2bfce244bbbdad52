"""``dumbwaiter courier``: settings in, one courier out."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dumbwaiter.brokers import open_broker
from dumbwaiter.cli.beating import beating, noting
from dumbwaiter.cli.event_loop import run_for_long
from dumbwaiter.cli.options import Command, current_settings, setting, settings_options
from dumbwaiter.cli.runtimes import Tell, alone, checked_store, status_fd_option
from dumbwaiter.cli.status_pipe import Report, StatusPipe
from dumbwaiter.cli.stopping import deaf_afterwards
from dumbwaiter.message import WEBHOOKS_QUEUE
from dumbwaiter.observe import configure_logging
from dumbwaiter.takeover import taking_over

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import Settings


@click.command(cls=Command)
@setting(
    "--grace",
    "courier",
    "grace",
    text="How long deliveries under way may take once told to stop (default 20s).",
    metavar="TIME",
)
@settings_options
@status_fd_option
def courier(status_fd: int | None) -> int:
    """Run one courier: it posts webhooks and replies to the URLs that callers named, and tries again where that fails.

    Any number of couriers may share a broker. What could not be delivered in about ten tries over two hours is in
    `dumbwaiter dead-letters list dumbwaiter.webhooks`.

    Examples:
      dumbwaiter courier
      DUMBWAITER_OUTBOUND__ALLOWED_NETWORKS=10.1.2.0/24 dumbwaiter courier

    """
    pipe = StatusPipe(status_fd)
    settings = alone(current_settings(), status_fd)
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    tell = _say if status_fd is None else pipe.tell
    return run_for_long(_courier(settings, tell))


def _say(report: Report) -> None:
    if report.state == "ready":
        click.echo("the courier is ready")


async def _courier(settings: Settings, tell: Tell) -> int:
    async with (
        beating(settings.heartbeat) as note,
        open_broker(settings.broker, lock_duration=settings.lock_duration) as opened,
        taking_over(opened, Path(settings.slots), WEBHOOKS_QUEUE) as broker,
    ):
        store = await checked_store(settings)
        with deaf_afterwards(signal.SIGINT, signal.SIGTERM):
            return await run_courier_with(settings, broker, store, noting(note, tell), None)


async def run_courier_with(
    settings: Settings,
    broker: Broker,
    store: BlobStore,
    tell: Tell,
    stop: asyncio.Event | None,
    hurry: asyncio.Event | None = None,
) -> int:
    """Run a courier until *stop* (None: SIGTERM or SIGINT); *tell* hears of each of its states."""
    from dumbwaiter.blobs.signing_key import load_signing_key  # noqa: PLC0415 - a worker need not import it
    from dumbwaiter.courier import run_courier  # noqa: PLC0415 - nor the HTTP client

    def heard(state: str, reason: str) -> None:
        tell(Report(state=state, reason=reason))

    return await run_courier(
        broker,
        store,
        settings.courier,
        settings.outbound,
        await load_signing_key(store, settings.gateway.signing_key),
        public_url=settings.gateway.public_url,
        stop=stop,
        hurry=hurry,
        on_state=heard,
    )
