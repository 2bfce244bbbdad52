"""``dumbwaiter dead-letters list | show | redrive | purge``."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dumbwaiter.blobs.results import forget_failure
from dumbwaiter.cli.connect import connected, connected_broker
from dumbwaiter.cli.options import Command, Group, current_settings, json_option, settings_options
from dumbwaiter.cli.output import local_time, preview, print_json, print_table
from dumbwaiter.envelope import to_attributes
from dumbwaiter.message import DeadLetter

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import Settings

_EVERY = 1_000_000
_AT_ONCE = 100


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
    letters = asyncio.run(_letters(current_settings(), names, limit))
    if as_json:
        print_json([_as_data(letter) for letter in letters])
    elif not letters:
        click.echo("no dead letters")
    else:
        columns = ("queue", "key", "died", "tries", "reason", "detail")
        rows = [
            (x.queue, x.key, local_time(x.dead_at), x.delivery_count, x.reason, _last_line(x.detail)) for x in letters
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
            click.echo(f"{name + ':':<16}{_indented(str(value))}")


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
def purge(queue: str, keys: tuple[str, ...], all_: bool, yes: bool, as_json: bool) -> None:
    """Delete dead letters of QUEUE for good: those of the given KEYs, or --all. Asks first, unless --yes.

    Examples:
      dumbwaiter dead-letters purge infer 17
      dumbwaiter dead-letters purge infer --all --yes

    """
    _need_choice(keys, all_)
    what = f"{len(keys)} dead letter(s)" if keys else "all dead letters"
    if not yes and not click.confirm(f"Delete {what} of {queue} for good?", err=True):
        raise click.Abort
    count = asyncio.run(_purge(current_settings(), queue, keys))
    _report("purged", count, as_json)


def _need_choice(keys: Sequence[str], all_: bool) -> None:
    if bool(keys) == all_:
        raise click.UsageError("name the KEYs, or say --all", click.get_current_context())


def _report(verb: str, count: int, as_json: bool) -> None:
    if as_json:
        print_json({verb: count})
    else:
        click.echo(f"{verb} {count}")


async def _letters(settings: Settings, names: Sequence[str], limit: int) -> list[DeadLetter]:
    async with connected_broker(settings) as broker:
        found = []
        for queue in names or await broker.queues():
            found += await broker.dead_letters(queue, limit=limit)
        return found


async def _letter(settings: Settings, queue: str, key: str) -> DeadLetter:
    async with connected_broker(settings) as broker:
        return (await _chosen(broker, queue, [key]))[0]


async def _redrive(settings: Settings, queue: str, keys: Sequence[str]) -> int:
    async with connected(settings) as (broker, store):
        if keys:
            return await _send_back(broker, store, queue, await _chosen(broker, queue, keys))
        started, count = time.time(), 0
        # Some at a time, for bodies may be large; and without those that die again meanwhile.
        while letters := [x for x in await broker.dead_letters(queue, limit=_AT_ONCE) if x.dead_at <= started]:
            count += await _send_back(broker, store, queue, letters)
        return count


async def _send_back(broker: Broker, store: BlobStore, queue: str, letters: Sequence[DeadLetter]) -> int:
    # A kept result is written once: the failure that stands there would keep out what the next run brings.
    for letter in letters:
        await forget_failure(store, letter.message.id)
    return await broker.redrive(queue, [letter.key for letter in letters])


async def _purge(settings: Settings, queue: str, keys: Sequence[str]) -> int:
    async with connected_broker(settings) as broker:
        chosen = [letter.key for letter in await _chosen(broker, queue, keys)] if keys else None
        return await broker.purge(queue, chosen)


async def _chosen(broker: Broker, queue: str, wanted: Sequence[str]) -> list[DeadLetter]:
    """The dead letters with these keys or message ids. Nothing is done when one of them does not exist."""
    letters = await broker.dead_letters(queue, limit=_EVERY)
    by_name = {letter.message.id: letter for letter in letters} | {letter.key: letter for letter in letters}
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise click.ClickException(
            f"no dead letter {', '.join(missing)} in queue {queue!r}; see: dumbwaiter dead-letters list {queue}"
        )
    return [by_name[name] for name in wanted]


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


def _last_line(detail: str) -> str:
    """The last line of a traceback says what happened."""
    lines = detail.strip().splitlines()
    return lines[-1].strip()[:120] if lines else ""


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n" + " " * 16)
