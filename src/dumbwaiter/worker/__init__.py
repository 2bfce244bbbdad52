"""The worker: a consumer (asyncio, talks to the broker) and a runner (a child process, has the model)."""

from __future__ import annotations

import asyncio
import signal

from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.worker.consumer import Consumer, OnStatus
from dumbwaiter.worker.options import WorkerOptions

__all__ = ["Consumer", "WorkerOptions", "run_worker"]


async def run_worker(
    broker: Broker,
    store: BlobStore,
    spec: ModelSpec,
    options: WorkerOptions,
    *,
    on_status: OnStatus | None = None,
    stop: asyncio.Event | None = None,
) -> int:
    """Serve *spec* on an open broker and store until *stop* is set; the process's exit code.

    Without *stop*, SIGTERM and SIGINT stop it within options.grace; a second one makes it hurry.
    """
    consumer = Consumer(broker, store, spec, options, on_status=on_status)
    if stop is not None:
        await consumer.run(stop)
        return 0
    stop, hurry = asyncio.Event(), asyncio.Event()

    def asked_to_stop() -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    try:
        await consumer.run(stop, hurry=hurry)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return 0
