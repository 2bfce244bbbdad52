"""A consumer in a process of its own, to be killed: it takes some messages, says so, and holds them.

python holder.py URL SLOTS QUEUE LOCK_DURATION COUNT [each]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from dumbwaiter.brokers.contract import Claim
from dumbwaiter.brokers.sqlite import SqliteBroker
from dumbwaiter.takeover import taking_over


class ClaimsEach(SqliteBroker):
    """As a product that cannot tell all that a process holds."""

    def claim_to_all(self, queue: str) -> Claim | None:
        return None


async def hold(url: str, slots: str, queue: str, lock_duration: str, count: str, *how: str) -> None:
    adapter = ClaimsEach if how else SqliteBroker
    async with (
        adapter(url, lock_duration=float(lock_duration)) as opened,
        taking_over(opened, Path(slots), queue) as broker,
    ):
        await broker.create_queue(queue)
        held = 0
        while held < int(count):
            held += len(await broker.receive(queue, max_messages=int(count) - held, max_wait=10.0))
        sys.stdout.write("holds\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(hold(*sys.argv[1:]))
