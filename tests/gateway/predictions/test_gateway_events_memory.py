"""What many callers who follow large outputs, and do not read them, take of a gateway in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest
from gateway_apart import gateway_apart

from dumbwaiter.answers import succeeded
from dumbwaiter.blobs.events import FIRST, Event, append, event_id, new_attempt
from dumbwaiter.blobs.results import save_result
from dumbwaiter.message import Message
from echo_worker import TIMINGS

pytestmark = [pytest.mark.anyio, pytest.mark.trial, pytest.mark.timeout(120)]

MIB = 1024 * 1024
LIMIT = 64 * MIB
FOLLOWERS = 24


async def asked_and_told(apart, nbytes, count=3):
    """The id of a prediction that has told *count* outputs of so many bytes."""
    headers = {"prefer": "respond-async", "content-type": "a/b"}
    response = await apart.http.post("/v1/models/echo/predictions", content=b"1", headers=headers)
    id_, attempt = response.json()["id"], new_attempt(1, time.time())
    for number in range(FIRST, FIRST + count):
        event = Event(id=event_id(attempt, number), event="output", data=bytes(nbytes), content_type="a/b")
        await append(apart.store, id_, [event])
    return id_


@contextlib.contextmanager
def asking(apart, paths):
    """Callers who ask for *paths*, whose kernels take little, and who do not read."""
    with contextlib.ExitStack() as stack:
        socks = []
        for path in paths:
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", apart.http.base_url.port))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            socks.append(sock)
        yield socks


@pytest.mark.parametrize("of", ["one prediction", "one each"])
async def test_those_who_follow_large_outputs_and_do_not_read_stay_within_the_memory_limit(tmp_path, of):
    async with gateway_apart(tmp_path, DUMBWAITER_GATEWAY__MEMORY_LIMIT=str(LIMIT)) as apart:
        ids = [await asked_and_told(apart, 10 * MIB) for _ in range(1 if of == "one prediction" else FOLLOWERS)]
        paths = [f"/v1/predictions/{id_}/events" for id_ in ids] * (FOLLOWERS // len(ids))
        async with apart.watched():
            with asking(apart, paths) as socks:
                for _ in range(20):
                    assert (await apart.http.get("/v2/health/live")).status_code == 200
                    await asyncio.sleep(0.2)
                assert all(sock.recv(12) == b"HTTP/1.1 200" for sock in socks)
        assert apart.most < 1.5 * LIMIT
        # All of it is there for the next one, who reads.
        answer = succeeded(Message(id=ids[0]), body=b"1", content_type="application/json", timings=TIMINGS)
        await save_result(apart.store, ids[0], answer, threshold=MIB)
        nbytes = 0
        async with apart.http.stream("GET", paths[0]) as response:
            async for chunk in response.aiter_raw():
                nbytes, last = nbytes + len(chunk), chunk
        assert nbytes > 3 * 10 * MIB * 4 / 3
        assert last.endswith(b"\n\n")
