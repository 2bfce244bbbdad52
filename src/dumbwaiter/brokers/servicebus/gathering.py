"""One request at a time on a connection: what is asked for meanwhile goes together in the next.

The client reads a connection for one call at a time; a second one beside it would wait for a fifth of a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from dumbwaiter.errors import BrokerClosedError, BrokerUnavailableError

T = TypeVar("T")
R = TypeVar("R")


class Gathering(Generic[T, R]):
    """Calls *do* with what was asked for, in order and at most *largest* items unless one asks for more; it returns a
    result for each. Whoever is cancelled leaves, and the work goes on.
    """

    def __init__(self, do: Callable[[list[T]], Awaitable[list[R]]], *, largest: int) -> None:
        self._do = do
        self._largest = largest
        self._waiting: deque[tuple[Sequence[T], asyncio.Future[list[R]]]] = deque()
        self._working: asyncio.Task[None] | None = None

    async def ask(self, items: Sequence[T]) -> list[R]:
        """The result for each of *items*."""
        future: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())
        return await future

    async def finish(self) -> None:
        """Return when all is done that was asked for."""
        if self._working is not None:
            await asyncio.wait([self._working])

    async def close(self) -> None:
        """Give BrokerClosedError to those who wait."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
        while self._waiting:
            self._fail(self._waiting.popleft()[1], BrokerClosedError())

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._do_next()
        finally:
            self._working = None

    async def _do_next(self) -> None:
        asked = [self._waiting.popleft()]
        count = len(asked[0][0])
        while self._waiting and count + len(self._waiting[0][0]) <= self._largest:
            asked.append(self._waiting.popleft())
            count += len(asked[-1][0])
        try:
            results = await self._do([item for items, _ in asked for item in items])
        except asyncio.CancelledError:
            for _, future in asked:
                self._fail(future, BrokerClosedError())
            raise
        except Exception as error:  # whoever waits must not wait in vain
            for _, future in asked:
                self._fail(future, error)
            return
        for items, future in asked:
            if not future.done():
                future.set_result(results[: len(items)])
            results = results[len(items) :]

    def _fail(self, future: asyncio.Future[list[R]], error: Exception) -> None:
        if future.done():
            return
        # Each gets its own, for a raised error keeps the trace of whoever raised it last.
        again = BrokerUnavailableError(str(error)) if type(error) is BrokerUnavailableError else error
        future.set_exception(again)
