"""The window of requests that ``dumbwaiter submit`` has under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import click

from dumbwaiter.cli.inputs import Input
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from dumbwaiter.message import Message

IN_FLIGHT = 32


async def in_order(
    inputs: Sequence[Input], ask: Callable[[Input], Coroutine[Any, Any, Message]]
) -> AsyncIterator[tuple[Input, asyncio.Task[Message]]]:
    """Each input with its finished task, in order; at most IN_FLIGHT of them are under way.

    After one for which the broker stayed away no more begin, unless one that was under way has fared better. Raises
    click.ClickException, in place of those that never began.
    """
    tasks: dict[int, asyncio.Task[Message]] = {}
    is_away = False
    try:
        for number, given in enumerate(inputs):
            if not is_away:
                for ahead in range(number, min(number + IN_FLIGHT, len(inputs))):
                    if ahead not in tasks:
                        tasks[ahead] = asyncio.create_task(ask(inputs[ahead]))
            if number not in tasks:
                rest = f"the last {len(inputs) - number} of {len(inputs)} inputs were not sent"
                raise click.ClickException(f"the broker stayed unavailable; {rest}")
            await asyncio.wait({tasks[number]})
            is_away = isinstance(tasks[number].exception(), BrokerUnavailableError)
            yield given, tasks[number]
    finally:
        await end(tasks.values())
