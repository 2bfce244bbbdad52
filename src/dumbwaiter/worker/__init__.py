"""The worker: a consumer (asyncio, talks to the broker) and a runner (a child process, has the model)."""

from __future__ import annotations

import asyncio
import signal

from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.config import WorkerSettings
from dumbwaiter.devices.admission import Admission
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.worker.consumer import Consumer, OnStatus

__all__ = ["Consumer", "run_worker"]


async def run_worker(
    broker: Broker,
    store: BlobStore,
    spec: ModelSpec,
    options: WorkerSettings,
    *,
    admission: Admission | None = None,
    on_status: OnStatus | None = None,
    stop: asyncio.Event | None = None,
    hurry: asyncio.Event | None = None,
) -> int:
    """Serve *spec* on an open broker and store until *stop* is set; the process's exit code.

    It leaves within options.grace, at once when *hurry* is set. Without *stop*, SIGTERM and SIGINT stop it, and a
    second one makes it hurry. *admission* grants what may be pulled (None: anything).
    """
    consumer = Consumer(broker, store, spec, options, admission=admission, on_status=on_status)
    if stop is not None:
        await consumer.run(stop, hurry=hurry)
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
