"""Work over large data beside the event loop, which others wait for.

Threads of Python share one interpreter, so more of them finish nothing earlier, and the event loop has to wait for its
turn among them. Long work is therefore done by one thread at a time, and what is sent in pieces is made by another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

LARGE = 64 * 1024
"""Work over more bytes than this is done in a thread."""
HUGE = 1024 * 1024
"""Work over more bytes than this waits for other such work."""

T = TypeVar("T")


class Offload:
    """Threads for the work of one gateway."""

    def __init__(self) -> None:
        self._long = asyncio.Lock()
        self._piece = asyncio.Lock()

    async def run(self, nbytes: int, work: Callable[[], T]) -> T:
        """The result of *work*, which goes over *nbytes*. No single step of it may hold the interpreter for long."""
        if nbytes < LARGE:
            return work()
        if nbytes < HUGE:
            return await asyncio.to_thread(work)
        async with self._long:
            return await asyncio.to_thread(work)

    async def pieces(self, made: Iterator[bytes]) -> AsyncIterator[bytes]:
        """What *made* yields, none of it empty: each piece is made when it is asked for, while the others wait."""
        while True:
            async with self._piece:
                piece = await asyncio.to_thread(next, made, b"")
            if not piece:
                return
            yield piece
