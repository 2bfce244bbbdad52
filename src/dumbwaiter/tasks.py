"""asyncio tasks: ending them, and doing something over and over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn


async def end(tasks: Iterable[asyncio.Future[Any] | None]) -> None:
    """Cancel *tasks* (None is passed over) and wait until they have ended; what they raised is theirs to tell."""
    ending = [task for task in tasks if task is not None]
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


async def every(seconds: float, work: Callable[[], Awaitable[object]]) -> NoReturn:
    """Await *work* again and again, with a pause of *seconds* before each time, until cancelled.

    What *work* raises ends it.
    """
    while True:
        await asyncio.sleep(seconds)
        await work()
