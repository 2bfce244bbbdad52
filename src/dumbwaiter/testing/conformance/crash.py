"""A child process of the suite: sends the messages on its stdin, locks some, then kills itself with SIGKILL.

python -m dumbwaiter.testing.conformance.crash MODULE:ADAPTER URL QUEUE LOCK_DURATION TAKE < messages.json
"""

from __future__ import annotations

import asyncio
import importlib
import operator
import os
import signal
import sys

import msgspec

from dumbwaiter.brokers.contract import Broker, Claim
from dumbwaiter.message import Message


class Held(msgspec.Struct):
    """What a process holds: a claim to each delivery, and one to all of them, as far as its adapter makes such."""

    each: list[Claim | None]
    all_: Claim | None


async def _send_and_die(broker: Broker, queue: str, take: int) -> None:
    await broker.open()
    await broker.create_queue(queue)
    await broker.send(queue, msgspec.json.decode(sys.stdin.buffer.read(), type=list[Message]))
    claims: list[Claim | None] = []
    while len(claims) < take:
        deliveries = await broker.receive(queue, max_messages=take - len(claims), max_wait=10.0)
        claims += map(broker.claim_of, deliveries)
    os.write(sys.stdout.fileno(), msgspec.msgpack.encode(Held(claims, broker.claim_to_all(queue))))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    adapter, url, queue, lock_duration, take = sys.argv[1:]
    module, _, name = adapter.partition(":")
    adapter_class: type[Broker] = operator.attrgetter(name)(importlib.import_module(module))
    asyncio.run(_send_and_die(adapter_class(url, lock_duration=float(lock_duration)), queue, int(take)))
