"""Two gateways behind one address, each a process of its own; one is killed with requests waiting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys

import httpx
import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.testing import eventually
from echo_worker import serving
from processes import environment

pytestmark = pytest.mark.anyio


@pytest.fixture
def port():
    """A port that stays ours: bound, and not listened at."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def start(tmp_path, port):
    """Start one more gateway at the shared address; when it listens, return its process."""
    with contextlib.ExitStack() as stack:

        async def one_more():
            number = len(list(tmp_path.glob("*.log")))
            log = tmp_path / f"{number}.log"
            command = [sys.executable, "-m", "dumbwaiter", "gateway", "--port", str(port), "--share-port"]
            with log.open("wb") as file:
                process = subprocess.Popen(  # noqa: ASYNC220 - it takes no time
                    command, cwd=tmp_path, env=environment(), stdout=file, stderr=subprocess.STDOUT
                )
            stack.callback(process.wait)
            stack.callback(process.kill)
            await eventually(lambda: "listening on" in log.read_text(), within=30.0)
            return process

        yield one_more


async def until_answered(port, key):
    """As a careful caller asks: again with the same key whenever the connection breaks."""
    for _ in range(20):
        with contextlib.suppress(httpx.TransportError):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
                headers = {"content-type": "text/plain", "idempotency-key": key, "prefer": "wait=20"}
                return await http.post("/v1/models/echo/predictions", content=key.encode(), headers=headers)
        await asyncio.sleep(0.2)
    raise AssertionError("nobody answers")


async def test_when_one_of_two_is_killed_every_caller_gets_its_answer_all_the_same(tmp_path, port, start):
    gateways = [await start() for _ in range(2)]
    store = open_store(f"file:{tmp_path}/.dumbwaiter/blobs")
    async with open_broker(f"sqlite:{tmp_path}/.dumbwaiter/queue.db", lock_duration=30.0) as broker:
        await broker.create_queue("echo")
        asking = [asyncio.create_task(until_answered(port, f"key-{number}")) for number in range(40)]

        async def all_wait():
            return (await broker.stats("echo")).ready == 40

        await eventually(all_wait, within=20.0)
        gateways[0].kill()
        await asyncio.to_thread(gateways[0].wait, 10)
        async with serving(broker, store=store) as worker:
            responses = await asyncio.gather(*asking)
            assert {response.status_code for response in responses} == {200}
            assert sorted(response.json()["output"] for response in responses) == sorted(f"key-{n}" for n in range(40))
            third = await start()  # and its place is taken again
            assert (await until_answered(port, "afterwards")).status_code == 200
            assert third.poll() is None
        # Whoever asked again with its key asked for the same prediction.
        assert len({request.id for request in worker.requests}) == 41
