"""Callers who send nothing, in crowds, and callers who do not read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket

import pytest
from gateway_running import gateway, raw_connection

from dumbwaiter.testing import eventually
from echo_worker import output, serving

pytestmark = pytest.mark.anyio

POST = b"POST /v1/models/echo/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\n"
LARGE = 24 * 1024 * 1024


@pytest.fixture(scope="module", params=[True, pytest.param(False, marks=pytest.mark.trial)], ids=["uvloop", "asyncio"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def drip(sock, data):
    with contextlib.suppress(OSError):
        sock.send(data)


async def test_a_thousand_sockets_that_drip_are_all_cut_and_a_healthy_caller_is_answered_meanwhile(
    broker, store, many_files
):
    """Slowloris: each socket sends a byte of a head or of a body now and then, and so never falls silent."""
    body = {"content": b"1", "headers": {"content-type": "a/b"}}
    async with (
        serving(broker) as worker,
        gateway(broker, store, header_timeout=2.0, body_timeout=2.0, max_connections=800) as running,
    ):
        await running.predict(**body)  # one connection is its own before the others come
        crowd = []
        try:
            for number in range(1000):
                crowd.append(sock := socket.create_connection(("127.0.0.1", running.port)))
                sock.setblocking(False)
                drip(sock, POST[:20] if number % 2 else POST + b"Content-Length: 5000\r\n\r\nx")
                if number % 100 == 0:
                    assert (await running.predict(**body)).status_code == 200
            answered = 1 + 10

            async def all_are_cut():
                nonlocal answered
                for sock in crowd:
                    drip(sock, b"x")
                assert (await running.predict(**body)).status_code == 200
                answered += 1
                return all(map(is_over, crowd))

            await eventually(all_are_cut, within=30.0)
        finally:
            for sock in crowd:
                sock.close()
    assert len(worker.requests) == answered


def is_over(sock):
    """Whether the gateway has closed its side."""
    try:
        while data := sock.recv(65536):
            assert b" 408 " in data or b" 503 " in data or not data.startswith(b"HTTP")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextlib.asynccontextmanager
async def tight_connection(port):
    """A connection whose kernel takes little of what nobody reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    sock.connect(("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def asked(broker, running, connection, more=b""):
    _, writer = connection
    writer.write(POST + more + b"Content-Length: %d\r\n\r\n" % LARGE + bytes(LARGE))
    await writer.drain()


@pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"], ids=["kept", "closing"])
async def test_a_caller_who_does_not_read_its_response_is_dropped(broker, store, ending):
    async with serving(broker, store=store), gateway(broker, store, write_timeout=0.5) as running:
        async with tight_connection(running.port) as connection:
            await asked(broker, running, connection, ending)
            connections = connections_of(running)
            await eventually(lambda: connections() == 1)
            await eventually(lambda: connections() == 0, within=15.0)
        assert (await running.predict(content=b"1", headers={"content-type": "a/b"})).status_code == 200


@pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"], ids=["kept", "closing"])
async def test_a_caller_who_reads_slowly_but_reads_gets_all_of_it(broker, store, ending):
    """Once the response is written whole, the connection looks idle, or closed, long before the caller has it."""
    options = {"write_timeout": 1.0, "idle_timeout": 0.3, "body_timeout": 5.0}
    async with (
        serving(broker, store=store),
        gateway(broker, store, **options) as running,
        tight_connection(running.port) as (reader, writer),
    ):
        await asked(broker, running, (reader, writer), ending)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        assert head.startswith(b"HTTP/1.1 200 ")
        left = LARGE
        while left:
            left -= len(await asyncio.wait_for(reader.readexactly(min(left, LARGE // 40)), 10))
            await asyncio.sleep(0.05)


async def test_a_caller_who_pipelines_and_never_reads_is_dropped(broker, store):
    async with (
        serving(broker, store=store),
        gateway(broker, store, write_timeout=0.5) as running,
        tight_connection(running.port) as (_, writer),
    ):
        connections = connections_of(running)
        request = POST + b"Content-Length: 500000\r\n\r\n" + os.urandom(500_000)

        async def push():
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(request)
                    await writer.drain()

        pushing = asyncio.create_task(push())
        await eventually(lambda: connections() == 1)
        await eventually(lambda: connections() == 0, within=15.0)
        pushing.cancel()


def connections_of(running):
    """How many sockets are connected to the gateway, but those of its own test client."""
    import psutil

    def count():
        mine = psutil.Process().net_connections("tcp")
        own = sum(len(pool.connections) for pool in [running.http._transport._pool])
        return sum(c.laddr and c.laddr.port == running.port and c.status == "ESTABLISHED" for c in mine) - own

    return count


async def test_one_who_reads_nothing_but_asks_for_nothing_more_is_no_slow_reader(broker, store):
    async with (
        serving(broker, store=store),
        gateway(broker, store, write_timeout=0.2, idle_timeout=2.0) as running,
        raw_connection(running.port) as (reader, writer),
    ):
        writer.write(POST + b"Content-Length: 1\r\n\r\n1")
        await asyncio.sleep(1.0)  # the response is small: the kernel has it, and the gateway nothing left
        assert b" 200 OK" in await reader.readline()


async def test_answers_that_nobody_reads_are_counted_and_late_callers_are_told_so(broker, store):
    """What waits to be read is in memory still: it is held against memory_limit until the caller has taken it."""
    respond = output(bytes(4 * 1024 * 1024), "a/b")

    async with (
        serving(broker, respond=respond, store=store),
        gateway(broker, store, memory_limit=32 * 1024 * 1024, write_timeout=30.0) as running,
        contextlib.AsyncExitStack() as unread,
    ):
        ask = POST + b"Accept: application/json\r\nContent-Type: a/b\r\nContent-Length: 1\r\n\r\nx"
        heads = []
        for _ in range(4):
            reader, writer = await unread.enter_async_context(tight_connection(running.port))
            writer.write(ask)
            heads.append(await asyncio.wait_for(reader.readexactly(12), 10))
        assert heads[0].endswith(b" 200")
        assert heads[-1].endswith(b" 503")
