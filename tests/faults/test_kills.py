"""kill -9 and SIGSTOP of real processes in the middle of 500 requests: each is answered once, or dead-lettered."""

from __future__ import annotations

import asyncio
import signal
import time

import psutil
import pytest
from node import LOCK, Node

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.results import load_result
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.errors import BlobNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

REQUESTS = 500


def ids() -> list[str]:
    return [f"request-{number:03}" for number in range(REQUESTS)]


async def send_all(broker: Broker) -> None:
    await broker.create_queue("model")
    await broker.send("model", [Message(id=name, body=name.encode(), content_type="text/plain") for name in ids()])


async def answered(store: BlobStore) -> dict[str, bytes]:
    found = {}
    for name in ids():
        try:
            answer = await load_result(store, name)
        except BlobNotFoundError:
            continue
        assert failure_of(answer) is None, f"{name}: {answer.body!r}"
        found[name] = answer.body
    return found


async def all_ended(broker: Broker, store: BlobStore) -> bool:
    """Every request has its own right answer, and nothing is left in the queue."""
    stats = await broker.stats("model")
    assert stats.ready + stats.locked + stats.delayed == 0, stats
    assert stats.dead == 0, [letter.detail for letter in await broker.dead_letters("model")]
    results = await answered(store)
    assert len(results) == REQUESTS
    assert results == {name: name.upper().encode() for name in ids()}
    return True


async def some_answered(store: BlobStore, count: int) -> bool:
    return len(await store.list("results/")) >= count


async def test_kill_9_of_the_consumer_loses_nothing(node: Node) -> None:
    store = open_store(node.store_url)
    async with open_broker(node.broker_url, lock_duration=LOCK) as broker:
        await send_all(broker)
        victim = node.worker()
        await eventually(lambda: some_answered(store, 50), within=30.0)
        runners = psutil.Process(victim.pid).children(recursive=True)
        victim.kill()
        victim.wait()
        await eventually(lambda: not any(_lives(runner) for runner in runners), what="the runner's death")
        node.worker()
        await eventually(lambda: all_ended(broker, store), within=60.0, every=0.2)


async def test_kill_9_of_the_runner_loses_nothing(node: Node) -> None:
    store = open_store(node.store_url)
    async with open_broker(node.broker_url, lock_duration=LOCK) as broker:
        await send_all(broker)
        worker = node.worker()
        await eventually(lambda: some_answered(store, 50), within=30.0)
        for runner in psutil.Process(worker.pid).children():
            runner.kill()
        await eventually(lambda: all_ended(broker, store), within=60.0, every=0.2)
        assert worker.poll() is None, "the consumer survives its runner"


async def test_a_worker_stopped_beyond_its_lock_settles_nothing_of_others_when_it_comes_back(node: Node) -> None:
    store = open_store(node.store_url)
    async with open_broker(node.broker_url, lock_duration=LOCK) as broker:
        await send_all(broker)
        sleeper = node.worker()
        await eventually(lambda: some_answered(store, 50), within=30.0)
        sleeper.send_signal(signal.SIGSTOP)
        node.worker()
        await eventually(lambda: all_ended(broker, store), within=60.0, every=0.2)
        before = await answered(store)
        sleeper.send_signal(signal.SIGCONT)  # nothing, if it was stopped in a transaction and put out for that
        late = [Message(id=f"late-{number}", body=b"late", content_type="text/plain") for number in range(50)]
        await broker.send("model", late)

        async def late_ones_answered() -> bool:
            return len([key for key in await store.list("results/") if "late-" in key]) == len(late)

        await eventually(late_ones_answered, within=30.0)
        assert await answered(store) == before, "a stale worker changed an answer"
        assert (await broker.stats("model")).dead == 0


async def test_sigterm_in_the_middle_hands_back_at_once_and_exits_0(node: Node) -> None:
    store = open_store(node.store_url)
    async with open_broker(node.broker_url, lock_duration=30.0) as broker:
        await send_all(broker)
        first = node.worker()
        await eventually(lambda: some_answered(store, 50), within=30.0)
        started = time.monotonic()
        first.terminate()
        assert await asyncio.to_thread(first.wait, 20) == 0
        assert time.monotonic() - started < 10.0
        stats = await broker.stats("model")
        assert stats.locked == 0
        node.worker()
        await eventually(lambda: all_ended(broker, store), within=60.0, every=0.2)


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
