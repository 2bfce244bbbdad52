"""A worker in a process of its own, to be stopped: it takes one message, says so, and settles it when it is told how.

python stopping.py URL QUEUE LOCK_DURATION: on its stdout ``waits``, ``took`` and then what came of each line of its
stdin, which is the name of a verb.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import DumbwaiterError


class Holder:
    """That process: it can be stopped and told to go on by signals."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def hears(self) -> str:
        async with asyncio.timeout(20.0):
            return (await self.process.stdout.readline()).decode().strip()

    async def told(self, verb: str) -> str:
        self.process.stdin.write(f"{verb}\n".encode())
        await self.process.stdin.drain()
        return await self.hears()


@contextlib.asynccontextmanager
async def holding(url: str, queue: str, lock_duration: float) -> AsyncIterator[Holder]:
    """One that waits for a message by now; it is killed in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        url,
        queue,
        str(lock_duration),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        holder = Holder(process)
        assert await holder.hears() == "waits"
        yield holder
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def main(url: str, queue: str, lock_duration: float) -> None:
    async with open_broker(url, lock_duration=lock_duration) as broker:
        receiving = asyncio.create_task(broker.receive(queue, max_messages=1, max_wait=60.0))
        await asyncio.sleep(0.3)  # so that its pulls stand in the server
        say("waits")
        deliveries = await receiving
        say("took")
        while verb := (await asyncio.to_thread(sys.stdin.readline)).strip():
            try:
                settle = {"complete": broker.complete, "abandon": broker.abandon, "renew": broker.renew_lock}[verb]
                await settle(deliveries)
            except DumbwaiterError as error:
                say(type(error).__name__)
            else:
                say("done")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
