"""A child process of the suite: sends the messages on its stdin, locks some, then kills itself with SIGKILL.

python -m dumbwaiter.testing.conformance.crash URL QUEUE LOCK_DURATION TAKE < messages.json
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import msgspec

from dumbwaiter.brokers import open_broker
from dumbwaiter.message import Message


async def _send_and_die(url: str, queue: str, lock_duration: float, take: int) -> None:
    broker = open_broker(url, lock_duration=lock_duration)
    await broker.open()
    await broker.create_queue(queue)
    await broker.send(queue, msgspec.json.decode(sys.stdin.buffer.read(), type=list[Message]))
    while take:
        take -= len(await broker.receive(queue, max_messages=take, max_wait=10.0))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(_send_and_die(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
