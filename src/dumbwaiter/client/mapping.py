"""The window of requests that a map() has under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any


async def each_of(inputs: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    """*inputs*, one by one, whichever kind they are of."""
    if isinstance(inputs, AsyncIterable):
        async for value in inputs:
            yield value
    else:
        for value in inputs:
            yield value


async def next_of(window: deque[asyncio.Task[Any]], *, ordered: bool) -> asyncio.Task[Any]:
    """Take the first task out of *window*: the oldest, or one that is done. It is done when this returns."""
    if ordered:
        task = window[0]
        await asyncio.wait({task})
        window.popleft()
        return task
    done, _ = await asyncio.wait(window, return_when=asyncio.FIRST_COMPLETED)
    task = next(task for task in window if task in done)
    window.remove(task)
    return task


def outcome_of(task: asyncio.Task[Any], *, return_exceptions: bool) -> Any:
    """What *task* returned; the error that it raised is raised, or with *return_exceptions* returned."""
    error = task.exception()
    if error is None:
        return task.result()
    if return_exceptions and isinstance(error, Exception):
        return error
    raise error
