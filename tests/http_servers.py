"""Real HTTP servers on loopback that behave as they are told: each request gets the bytes that a function says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Answer = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


class Asked:
    def __init__(self, head: bytes, body: bytes):
        request_line, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.path, _ = request_line.split(" ")
        pairs = [line.partition(": ") for line in lines if line]
        self.headers = {name.lower(): value for name, _, value in pairs}
        self.body = body


class Server:
    """Remembers what it was asked. *connections* counts all, those that never asked included."""

    def __init__(self, host: str = "127.0.0.1"):
        self.host = host
        self.port = 0
        self.asked: list[Asked] = []
        self.connections = 0

    def url(self, path="/", scheme="http"):
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}{path}"


def response(status=200, body=b"", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in names.items())]
    if "content-length" not in names and "transfer-encoding" not in names:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def always(data: bytes) -> Answer:
    async def answer(asked, writer):
        writer.write(data)

    return answer


@asynccontextmanager
async def serving(answer: Answer, *, host="127.0.0.1", ssl=None) -> AsyncIterator[Server]:
    server = Server(host)
    tasks = set()

    async def connected(reader, writer):
        server.connections += 1
        tasks.add(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                asked = Asked(head[:-4], b"")
                asked.body = await reader.readexactly(int(asked.headers.get("content-length", 0)))
                server.asked.append(asked)
                await answer(asked, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, host, 0, ssl=ssl)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
