"""A client while gateways die: processes killed with -9 behind one address."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from dumbwaiter import AsyncClient
from dumbwaiter.testing import eventually
from processes import environment, starting

pytestmark = pytest.mark.anyio

MODEL = '''
import pathlib
import time


class Slow:
    """Counts how often it began, and ends when there is a file named go."""

    def __call__(self, text: str) -> str:
        with open("began", "a") as began:
            began.write("x")
        while not pathlib.Path("go").exists():
            time.sleep(0.02)
        return text.upper()


class Count:
    def __call__(self, text: str):
        for number in range(int(text)):
            pathlib.Path(f"said.{number}").touch()
            yield f"{number} "
            while not pathlib.Path(f"go.{number}").exists():
                time.sleep(0.02)
'''


class OneAddress:
    """Passes connections on to *port*, as a load balancer does; those there are end when it is told to go elsewhere."""

    def __init__(self, port):
        self.port = port
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.port)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.wait(
                    {asyncio.ensure_future(_copy(reader, back)), asyncio.ensure_future(_copy(there, writer))},
                    return_when=asyncio.FIRST_COMPLETED,
                )
            back.close()
        writer.close()


async def _copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.contextmanager
def second_gateway(folder):
    """Another gateway process over the same broker and store; its port."""
    command = [sys.executable, "-m", "dumbwaiter", "gateway", "--port", "0", "--log-format", "json"]
    log = folder / "second.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=output, stderr=output)
    try:
        give_up_at = time.monotonic() + 30
        while b"gateway listens on http://127.0.0.1:" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up_at, log.read_text()
            time.sleep(0.05)
        yield int(log.read_text().partition("http://127.0.0.1:")[2].split('"')[0].split()[0])
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateways")
    (folder / "light.py").write_text(MODEL)
    return folder


@pytest.fixture
def served(folder):
    for file in (*folder.glob("go*"), *folder.glob("began"), *folder.glob("said*")):
        file.unlink()
    with starting(folder) as start:
        yield start("light:Slow", "light:Count").ready()


@pytest.fixture
def second(served, folder):
    with second_gateway(folder) as port:
        yield port


def one_address(served):
    return OneAddress(httpx.URL(served.gateway).port)


def kill_gateway(served):
    os.kill(served.pids["gateway"], signal.SIGKILL)


async def test_a_gateway_dies_while_a_client_waits_and_another_takes_over_with_the_same_key(served, folder, second):
    async with one_address(served) as address, AsyncClient(address.url, idempotent=True, retries=8) as client:
        waiting = asyncio.create_task(client.predict("slow", "soup", timeout=40))
        await eventually((folder / "began").exists, within=20)
        address.port = second
        kill_gateway(served)
        (folder / "go").touch()
        assert await waiting == "SOUP"
    assert (folder / "began").read_text() == "x"


async def test_a_submitted_request_outlives_its_gateway(served, folder, second):
    async with one_address(served) as address, AsyncClient(address.url, retries=8) as client:
        handle = await client.submit("slow", "soup")
        waiting = asyncio.create_task(handle.result(40))
        await eventually((folder / "began").exists, within=20)
        address.port = second
        kill_gateway(served)
        (folder / "go").touch()
        assert await waiting == "SOUP"


async def test_a_stream_goes_on_through_another_gateway(served, folder, second):
    async with one_address(served) as address, AsyncClient(address.url, retries=8) as client:
        stream = client.stream("count", "3", timeout=30)
        assert await anext(stream) == "0 "
        address.port = second
        kill_gateway(served)
        for number in range(3):
            (folder / f"go.{number}").touch()
        assert [output async for output in stream] == ["1 ", "2 "]


async def test_leaving_a_stream_stops_the_model(served, folder):
    async with AsyncClient(served.gateway) as client:
        async for output in client.stream("count", "3", timeout=30):
            assert output == "0 "
            break
    (folder / "go.0").touch()
    async with AsyncClient(served.gateway) as client:  # the model is free again
        (folder / "go").touch()
        assert await client.predict("slow", "soup", timeout=30) == "SOUP"
    assert not (folder / "said.2").exists()
