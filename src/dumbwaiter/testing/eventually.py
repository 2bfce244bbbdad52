"""The one place where tests poll."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")


@overload
async def eventually(
    probe: Callable[[], Awaitable[T]], *, within: float = 20.0, every: float = 0.01, what: str = "the condition"
) -> T: ...
@overload
async def eventually(
    probe: Callable[[], T], *, within: float = 20.0, every: float = 0.01, what: str = "the condition"
) -> T: ...


async def eventually(
    probe: Callable[[], T | Awaitable[T]], *, within: float = 20.0, every: float = 0.01, what: str = "the condition"
) -> T:
    """Call *probe* until it returns something true, at most *within* seconds; return that.

    AssertionErrors of the probe count as "not yet"; the last one is shown when time is up.
    """
    give_up_at = time.monotonic() + within
    while True:
        why = "it stayed false"
        try:
            result = probe()
            value = cast(T, await result if inspect.isawaitable(result) else result)
            if value:
                return value
        except AssertionError as error:
            why = str(error)
        if time.monotonic() > give_up_at:
            raise AssertionError(f"{what} did not come true within {within} s: {why}")
        await asyncio.sleep(every)
