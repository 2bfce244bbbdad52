"""How many bytes of bodies are in memory at once: whoever finds no room waits, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Memory:
    """*limit* bytes. What is larger than all of it has all of it, and is there alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def room_for(self, nbytes: int) -> AsyncIterator[None]:
        """Have room for *nbytes* inside the block; wait for it before."""
        nbytes = min(nbytes, self._limit)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((nbytes, turn))
        self._serve()
        try:
            await turn
            yield
        finally:
            if not turn.cancelled():
                self._taken -= nbytes
            self._serve()

    def _serve(self) -> None:
        # A large one at the head keeps the small ones behind it waiting: otherwise its turn might never come.
        while self._waiting:
            nbytes, turn = self._waiting[0]
            if not turn.cancelled():
                if self._taken + nbytes > self._limit:
                    return
                self._taken += nbytes
                turn.set_result(None)
            self._waiting.popleft()
