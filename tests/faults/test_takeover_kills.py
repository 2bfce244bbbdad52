"""kill -9 of a worker whose locks are long, and another in its place: nothing waits for a lock to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from node import Node

from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.trial, pytest.mark.timeout(120)]

LOCK = {"DUMBWAITER_LOCK_DURATION": "300s"}
REQUESTS = 300

#: Tells the kernel to let it live when its consumer dies. It notes who ran what, and sleeps the first time.
ORPHAN = """
import ctypes
import os
import time


class Model:
    def __init__(self) -> None:
        PR_SET_PDEATHSIG = 1
        assert ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0) == 0

    def __call__(self, text: str) -> str:
        seconds, _, name = text.partition(" ")
        with open("runs", "a") as runs:
            runs.write(f"{name} {os.getppid()} {os.getpid()}\\n")
        if sum(line.startswith(f"{name} ") for line in open("runs")) == 1:
            time.sleep(float(seconds))
        return name
"""


def runs(node: Node) -> list[tuple[str, int, int]]:
    """Which request was run, by the runner of which worker, and the runner's own process."""
    path = node.folder / "runs"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(name, int(worker), int(runner)) for name, worker, runner in lines]


def request(name: str, seconds: float) -> Message:
    return Message(id=name, body=f"{seconds} {name}".encode(), content_type="text/plain", extensions={"keep": "true"})


async def answers(node: Node) -> set[str]:
    return {key.rpartition("/")[2] for key in await open_store(node.store_url).list("results/")}


def slots_open_in(process: int) -> list[str]:
    links = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            links.append(str(link.readlink()))
    return [link for link in links if "/slots/" in link]


async def test_a_runner_that_outlives_its_killed_worker_keeps_neither_its_slot_nor_its_message(node: Node) -> None:
    node.write_model(ORPHAN)
    first = node.worker(**LOCK)
    async with open_broker(node.broker_url) as broker:
        await broker.create_queue("model")
        await broker.send("model", [request("a", 60.0)])
        ((_, worker, orphan),) = await eventually(lambda: runs(node), within=30.0, what="a run")
        try:
            assert worker == first.pid
            assert slots_open_in(first.pid)
            assert not slots_open_in(orphan)
            first.kill()
            first.wait()
            os.kill(orphan, 0)  # it lives, and computes
            second = node.worker(**LOCK)
            await eventually(lambda: answers(node), within=30.0, what="the answer of the successor")
            assert [run[1] for run in runs(node)] == [first.pid, second.pid]
        finally:
            os.kill(orphan, signal.SIGKILL)


async def test_what_a_living_worker_holds_is_left_to_it_when_another_one_is_replaced(node: Node) -> None:
    node.write_model(ORPHAN)
    workers = {process.pid: process for process in (node.worker(**LOCK), node.worker(**LOCK))}
    orphans: set[int] = set()
    async with open_broker(node.broker_url) as broker:
        await broker.create_queue("model")
        try:
            # Each has one: what runs is alone in its hand.
            for number, name in enumerate(("a", "b"), start=1):
                await broker.send("model", [request(name, 60.0)])
                await eventually(lambda number=number: len(runs(node)) == number, within=30.0, what=f"run {number}")
            orphans = {run[2] for run in runs(node)}
            (_, living, _), (name, victim, _) = runs(node)
            assert living != victim
            workers[victim].kill()
            workers[victim].wait()
            node.worker(**LOCK)
            await eventually(lambda: answers(node), within=30.0, what="an answer")
            assert await answers(node) == {name}
            assert [run[0] for run in runs(node)] == ["a", "b", name]

            async def one_is_held() -> bool:
                return (await broker.stats("model")).locked == 1

            await eventually(one_is_held, what="that of the living one alone")
        finally:
            for orphan in orphans:
                os.kill(orphan, signal.SIGKILL)


async def test_a_worker_killed_over_and_over_under_load_leaves_nothing_to_wait_for(node: Node) -> None:
    async with open_broker(node.broker_url) as broker:
        await broker.create_queue("model")
        names = {f"request-{number:03}" for number in range(REQUESTS)}
        messages = [Message(id=name, body=name.encode(), content_type="text/plain") for name in sorted(names)]
        await broker.send("model", messages)
        for part in (1, 2, 3):
            worker = node.worker(**LOCK)

            async def is_far_enough(part: int = part) -> bool:
                return len(await answers(node)) >= part * REQUESTS // 5

            await eventually(is_far_enough, within=30.0, what="some answers")
            worker.kill()
            await asyncio.to_thread(worker.wait)
        node.worker(**LOCK)

        async def is_done() -> bool:
            stats = await broker.stats("model")
            assert (stats.ready, stats.locked, stats.dead) == (0, 0, 0), stats
            return await answers(node) == names

        await eventually(is_done, within=30.0, every=0.2, what="all answers")
