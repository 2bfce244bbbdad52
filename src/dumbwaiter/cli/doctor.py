"""``dumbwaiter doctor``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker, shown
from dumbwaiter.brokers.findings import Finding, of_contract, worst
from dumbwaiter.cli.options import Command, current_settings, given_flags, json_option, settings_options
from dumbwaiter.cli.output import print_json
from dumbwaiter.config import parse_duration
from dumbwaiter.errors import BlobError, ConfigError, DumbwaiterError
from dumbwaiter.printable import printable
from dumbwaiter.queue_names import queue_names

if TYPE_CHECKING:
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import Settings

PATIENCE = 30.0
"""A server that takes longer than so many seconds to answer is not well."""


class NotExaminedError(click.ClickException):
    """Nothing can be said of the broker: it is not there, or it does not talk as its product does."""

    exit_code = 3


def _longest_run(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = parse_duration(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        reason = f"{value!r} is no length of a run; write a time above 0, such as 90s, 10m or 1h"
        raise click.BadParameter(reason, ctx, parameter)
    return seconds


@click.command(cls=Command)
@click.argument("url", required=False)
@click.option(
    "--longest-run",
    callback=_longest_run,
    metavar="TIME",
    help="How long the longest run of a model takes: 90s, 10m or 1h.",
)
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME",
    help="Look at this queue too, where the broker lists none; once for each.",
)
@json_option
@settings_options
def doctor(url: str | None, longest_run: float | None, queues: tuple[str, ...], as_json: bool) -> int:
    """Say what the broker at URL guarantees as it is configured, and what to change (by default the settings' broker).

    Each line is ok, a note, a warning, or a danger: what will lose confirmed messages when something fails that does
    fail. The exit code is 1 when there is a danger, and 3 when the broker cannot be examined.

    Examples:
      dumbwaiter doctor
      dumbwaiter doctor redis://queue.example.com:6379/0 --longest-run 10m
      dumbwaiter doctor amqp://127.0.0.1:5672 --queue infer
      dumbwaiter doctor --json nats://127.0.0.1:4222

    """
    settings = current_settings()
    if url is not None and any(name == "--broker" for name, _, _ in given_flags()):
        raise click.UsageError("the broker is named twice, as URL and as --broker; leave one of them out")
    url = url or settings.broker
    try:
        findings = _findings(url, settings, longest_run, queues)
    except (ConfigError, NotExaminedError) as error:
        if as_json:
            print_json({"broker": shown(url), "worst": None, "findings": [], "error": str(error)})
        raise
    if as_json:
        print_json({"broker": shown(url), "worst": worst(findings), "findings": findings, "error": None})
    else:
        click.echo(f"broker {shown(url)}")
        for finding in findings:
            _print(finding)
    return 1 if worst(findings) == "danger" else 0


def _findings(url: str, settings: Settings, longest_run: float | None, queues: Sequence[str]) -> list[Finding]:
    try:
        return asyncio.run(_examine(url, settings, longest_run, queues))
    except ConfigError:
        raise
    except DumbwaiterError as error:
        raise NotExaminedError(str(error)) from error
    except TimeoutError as error:
        slow = f"{shown(url)} has not told all within {PATIENCE:g} s; look whether it is stopped or very busy"
        raise NotExaminedError(slow) from error
    except Exception as error:  # whatever listens there may answer anything, and a client library stumble over it
        strange = f"{shown(url)} does not answer as its product does ({type(error).__name__}: {error})"
        raise NotExaminedError(f"{strange}; look what listens there, DUMBWAITER_DEBUG=1 shows more") from error


async def _examine(url: str, settings: Settings, longest_run: float | None, queues: Sequence[str]) -> list[Finding]:
    broker = open_broker(url, lock_duration=settings.lock_duration)
    if (unopened := broker.examine_unopened()) is not None:
        return _with_longest_run([*of_contract(broker), *unopened], longest_run, broker.lock_duration)
    async with asyncio.timeout(PATIENCE), broker:
        missing = [queue for queue in queues if not await broker.has_queue(queue)]
        findings = [*of_contract(broker), *(_no_queue(queue, broker) for queue in missing)]
        if not broker.capabilities.lists_queues:
            findings += await _look_up(broker, settings)
        findings += await broker.examine(longest_run=longest_run)
        return _with_longest_run(findings, longest_run, broker.lock_duration)


def _with_longest_run(findings: list[Finding], longest_run: float | None, lock: float) -> list[Finding]:
    """*findings*, and that a run of that length is well, where it was asked and the broker has no limit to tell of."""
    if longest_run is None or any("longest run" in finding.text for finding in findings):
        return findings
    text = f"the longest run takes {longest_run:g} s: its lock of {lock:g} s is renewed meanwhile, as often as needed"
    return [*findings, Finding(level="ok", subject="long runs", text=text)]


async def _look_up(broker: Broker, settings: Settings) -> list[Finding]:
    """Ask for each queue of the cards: examine() looks at what was asked for."""
    try:
        await queue_names(broker, open_store(settings.blobs))
    except BlobError as error:
        text = f"the cards, which name the queues, cannot be read: {error}"
        return [Finding(level="note", subject="queues", text=text, remedy="name them with --queue, or other --blobs")]
    return []


def _no_queue(queue: str, broker: Broker) -> Finding:
    text = "is not there, so it was not looked at; the worker of its model makes it"
    remedy = "start that worker, or look at the name and at the ?prefix= of the URL"
    if broker.capabilities.lists_queues:
        place = shown(broker.url) if shown(broker.url) == broker.url else "URL"
        remedy = f"dumbwaiter queues --broker {place}"
    return Finding(level="note", subject=f"queue {queue}", text=text, remedy=remedy)


def _print(finding: Finding) -> None:
    color = {"danger": "red", "warning": "yellow"}.get(finding.level)
    level = click.style(f"{finding.level:8}", fg=color, bold=finding.level == "danger")
    click.echo(f"  {level} {finding.subject}: {printable(finding.text, keep_lines=True)}")
    if finding.remedy:
        click.echo(f"  {'':8} -> {printable(finding.remedy, keep_lines=True)}")
