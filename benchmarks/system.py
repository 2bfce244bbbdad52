"""dumbwaiter under measurement: a worker on a broker, and an asker that keeps so many requests in flight."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from dumbwaiter.answers import raise_for_failure
from dumbwaiter.asking import Asker
from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import WorkerSettings
from dumbwaiter.message import Message
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.worker.run import run_worker

HERE = Path(__file__).parent
Check = Callable[[Message], bool]


@contextlib.asynccontextmanager
async def serving(kind: str, model: str) -> AsyncIterator[Asker]:
    """Serve ``models:<model>`` over the *kind* of broker: memory in this process, others by a worker of its own.

    *kind* is ``memory``, ``sqlite`` (a fresh file), or the URL of a server.
    """
    with tempfile.TemporaryDirectory() as folder:
        broker_url = {"memory": "memory:", "sqlite": f"sqlite:///{folder}/queue.db"}.get(kind, kind)
        store_url = f"file://{folder}/blobs"
        async with open_broker(broker_url) as broker:
            store = open_store(store_url)
            worker = _task(broker, store, model) if kind == "memory" else _process(broker_url, store_url, model)
            async with worker, Asker(broker, store) as asker:
                yield asker


@contextlib.asynccontextmanager
async def _process(broker: str, store: str, model: str) -> AsyncIterator[None]:
    environment = {**os.environ, "DUMBWAITER_BROKER": broker, "DUMBWAITER_BLOBS": store}
    command = [sys.executable, "-m", "dumbwaiter", "worker", f"{model.lower()}=models:{model}"]
    worker = subprocess.Popen(command, cwd=HERE, env=environment, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        yield
    finally:
        worker.terminate()
        await asyncio.to_thread(worker.wait)


@contextlib.asynccontextmanager
async def _task(broker: object, store: object, model: str) -> AsyncIterator[None]:
    stop = asyncio.Event()
    spec = ModelSpec(name=model.lower(), target=f"models:{model}", project=str(HERE))
    worker = asyncio.create_task(run_worker(broker, store, spec, WorkerSettings(), stop=stop))  # type: ignore[arg-type]
    try:
        yield
    finally:
        stop.set()
        await worker


async def drive(
    asker: Asker, queue: str, body: bytes, content_type: str, *, requests: int, in_flight: int, check: Check
) -> tuple[float, list[float]]:
    """Keep *in_flight* requests under way until *requests* are answered; requests per second and each one's seconds."""
    left = requests
    took: list[float] = []

    async def ask_on() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            sent_at = time.perf_counter()
            message = Message(body=body, content_type=content_type, time=time.time())
            answer = raise_for_failure(await asker.ask(queue, message, timeout=120.0))
            took.append(time.perf_counter() - sent_at)
            if not check(answer):
                raise AssertionError("a wrong answer")

    started = time.perf_counter()
    await asyncio.gather(*(ask_on() for _ in range(in_flight)))
    return requests / (time.perf_counter() - started), took


async def warm(asker: Asker, queue: str, body: bytes, content_type: str, *, requests: int, in_flight: int) -> None:
    """Wait until the queue exists and the model is ready, then let some requests through."""
    from dumbwaiter.errors import BrokerUnavailableError, QueueNotFoundError  # noqa: PLC0415

    give_up_at = time.monotonic() + 60.0
    while True:
        try:
            await asker.ask(queue, Message(body=body, content_type=content_type), timeout=60.0)
            break
        except (QueueNotFoundError, BrokerUnavailableError):  # the latter while a server still makes the queue
            if time.monotonic() > give_up_at:
                raise
            await asyncio.sleep(0.05)
    await drive(asker, queue, body, content_type, requests=requests, in_flight=in_flight, check=lambda _: True)
