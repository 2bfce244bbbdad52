"""Whose turn it is to start.

Until a process says how it is it reads its imports, which keeps a core busy: where more do so at once than there are
cores, the first of them is ready as late as the last. What a worker does after that, to load its model, may keep a core
busy or wait for a disk; nobody knows, and nobody waits for it.
"""

from __future__ import annotations

import asyncio

from dumbwaiter.cores import cores

LONGEST = 5.0
"""Seconds after which one that still says nothing holds up nobody else."""


class Turns:
    """So many may start at once, *most*; by itself one for each core that this process may use."""

    def __init__(self, most: int | None = None) -> None:
        self._free = asyncio.Semaphore(most or cores())
        self._holders: dict[object, asyncio.TimerHandle] = {}

    async def take(self, holder: object) -> None:
        """Wait until it is the turn of *holder*, who has none, and give it to him."""
        await self._free.acquire()
        self._holders[holder] = asyncio.get_running_loop().call_later(LONGEST, self.pass_on, holder)

    def pass_on(self, holder: object) -> None:
        """*holder* has started, or will not: the next one may, unless this was said before."""
        timer = self._holders.pop(holder, None)
        if timer is not None:
            timer.cancel()
            self._free.release()
