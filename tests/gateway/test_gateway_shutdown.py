"""Starting and stopping: addresses, signals, and who still waits."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from gateway_running import gateway, raw_connection
from problems_seen import problem

from dumbwaiter.config import GatewaySettings
from dumbwaiter.errors import ConfigError
from dumbwaiter.gateway import run_gateway
from dumbwaiter.testing import eventually
from echo_worker import serving

pytestmark = pytest.mark.anyio

#: A gateway in a process of its own; its worker answers a request of body N after N seconds (and "never", never).
PROGRAM = """
import asyncio, sys, logging
import uvloop
from dumbwaiter.answers import succeeded
from dumbwaiter.blobs import open_store
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.config import GatewaySettings
from dumbwaiter.gateway import run_gateway
from dumbwaiter.message import Timings

logging.basicConfig(level="INFO")

async def answer(broker, request):
    if request.body == b"never":
        return
    await asyncio.sleep(float(request.body))
    answered = succeeded(request, body=b"done", content_type="a/b", timings=Timings())
    await broker.reply(request.reply_to, [answered])

async def work(broker):
    tasks = set()
    while True:
        for delivery in await broker.receive("echo", max_messages=10, max_wait=1.0):
            print("received", flush=True)
            await broker.complete([delivery])
            tasks.add(asyncio.create_task(answer(broker, delivery.message)))

async def main():
    async with MemoryBroker("memory:") as broker:
        await broker.create_queue("echo")
        worker = asyncio.create_task(work(broker))
        ready = lambda host, port: print("listening", port, flush=True)
        options = GatewaySettings(port=0, grace=float(sys.argv[2]))
        code = await run_gateway(broker, open_store(sys.argv[1]), options, on_ready=ready)
        worker.cancel()
        return code

sys.exit(uvloop.run(main()))
"""


@contextlib.asynccontextmanager
async def gateway_process(tmp_path, grace):
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes no time, and wait() happens in a thread
        [sys.executable, "-c", PROGRAM, f"file://{tmp_path}", str(grace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        port = int((await next_line(process)).split()[1])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            yield process, http
    finally:
        process.kill()
        process.communicate()


async def next_line(process):
    return await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 20)


def ask(http, body):
    return asyncio.create_task(http.post("/v1/models/echo/predictions", content=body, headers={"content-type": "a/b"}))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_those_who_wait_finish_and_the_process_ends_with_0(tmp_path, number):
    async with gateway_process(tmp_path, grace=20) as (process, http):
        waiting = ask(http, b"1.0")
        assert await next_line(process) == "received\n"
        process.send_signal(number)
        response = await waiting
        assert (response.status_code, response.content) == (200, b"done")
        assert await asyncio.to_thread(process.wait, 10) == 0
        assert "Traceback" not in process.stderr.read()


async def test_those_who_still_wait_after_the_grace_get_503(tmp_path):
    async with gateway_process(tmp_path, grace=0.5) as (process, http):
        waiting = ask(http, b"never")
        assert await next_line(process) == "received\n"
        process.terminate()
        response = await waiting
        assert (response.status_code, response.json()["code"]) == (503, "shutting-down")
        assert response.headers["retry-after"]
        assert await asyncio.to_thread(process.wait, 10) == 0
        assert "Traceback" not in process.stderr.read()


async def test_after_the_signal_no_connection_is_accepted_and_the_address_is_in_the_log(tmp_path):
    async with gateway_process(tmp_path, grace=20) as (process, http):
        waiting = ask(http, b"1.0")
        assert await next_line(process) == "received\n"
        process.terminate()

        async def refuses():
            with contextlib.suppress(httpx.ConnectError):
                async with httpx.AsyncClient() as fresh:
                    await fresh.get(http.base_url)
                return False
            return True

        await eventually(refuses)
        assert (await waiting).status_code == 200
        assert await asyncio.to_thread(process.wait, 10) == 0
        assert f"gateway listens on {http.base_url}"[:-1] in process.stderr.read()


async def test_the_process_is_small_and_loads_no_model_library(tmp_path):
    async with gateway_process(tmp_path, grace=1) as (process, http):
        responses = [ask(http, b"0.0") for _ in range(200)]
        assert {response.status_code for response in await asyncio.gather(*responses)} == {200}
        assert psutil.Process(process.pid).memory_info().rss < 120 * 1024 * 1024
        mapped = {Path(file.path).name for file in psutil.Process(process.pid).memory_maps()}
        assert not [name for name in mapped if "torch" in name or "_multiarray" in name or "_imaging" in name]


async def test_a_body_that_is_still_coming_when_the_grace_ends_gets_503(broker, store):
    async with (
        serving(broker),
        gateway(broker, store, grace=0.3) as running,
        raw_connection(running.port) as (reader, writer),
    ):
        writer.write(b"POST /v1/models/echo/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
        await writer.drain()
        assert (await running.http.get("/v2/health/live")).status_code == 200
        running.stop.set()
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("headers", [{"prefer": "respond-async"}, {"idempotency-key": "k"}, {}])
async def test_those_whose_request_the_broker_has_not_confirmed_when_the_grace_ends_get_503(
    broker, store, monkeypatch, headers
):
    await broker.create_queue("echo")
    begun = asyncio.Event()

    async def hangs(queue, messages, **options):
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(broker, "send", hangs)
    async with gateway(broker, store, grace=0.1) as running:
        asking = asyncio.create_task(running.predict(content=b"1", headers={"content-type": "a/b", **headers}))
        await begun.wait()
        running.stop.set()
        problem(await asking, 503, "shutting-down")
        assert (await asking).headers["retry-after"] == "1"


async def test_a_port_that_is_taken_is_named(broker, store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}.*choose another port"):
            await run_gateway(broker, store, GatewaySettings(port=port))


async def test_it_listens_on_ipv6_too(broker, store):
    ready = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    options = GatewaySettings(host="::1", port=0)
    task = asyncio.create_task(
        run_gateway(broker, store, options, stop=stop, on_ready=lambda *address: ready.set_result(address))
    )
    host, port = await asyncio.wait_for(ready, 10)
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"http://[{host}]:{port}/v2/health/live")).status_code == 200
    stop.set()
    assert await task == 0
