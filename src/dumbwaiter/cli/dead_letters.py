"""``dumbwaiter dead-letters list | show | redrive | purge``."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dumbwaiter.brokers import shown
from dumbwaiter.cli.confirming import confirmed, nothing_deleted
from dumbwaiter.cli.connect import connected, connected_broker, lists_too_little, name_them
from dumbwaiter.cli.options import Command, Group, current_settings, json_option, settings_options
from dumbwaiter.cli.output import local_time, preview, print_json, print_table, shortened
from dumbwaiter.dead_letters import find
from dumbwaiter.dead_letters import purge as purge_
from dumbwaiter.dead_letters import redrive as redrive_
from dumbwaiter.envelope import to_attributes
from dumbwaiter.message import DeadLetter
from dumbwaiter.printable import printable
from dumbwaiter.queue_names import queue_names

if TYPE_CHECKING:
    from dumbwaiter.config import Settings


@click.group("dead-letters", cls=Group)
def dead_letters() -> None:
    """Messages that were given up on, each with its reason; look at them, send them back, or delete them.

    Examples:
      dumbwaiter dead-letters list
      dumbwaiter dead-letters show infer 17
      dumbwaiter dead-letters redrive infer 17 18
      dumbwaiter dead-letters purge infer --all --yes

    """


@dead_letters.command("list", cls=Command, short_help="List them, the oldest first.")
@click.argument("names", metavar="[QUEUE]...", nargs=-1)
@click.option("--limit", default=100, show_default=True, metavar="N", help="The oldest N of each queue.")
@json_option
@settings_options
def list_(names: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List dead letters of each QUEUE (all by default), the oldest first.

    Examples:
      dumbwaiter dead-letters list
      dumbwaiter dead-letters list infer --limit 10 --json

    """
    settings = current_settings()
    letters, are_all = asyncio.run(_letters(settings, names, limit))
    if not (letters or are_all):
        if as_json:
            print_json(None)
        raise click.UsageError(name_them(settings, "dead-letters list"))
    if as_json:
        print_json([_as_data(letter) for letter in letters])
    elif not letters:
        click.echo(f"no dead letters on {shown(settings.broker)}")
    else:
        columns = ("queue", "key", "died", "tries", "reason", "detail")
        rows = [
            (x.queue, x.key, local_time(x.dead_at), x.delivery_count, x.reason, shortened(_first_line(x.detail)))
            for x in letters
        ]
        print_table(columns, rows, right=("tries",))


@dead_letters.command(cls=Command, short_help="Show one in full.")
@click.argument("queue")
@click.argument("key")
@click.option("--body", is_flag=True, help="Write the message's body, and nothing else, to stdout.")
@json_option
@settings_options
def show(queue: str, key: str, body: bool, as_json: bool) -> None:
    """Show one dead letter of QUEUE in full. KEY is its key or its message's id.

    Examples:
      dumbwaiter dead-letters show infer 17
      dumbwaiter dead-letters show infer 17 --body > bad.jpg

    """
    letter = asyncio.run(_letter(current_settings(), queue, key))
    if body:
        sys.stdout.buffer.write(letter.message.body)
    elif as_json:
        print_json({**_as_data(letter), "body": preview(letter.message.body, 10_000)})
    else:
        for name, value in {**_as_data(letter), "body": preview(letter.message.body)}.items():
            text = "\n".join(f"{key}: {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)
            click.echo(printable(f"{name + ':':<16}{_indented(text)}".rstrip(), keep_lines=True))


@dead_letters.command(cls=Command, short_help="Send them back to their queue.")
@click.argument("queue")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All dead letters of QUEUE.")
@json_option
@settings_options
def redrive(queue: str, keys: tuple[str, ...], all_: bool, as_json: bool) -> None:
    """Send dead letters back to QUEUE, with a fresh delivery count: those of the given KEYs, or --all.

    Do it when the reason is gone: the model is repaired, the weights are back.

    Examples:
      dumbwaiter dead-letters redrive infer 17 18
      dumbwaiter dead-letters redrive infer --all

    """
    _need_choice(keys, all_)
    count = asyncio.run(_redrive(current_settings(), queue, keys))
    _report("redriven", count, as_json)


@dead_letters.command(cls=Command, short_help="Delete them for good.")
@click.argument("queue")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All dead letters of QUEUE.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@settings_options
def purge(queue: str, keys: tuple[str, ...], all_: bool, yes: bool, as_json: bool) -> int:
    """Delete dead letters of QUEUE for good: those of the given KEYs, or --all. Asks first, unless --yes.

    Examples:
      dumbwaiter dead-letters purge infer 17
      dumbwaiter dead-letters purge infer --all --yes

    """
    _need_choice(keys, all_)
    what = f"{len(keys)} dead letter(s)" if keys else "all dead letters"
    if not yes and not confirmed(f"Delete {what} of {queue} for good?"):
        return nothing_deleted()
    count = asyncio.run(_purge(current_settings(), queue, keys))
    _report("purged", count, as_json)
    return 0


def _need_choice(keys: Sequence[str], all_: bool) -> None:
    if bool(keys) == all_:
        raise click.UsageError("name the KEYs, or say --all", click.get_current_context())


def _report(verb: str, count: int, as_json: bool) -> None:
    if as_json:
        print_json({verb: count})
    else:
        click.echo(f"{verb} {count}")


async def _letters(settings: Settings, names: Sequence[str], limit: int) -> tuple[list[DeadLetter], bool]:
    """Those of each queue, and whether those are all the queues that were meant."""
    async with connected(settings) as (broker, store):
        found: list[DeadLetter] = []
        wanted = names or await queue_names(broker, store)
        for queue in wanted:
            found += await broker.dead_letters(queue, limit=limit)
        return found, bool(names) or not lists_too_little(broker, wanted)


async def _letter(settings: Settings, queue: str, name: str) -> DeadLetter:
    async with connected_broker(settings) as broker:
        return (await find(broker, queue, [name]))[0]


async def _redrive(settings: Settings, queue: str, names: Sequence[str]) -> int:
    async with connected(settings) as (broker, store):
        return await redrive_(broker, store, queue, names or None)


async def _purge(settings: Settings, queue: str, names: Sequence[str]) -> int:
    async with connected(settings) as (broker, store):
        return await purge_(broker, store, queue, names or None)


def _as_data(letter: DeadLetter) -> dict[str, Any]:
    return {
        "queue": letter.queue,
        "key": letter.key,
        "message_id": letter.message.id,
        "reason": letter.reason,
        "delivery_count": letter.delivery_count,
        "dead_at": local_time(letter.dead_at),
        "nbytes": len(letter.message.body),
        "attributes": to_attributes(letter.message),
        "detail": letter.detail,
    }


def _first_line(detail: str) -> str:
    """What happened; a traceback may follow. That it was an error of ours by type is known by the reason."""
    line = detail.strip().partition("\n")[0].strip()
    return re.sub(r"^dumbwaiter\.errors\.\w+: ", "", line)


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n" + " " * 16)
