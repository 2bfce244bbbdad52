"""A process of its own for the tests: ``sqlite_process.py VERB URL [ARGUMENT]``. It says what it did, line by line."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.sqlite.location import path_of
from dumbwaiter.brokers.sqlite.turnstile import Turnstile
from dumbwaiter.message import Message


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def send_forever(url: str, prefix: str) -> None:
    """Eight senders at once; each says an id before it is sent and after it was confirmed."""

    async def sender(place: int) -> None:
        for number in range(1_000_000):
            name = f"{prefix}-{place}-{number}"
            say("try", name)
            await broker.send("q", [Message(id=name, body=name.encode())])
            say("sent", name)

    async with open_broker(url) as broker:
        await asyncio.gather(*(sender(place) for place in range(8)))


async def hold(url: str, lock_duration: str) -> None:
    """Receive one message and keep it."""
    async with open_broker(url, lock_duration=float(lock_duration)) as broker:
        deliveries = await broker.receive("q", max_messages=1, max_wait=30)
        say("holding", *(delivery.message.id for delivery in deliveries))
        await asyncio.sleep(1000)


async def consume(url: str, count: str) -> None:
    """Receive and complete, saying each id, until *count* are done or two seconds pass in silence."""
    async with open_broker(url) as broker:
        done = 0
        while done < int(count):
            deliveries = await broker.receive("q", max_messages=8, max_wait=2)
            if not deliveries:
                break
            await broker.complete(deliveries)
            for delivery in deliveries:
                say("done", delivery.message.id)
            done += len(deliveries)
        say("end")


async def ask(url: str) -> None:
    """Open an inbox, say its address, and wait."""
    async with open_broker(url) as broker:
        inbox = await broker.open_inbox()
        say("inbox", inbox.address)
        for message in await inbox.receive(max_messages=1, max_wait=30):
            say("answer", message.body.decode())
        await asyncio.sleep(1000)


async def write(url: str, what: str, seconds: str = "0") -> None:
    """Enter the turnstile, as a writer in a transaction does, and there ``stop``, ``sleep`` or ``fork`` (a sleeper)."""
    with Turnstile(path_of(url), patience=1000.0):
        say("inside")
        if what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if what == "fork" and (orphan := os.fork()):
            say("child", orphan)
        time.sleep(float(seconds))  # noqa: ASYNC251 - a writer blocks
    say("left")


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    asyncio.run({"send": send_forever, "hold": hold, "consume": consume, "ask": ask, "write": write}[verb](*arguments))
