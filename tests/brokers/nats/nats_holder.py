"""A worker in a process of its own: it takes one message, says so, and settles it when it is told how.

python nats_holder.py URL QUEUE LOCK_DURATION: on its stdout ``waits``, ``took`` and then what came of each line of its
stdin, which is the name of a verb.
"""

from __future__ import annotations

import asyncio
import sys

from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import DumbwaiterError


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
