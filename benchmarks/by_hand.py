"""What a broker costs without any serving system: two loops written by hand over its client, one process each.

The caller sends whatever there is room for and reads answers meanwhile; the worker receives up to 64, answers them, and
completes them. Each product's calls are in a file of its own, by_hand_<client>.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import secrets
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import uvloop

#: Broker -> its module and class.
DOORS = {
    "redis": "by_hand_redis:RedisDoor",
    "valkey": "by_hand_redis:RedisDoor",
    "nats": "by_hand_nats:NatsDoor",
    "rabbitmq": "by_hand_rabbitmq:RabbitmqDoor",
}
AT_ONCE = 64
QUEUE = "by-hand"


class Door(ABC):
    """A connection of the caller or of the worker. It renews no lock, fences nobody off, and does not reconnect."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create the queue."""

    @abstractmethod
    async def listen(self) -> None:
        """The caller's: be ready for answers."""

    @abstractmethod
    async def send(self, requests: Sequence[tuple[str, bytes]]) -> None:
        """The caller's: ids and bodies; return when the server has confirmed them."""

    @abstractmethod
    async def read(self) -> list[tuple[str, bytes]]:
        """The caller's: ids and bodies of answers, some at least."""

    @abstractmethod
    async def serve(self) -> None:
        """The worker's, for ever: receive, answer, complete."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""


def door(broker: str, url: str) -> Door:
    """A door that is not open yet."""
    module, _, name = DOORS[broker].partition(":")
    made: Door = getattr(importlib.import_module(module), name)(url)
    return made


@contextlib.asynccontextmanager
async def serving(broker: str, url: str) -> AsyncIterator[Door]:
    """A caller's door, while a worker process echoes."""
    caller = door(broker, url)
    await caller.open()
    command = [sys.executable, str(Path(__file__)), broker, url]
    worker = subprocess.Popen(command)  # noqa: ASYNC220 - once, before anything is measured
    try:
        await caller.listen()
        yield caller
    finally:
        worker.kill()
        await asyncio.to_thread(worker.wait)
        await caller.close()


async def ask(caller: Door, *, requests: int, in_flight: int, body: bytes) -> tuple[float, list[float]]:
    """Keep *in_flight* under way until *requests* are answered; requests per second and each one's seconds."""
    sent_at: dict[str, float] = {}
    took: list[float] = []
    has_room = asyncio.Event()

    async def read() -> None:
        while len(took) < requests:
            answers = await caller.read()
            now = time.perf_counter()
            for name, answer in answers:
                if answer != body:
                    raise AssertionError("the echo is wrong")
                took.append(now - sent_at.pop(name))
            has_room.set()

    started, sent = time.perf_counter(), 0
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        while sent < requests:
            has_room.clear()
            room = min(in_flight - len(sent_at), requests - sent)
            if room == 0:
                await has_room.wait()
                continue
            names = [secrets.token_hex(16) for _ in range(room)]
            sent_at.update(dict.fromkeys(names, time.perf_counter()))
            sent += room
            await caller.send([(name, body) for name in names])
        await reading
    return requests / (time.perf_counter() - started), took


async def _serve(broker: str, url: str) -> None:
    worker = door(broker, url)
    await worker.open()
    await worker.serve()


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:]))
