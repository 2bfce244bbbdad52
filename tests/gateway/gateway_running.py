"""A real gateway on a free port, and a raw socket to be rude to it with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.config import GatewaySettings
from dumbwaiter.gateway import run_gateway

SIGNING_KEY = "0123456789abcdef" * 4


class Running:
    def __init__(self, port: int, http: httpx.AsyncClient, stop: asyncio.Event, task: asyncio.Task[int]) -> None:
        self.port = port
        self.http = http
        self.stop = stop
        self.task = task

    async def predict(self, model: str = "echo", **request: Any) -> httpx.Response:
        return await self.http.post(f"/v1/models/{model}/predictions", **request)


@contextlib.asynccontextmanager
async def gateway(broker: Broker, store: BlobStore, **options: Any) -> AsyncIterator[Running]:
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    settings = GatewaySettings(**{"port": 0, "grace": 5.0, "signing_key": SIGNING_KEY, **options})
    task = asyncio.create_task(
        run_gateway(broker, store, settings, stop=stop, on_ready=lambda _, port: listening.set_result(port))
    )
    await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    port = listening.result()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, limits=limits) as http:
        try:
            yield Running(port, http, stop, task)
        finally:
            stop.set()
            await http.aclose()
            assert await task == 0


@contextlib.asynccontextmanager
async def raw_connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
