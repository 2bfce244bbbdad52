"""The REST door under measurement: a gateway process, a bare echo on the same server and framework, and a caller.

The caller keeps raw keep-alive connections, one request under way on each, and checks every body: a client library in
Python would cost more than what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
Check = Callable[[int, bytes], bool]
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Caller(asyncio.Protocol):
    """One connection: send *request*, wait for the whole response, tell, again."""

    def __init__(self, request: bytes, check: Check, took: list[float], left: list[int]) -> None:
        self._request = request
        self._check = check
        self._took = took
        self._left = left
        self._buffer = b""
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = _LENGTH.search(head)
        if length is None or len(rest) < int(length[1]):
            return
        self._took.append(time.perf_counter() - self._sent_at)
        self._buffer = b""
        if not self._check(int(head[9:12]), rest):
            self.done.set_exception(AssertionError(f"a wrong answer: {head[:200]!r} {rest[:200]!r}"))
            self._transport.abort()
            return
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the server hung up: {exc}"))

    def _next(self) -> None:
        if self._left[0] <= 0:
            self.done.set_result(None)
            self._transport.close()
            return
        self._left[0] -= 1
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)


def request_to(path: str, body: bytes, content_type: str, headers: Sequence[str] = ()) -> bytes:
    """A POST as bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-type: {content_type}", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


async def call(port: int, request: bytes, *, requests: int, in_flight: int, check: Check) -> tuple[float, list[float]]:
    """Requests per second, and each one's seconds, with *in_flight* connections."""
    took: list[float] = []
    left = [requests]
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    callers = [
        (await loop.create_connection(lambda: Caller(request, check, took, left), "127.0.0.1", port))[1]
        for _ in range(in_flight)
    ]
    await asyncio.gather(*(caller.done for caller in callers))
    return requests / (time.perf_counter() - started), took


async def rate(port: int, request: bytes, *, requests: int, in_flight: int, check: Check) -> float:
    """Requests per second, after a few that do not count."""
    await call(port, request, requests=min(500, requests), in_flight=in_flight, check=check)
    return (await call(port, request, requests=requests, in_flight=in_flight, check=check))[0]


async def warm(port: int, request: bytes) -> None:
    """Wait until the model is there and answers."""
    give_up_at = time.monotonic() + 60.0
    while True:
        try:
            await call(port, request, requests=200, in_flight=1, check=lambda status, _: status == 200)
        except (AssertionError, ConnectionError):
            if time.monotonic() > give_up_at:
                raise
            await asyncio.sleep(0.2)
        else:
            return


@contextlib.asynccontextmanager
async def gateway(kind: str, model: str) -> AsyncIterator[int]:
    """Serve ``models:<model>`` behind a gateway; its port. sqlite: a process each; memory: one process for all."""
    with tempfile.TemporaryDirectory() as folder:
        broker = f"sqlite:///{folder}/queue.db" if kind == "sqlite" else "memory:"
        environment = {**os.environ, "DUMBWAITER_BROKER": broker, "DUMBWAITER_BLOBS": f"file://{folder}/blobs"}
        command = [sys.executable, "-m", "dumbwaiter", "serve", f"{model.lower()}=models:{model}", "--port", "0"]
        async with _server([*command, "--json"], environment) as port:
            yield port


@contextlib.asynccontextmanager
async def bare_echo() -> AsyncIterator[int]:
    """Starlette on uvicorn with our connections, and a handler that only echoes; its port."""
    async with _server([sys.executable, str(HERE / "bare_http.py")], dict(os.environ)) as port:
        yield port


@contextlib.asynccontextmanager
async def _server(command: Sequence[str], environment: dict[str, str]) -> AsyncIterator[int]:
    server = subprocess.Popen(  # noqa: ASYNC220 - once, before anything is measured
        command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield await asyncio.to_thread(_port_of, server)
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait)


def _port_of(server: subprocess.Popen[str]) -> int:
    assert server.stdout is not None
    for line in server.stdout:
        if ready := re.search(r"http://[^:/]+:(\d+)", line):
            return int(ready[1])
    raise RuntimeError("the server did not start")
