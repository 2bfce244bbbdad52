"""A real gateway with real workers in the test's event loop, and Triton's client in a thread beside it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from gateway_running import Running, gateway

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import WorkerStatus
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.config import WorkerSettings
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.testing import eventually
from dumbwaiter.worker.run import run_worker

MODELS = ("Shout", "Double", "Softmax", "Invert", "Mean", "Mix", "Raw", "Crowd")


@contextlib.asynccontextmanager
async def serving_models(folder: Path, **options: Any) -> AsyncIterator[Running]:
    """Every model of kitchen_models.py, under its name in lower case."""
    store = open_store(f"file://{folder}/blobs")
    stop, ready = asyncio.Event(), set()

    def note(status: WorkerStatus) -> None:
        if status.state == "ready":
            ready.add(status.model)

    async with MemoryBroker("memory:") as broker:
        workers = [asyncio.create_task(_serve(broker, store, name, note, stop)) for name in MODELS]
        try:
            await eventually(lambda: len(ready) == len(MODELS), within=60.0, what="all models being ready")
            async with gateway(broker, store, **options) as running:
                yield running
        finally:
            stop.set()
            await asyncio.gather(*workers)


async def _serve(broker, store, name, note, stop):
    spec = ModelSpec(name=name.lower(), target=f"kitchen_models:{name}", project=str(Path(__file__).parent))
    await run_worker(broker, store, spec, WorkerSettings(), on_status=note, stop=stop)


async def with_client(port: int, use: Callable[[Any], Any], **options: Any) -> Any:
    """What *use* returns or raises, called with Triton's client in a thread of its own: the client blocks."""
    outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def run() -> None:
        import gevent
        import tritonclient.http

        try:
            with tritonclient.http.InferenceServerClient(f"127.0.0.1:{port}", **options) as client:
                result = use(client)
        except BaseException as error:
            loop.call_soon_threadsafe(outcome.set_exception, error)
        else:
            loop.call_soon_threadsafe(outcome.set_result, result)
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return await outcome
    finally:
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
