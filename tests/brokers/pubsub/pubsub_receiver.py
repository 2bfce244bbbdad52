"""A child process: receives one message after the other, prints the id of each, and holds it.

python pubsub_receiver.py URL QUEUE LOCK_DURATION [hold]

With ``hold`` it then completes the first one until its lock is lost, and prints ``lost``.
"""

from __future__ import annotations

import asyncio
import sys

from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import LockLostError


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main(url: str, queue: str, lock_duration: float, *, holds: bool) -> None:
    async with open_broker(url, lock_duration=lock_duration) as broker:
        say("ready")
        while True:
            for delivery in await broker.receive(queue, max_messages=1, max_wait=60.0):
                say(delivery.message.id)
                try:
                    while holds:
                        await broker.renew_lock([delivery])
                        await asyncio.sleep(lock_duration / 10)
                except LockLostError:
                    say("lost")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), holds=len(sys.argv) > 4))
