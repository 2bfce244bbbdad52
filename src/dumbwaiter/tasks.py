"""asyncio tasks: ending them, and doing something over and over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


async def end(tasks: Iterable[asyncio.Future[Any] | None]) -> None:
    """Cancel *tasks* (None is passed over) and wait until they have ended; what they raised is theirs to tell."""
    ending = [task for task in tasks if task is not None]
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What *work* returns; None if *event* is set before it has ended: then it is cancelled."""
    working, watching = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait({working})  # it may end with something all the same
        return None if working.cancelled() else working.result()
    finally:
        await end((working, watching))


async def every(seconds: float, work: Callable[[], Awaitable[object]]) -> NoReturn:
    """Await *work* again and again, with a pause of *seconds* before each time, until cancelled.

    What *work* raises ends it.
    """
    while True:
        await asyncio.sleep(seconds)
        await work()
