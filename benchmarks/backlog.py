"""The embedded broker by itself: what it costs when idle, how soon it sees a lone message, what a backlog costs."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from dumbwaiter.answers import raise_for_failure, timings_of
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.message import Message
from system import serving, warm

Add = Callable[[str, float], None]
BODY = os.urandom(1024)
BATCH = 16
LONE = 60
PAUSE_SECONDS = 0.05
IDLE_SECONDS = 10.0


async def lone_messages(add: Add) -> None:
    """How long a message waits when a worker is idle, and what the idle worker costs."""
    async with serving("sqlite", "Echo") as asker:
        await warm(asker, "echo", BODY, "application/octet-stream", requests=200, in_flight=1)
        queued = []
        for _ in range(LONE):
            await asyncio.sleep(PAUSE_SECONDS)
            message = Message(body=BODY, content_type="application/octet-stream", time=time.time())
            queued.append(timings_of(raise_for_failure(await asker.ask("echo", message, timeout=60.0))).queued)
        add("lone message ms", statistics.median(queued) * 1e3)
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        before = sum(map(_cpu_seconds, processes))
        await asyncio.sleep(IDLE_SECONDS)
        add("idle %", (sum(map(_cpu_seconds, processes)) - before) / IDLE_SECONDS * 100)


async def with_many_waiting(add: Add, scale: float) -> None:
    """Send, receive and complete, 16 at a time: on an empty queue, then with a million waiting; and the space."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_broker(f"sqlite:///{folder}/queue.db") as broker:
            await broker.create_queue("many")
            rounds = int(1000 * scale)
            await _go_round(broker, 50)
            add("empty /s", await _go_round(broker, rounds))
            add("space of a million served MB", await _space_of_serving(broker, folder, int(1_000_000 * scale)))
            waiting = int(1_000_000 * scale)
            for _ in range(waiting // 1000):
                await broker.send("many", [Message(body=b"x" * 64) for _ in range(1000)])
            await _go_round(broker, 50)
            add("million waiting /s", await _go_round(broker, rounds))


async def _go_round(broker: Broker, rounds: int) -> float:
    """Messages per second through send, receive and complete."""
    started = time.perf_counter()
    for _ in range(rounds):
        await broker.send("many", [Message(body=BODY, priority=1) for _ in range(BATCH)])
        await broker.complete(await broker.receive("many", max_messages=BATCH, max_wait=1.0))
    return rounds * BATCH / (time.perf_counter() - started)


async def _space_of_serving(broker: Broker, folder: str, count: int) -> float:
    """Size of the files after *count* messages went through a backlog of 1,000, in MB."""
    await broker.send("many", [Message(body=b"x" * 64) for _ in range(1000)])
    for _ in range(count // 1000):
        await broker.send("many", [Message(body=b"x" * 64) for _ in range(1000)])
        await broker.complete(await broker.receive("many", max_messages=1000, max_wait=1.0))
    await broker.complete(await broker.receive("many", max_messages=1000, max_wait=1.0))
    return _nbytes_in(folder) / 1e6


def _nbytes_in(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).iterdir() if file.is_file())


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
