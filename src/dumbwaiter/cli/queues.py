"""``dumbwaiter queues``."""

from __future__ import annotations

import asyncio

import click

from dumbwaiter.brokers import shown
from dumbwaiter.cli.connect import connected, lists_too_little, name_them
from dumbwaiter.cli.options import Command, current_settings, json_option, settings_options
from dumbwaiter.cli.output import duration, print_json, print_table
from dumbwaiter.config import Settings
from dumbwaiter.message import SYSTEM_QUEUES, QueueStats
from dumbwaiter.queue_names import queue_names


@click.command(cls=Command)
@click.argument("names", metavar="[QUEUE]...", nargs=-1)
@json_option
@settings_options
def queues(names: tuple[str, ...], as_json: bool) -> None:
    """Show what waits, runs and failed in each QUEUE (all of them by default; the system's own when they hold any).

      ready    wait for a worker
      locked   are with a worker now
      delayed  become ready later
      dead     were given up on: see `dumbwaiter dead-letters`
      oldest   how long the oldest ready message has waited

    A ? (--json: null) is what this broker cannot tell. One that cannot list its queues (RabbitMQ) shows those of the
    models that have a card in the blob store; where there are none, name the queues.

    Examples:
      dumbwaiter queues
      dumbwaiter queues --json infer

    """
    settings = current_settings()
    stats, are_all = asyncio.run(_stats(settings, names))
    if not (stats or are_all):
        if as_json:
            print_json(None)
        raise click.UsageError(name_them(settings, "queues"))
    if as_json:
        print_json([{"queue": name, **{f: getattr(s, f) for f in s.__struct_fields__}} for name, s in stats])
    elif not stats:
        click.echo(f"no queues on {shown(settings.broker)} yet; a worker creates the queue of its model")
    else:
        columns = ("queue", "ready", "locked", "delayed", "dead", "oldest")
        rows = [(name, *map(count, (s.ready, s.locked, s.delayed, s.dead)), oldest(s)) for name, s in stats]
        print_table(columns, rows, right=columns[1:])


def count(known: int | None) -> str:
    """How many, for people."""
    return "?" if known is None else str(known)


def oldest(stats: QueueStats) -> str:
    """How long the oldest ready message has waited, for people."""
    if stats.ready == 0:
        return "-"
    return "?" if stats.oldest_age is None else duration(stats.oldest_age)


async def _stats(settings: Settings, names: tuple[str, ...]) -> tuple[list[tuple[str, QueueStats]], bool]:
    """Of each queue, and whether those are all that were meant."""
    async with connected(settings) as (broker, store):
        wanted = names or await queue_names(broker, store)
        found = [(name, await broker.stats(name)) for name in wanted]
        are_all = bool(names) or not lists_too_little(broker, wanted)
    shown_ones = [
        (name, one) for name, one in found if name in names or not name.startswith(SYSTEM_QUEUES) or _holds(one)
    ]
    return shown_ones, are_all


def _holds(stats: QueueStats) -> bool:
    """Whether anything may be in the queue; the system's own are of interest only then."""
    return stats.ready is None or bool(stats.ready or stats.locked or stats.delayed or stats.dead)
