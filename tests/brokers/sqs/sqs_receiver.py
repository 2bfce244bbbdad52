"""A child process: receives for as long as it lives, prints the id of each message that it holds, and completes it.

python sqs_receiver.py URL QUEUE LOCK_DURATION
"""

from __future__ import annotations

import asyncio
import sys

from dumbwaiter.brokers import open_broker


async def main(url: str, queue: str, lock_duration: float) -> None:
    async with open_broker(url, lock_duration=lock_duration) as broker:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            for delivery in await broker.receive(queue, max_messages=1, max_wait=60.0):
                sys.stdout.write(f"{delivery.message.id}\n")
                sys.stdout.flush()
                await broker.complete([delivery])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
