"""What a request leaves behind: nothing that only the garbage collector would find, for it comes seldom here."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterable

import pytest
from gateway_running import gateway, raw_connection

from dumbwaiter.message import Message
from echo_worker import failure, serving

pytestmark = pytest.mark.anyio

NBYTES = 150_000
LEAST_NBYTES = 30_000
POST = b"POST /v1/models/echo/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\nPrefer: wait=1\r\n"


def bodies_in(things: Iterable[object]) -> list[object]:
    found = []
    for thing in things:
        for part in [thing, *gc.get_referents(thing)]:
            data = part.body if isinstance(part, Message) else part
            if isinstance(data, (bytes, bytearray)) and len(data) >= LEAST_NBYTES:
                found.append(thing)
    return found


async def ask(port):
    """One request with a body of its own, by raw socket: a client library leaves garbage of its own."""
    async with raw_connection(port) as (reader, writer):
        writer.write(POST + b"Content-Length: %d\r\n\r\n" % NBYTES + os.urandom(NBYTES))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    return int(head.split()[1])


@pytest.mark.parametrize(
    ("status", "respond", "options"),
    [
        (200, None, {}),
        (500, failure("model-error", "no"), {}),
        (504, "nobody", {}),
        (503, "nobody", {"memory_limit": 1000}),
        (413, "nobody", {"body_limit": 1000}),
        (401, "nobody", {"auth": "on"}),
    ],
)
async def test_no_body_stays_in_a_cycle_however_its_request_ended(broker, store, status, respond, options):
    await broker.create_queue("echo")
    async with gateway(broker, store, **options) as running:
        workers = [] if respond == "nobody" else [serving(broker, **({"respond": respond} if respond else {}))]
        for worker in workers:
            await worker.__aenter__()
        await ask(running.port)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            statuses = await asyncio.gather(*(ask(running.port) for _ in range(3)))
            await asyncio.sleep(0.2)  # the connections end
            gc.collect()
            left = bodies_in(gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert set(statuses) == {status}
        assert not left
        for worker in workers:
            await worker.__aexit__(None, None, None)
