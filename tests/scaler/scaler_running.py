"""Scalers that run in the test's own process, over real brokers."""

from __future__ import annotations

import asyncio
import contextlib
import time

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import WorkerStatus, announce
from dumbwaiter.blobs.profiles import ServiceProfile, add_to_profile
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import ModelSettings, ScalerSettings, ScalingSettings, Settings
from dumbwaiter.message import Message
from dumbwaiter.policies.service_times import Bucket, ServiceTimes
from dumbwaiter.scaler import run_scaler

QUEUES = ("cats", "dogs")
NO_CHANGE = ScalingSettings()


class Kitchen:
    """A scaler, the ports of its *doors*, and the broker and store beside it that a worker or gateway would have."""

    def __init__(self, settings, broker, store, seen):
        self.settings = settings
        self.broker = broker
        self.store = store
        self.doors = None
        self.asked = 0
        self.ask = seen.stats
        seen.stats = self._count

    async def _count(self, queue):
        """The scaler's questions to its broker."""
        self.asked += 1
        return await self.ask(queue)

    async def send(self, queue, count=1):
        await self.broker.send(queue, [Message(body=b"x") for _ in range(count)])

    async def take(self, queue):
        """Lock one message, as a worker does."""
        (delivery,) = await self.broker.receive(queue, max_messages=1, max_wait=5.0)
        return delivery

    async def empty(self, queue):
        while deliveries := await self.broker.receive(queue, max_messages=100, max_wait=0.0):
            await self.broker.complete(deliveries)

    def url(self, path):
        return f"http{'s' if self.doors.tls else ''}://127.0.0.1:{self.doors.http_port}{path}"


@contextlib.asynccontextmanager
async def cooking(url, folder, *, models=QUEUES, queues=QUEUES, scaling=NO_CHANGE, own=None, **doors):
    """A scaler over the broker at *url*, whose queues are made; with models of these names in its settings, which are
    scaled by *scaling* unless one has its *own*.
    """
    settings = Settings(
        broker=url,
        blobs=f"file:{folder}/blobs",
        scaler=ScalerSettings(**{"grpc_port": 0, "http_port": 0, **doors}),
        models={name: ModelSettings(scaling=(own or {}).get(name, scaling)) for name in models},
        scaling=scaling,
    )
    async with open_broker(url) as broker, open_broker(url) as seen:
        for queue in queues:
            await broker.create_queue(queue)
        kitchen = Kitchen(settings, broker, open_store(settings.blobs), seen)
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        running = asyncio.create_task(
            run_scaler(seen, open_store(settings.blobs), settings, on_ready=ready.set_result, stop=stop)
        )
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        kitchen.doors, kitchen.stop, kitchen.running = ready.result(), stop, running
        try:
            yield kitchen
        finally:
            stop.set()
            assert await running == 0


async def working(store, model, *, name="chef", state="ready", **facts):
    """Say what a worker of *model* says of itself."""
    await announce(store, WorkerStatus(worker=name, model=model, state=state, started_at=time.time(), **facts))


async def measured(store, model, seconds, **facts):
    """Have it known that an input of *model* takes so long, and other *facts* of it."""
    times = ServiceTimes(buckets={10: Bucket(seconds, 50.0, time.time())})
    await add_to_profile(store, ServiceProfile(model=model, times=times, **facts), time.time())
