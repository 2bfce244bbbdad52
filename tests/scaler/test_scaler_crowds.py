"""Whoever holds the scaler's HTTP door open, says nothing, says too much or does not listen keeps no others away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import httpx
import pytest
from scaler_running import cooking

from dumbwaiter.scaler import http_connection, http_server
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio
MOST = 8
ASKED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def small(tmp_path, monkeypatch):
    """A scaler whose HTTP door takes MOST requests at once."""
    monkeypatch.setattr(http_server, "MOST_REQUESTS", MOST)
    async with cooking(f"sqlite:{tmp_path}/queue.db", tmp_path) as kitchen:
        yield kitchen


@contextlib.asynccontextmanager
async def connected(kitchen, count, *, receive_nbytes=None):
    """So many connections that have said nothing yet."""
    streams = []
    try:
        for _ in range(count):
            sock = socket.socket()
            if receive_nbytes is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_nbytes)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", kitchen.doors.http_port))
            streams.append(await asyncio.open_connection(sock=sock))
        yield streams
    finally:
        for _, writer in streams:
            writer.transport.abort()


async def is_closed(reader, within=10.0):
    """Whether the other side closes, or breaks off, in time."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(within):
            while await reader.read(65536):
                pass
    return True


async def get(kitchen, path):
    async with httpx.AsyncClient(trust_env=False, timeout=20.0) as client:
        return await client.get(kitchen.url(path))


async def test_connections_that_say_nothing_make_room_the_longest_idle_first(small):
    async with connected(small, MOST) as first, connected(small, 2 * MOST) as later:
        for path in ("/healthz", "/v1/scale/cats"):
            assert (await get(small, path)).status_code == 200
        assert all([await is_closed(reader) for reader, _ in first])
        assert not later[-1][0].at_eof()


async def test_a_request_under_way_makes_no_room(small):
    async with hanging(small) as answers, connected(small, 2 * MOST):
        assert (await get(small, "/healthz")).status_code == 200
        assert not any(answer.done() for answer in answers)
    assert [answer.result().status_code for answer in answers] == [200] * MOST


async def test_requests_beyond_the_most_are_refused_and_the_health_is_told_all_the_same(small):
    async with hanging(small):
        answer = await get(small, "/v1/scale/dogs")
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert answer.json()["detail"] == f"the scaler answers {MOST} requests at once; ask again"
        assert (await get(small, "/healthz")).status_code == 200
    assert (await get(small, "/v1/scale/dogs")).status_code == 200


@contextlib.asynccontextmanager
async def hanging(kitchen):
    """MOST requests that wait for a broker which does not answer; it does at the end."""
    ask, answered = kitchen.ask, asyncio.Event()

    async def late(queue):
        await answered.wait()
        return await ask(queue)

    kitchen.ask = late
    before = kitchen.asked
    paths = [f"/v1/scale/cats?drain_target={each + 1}" for each in range(MOST)]
    answers = [asyncio.create_task(get(kitchen, path)) for path in paths]
    try:
        await eventually(lambda: kitchen.asked == before + MOST)
        yield answers
    finally:
        answered.set()
        await asyncio.wait(answers)
        kitchen.ask = ask


@pytest.mark.parametrize(
    ("asked", "piece"),
    [
        (b"", b""),
        (b"GET /", b"x"),
        (ASKED, b""),
        (ASKED + b"GET /", b"x"),
        (ASKED + ASKED + b"GET /", b"x"),
        (b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", b"x"),
    ],
    ids=["nothing", "a-slow-head", "nothing-more", "a-slow-second-head", "a-slow-third-head", "a-slow-body"],
)
async def test_whoever_does_not_ask_in_time_is_cut_off(kitchen, monkeypatch, asked, piece):
    monkeypatch.setattr(http_connection, "TURN", 0.3)
    async with connected(kitchen, 1) as ((reader, writer),):
        writer.write(asked)
        closed = asyncio.create_task(is_closed(reader))
        began = time.monotonic()
        while not closed.done():
            writer.write(piece)
            await asyncio.wait({closed}, timeout=0.05)
        assert await closed
        assert time.monotonic() - began < 3.0  # uvicorn's own five seconds see only who says nothing after an answer


async def test_a_caller_that_asks_now_and_then_in_time_is_answered_each_time(kitchen, monkeypatch):
    monkeypatch.setattr(http_connection, "TURN", 1.0)
    async with connected(kitchen, 1) as ((reader, writer),):
        for _ in range(4):
            writer.write(ASKED)
            assert (await reader.readuntil(b'"ok"}')).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(0.4)


async def test_an_answer_may_take_longer_than_the_callers_turn(kitchen, monkeypatch):
    monkeypatch.setattr(http_connection, "TURN", 0.2)
    ask = kitchen.ask

    async def late(queue):
        await asyncio.sleep(0.6)
        return await ask(queue)

    kitchen.ask = late
    assert (await get(kitchen, "/v1/scale/cats")).status_code == 200


async def send_on(writer, data):
    """Send *data* again and again until there is nobody to take it."""
    async with asyncio.timeout(20.0):
        while True:
            writer.write(data)
            await writer.drain()


async def test_a_head_without_an_end_is_not_kept(kitchen):
    async with connected(kitchen, 1) as ((_, writer),):
        writer.write(b"GET /healthz HTTP/1.1\r\nX: ")
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            await send_on(writer, b"x" * 65536)
        assert time.monotonic() - began < http_connection.TURN / 2


async def test_whoever_does_not_read_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(http_connection, "TURN", 0.5)
    listen = http_server._listen

    def listen_narrowly(host, port):
        listener = listen(host, port)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # or the kernel takes megabytes of answers
        return listener

    monkeypatch.setattr(http_server, "_listen", listen_narrowly)
    async with (
        cooking(f"sqlite:{tmp_path}/queue.db", tmp_path) as kitchen,
        connected(kitchen, 1, receive_nbytes=4096) as ((reader, writer),),
    ):
        reader._transport.pause_reading()
        with pytest.raises(ConnectionError):
            await send_on(writer, b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 900) * 20)


async def test_half_of_the_files_that_may_be_open_are_left_to_all_else(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 524288))
    assert http_server.most_requests() == 512
    monkeypatch.setattr("resource.getrlimit", lambda _: (1048576, 1048576))
    assert http_server.most_requests() == http_server.MOST_REQUESTS
