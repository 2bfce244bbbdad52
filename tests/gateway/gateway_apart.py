"""A real gateway in a process of its own, over sqlite and a folder, and the memory that it occupies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.testing import eventually
from processes import environment


class Apart:
    """The gateway's *process*, a client of it, and the same broker and store from here."""

    def __init__(self, process: psutil.Process, http: httpx.AsyncClient, broker: Broker, store: BlobStore) -> None:
        self.process = process
        self.http = http
        self.broker = broker
        self.store = store
        self.most = 0
        """The most bytes that the process occupied beyond what it had before, since watched() began."""

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        before = self.process.memory_info().rss

        async def sample() -> None:
            while True:
                self.most = max(self.most, self.process.memory_info().rss - before)
                await asyncio.sleep(0.01)

        task = asyncio.create_task(sample())
        try:
            yield
        finally:
            task.cancel()


@contextlib.asynccontextmanager
async def gateway_apart(folder: Path, **variables: str) -> AsyncIterator[Apart]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dumbwaiter", "gateway", "--port", str(port)]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - it takes no time
            command, cwd=folder, env=environment(**variables), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        async with (
            open_broker(f"sqlite:{folder}/.dumbwaiter/queue.db", lock_duration=30.0) as broker,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
        ):
            await broker.create_queue("echo")

            async def is_up() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await http.get("/v2/health/ready")).status_code == 200
                return False

            await eventually(is_up, within=30.0)
            store = open_store(f"file:{folder}/.dumbwaiter/blobs")
            yield Apart(psutil.Process(process.pid), http, broker, store)
    finally:
        process.kill()
        process.wait()
