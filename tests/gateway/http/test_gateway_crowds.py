"""Crowds that fill all connections by waiting: who gives way, to whom, and who always gets in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest
from gateway_running import gateway, raw_connection

from dumbwaiter.blobs.keyring import mint, save_key
from dumbwaiter.gateway.http.crowd import BESIDES
from dumbwaiter.testing import eventually
from echo_worker import serving

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}  # their transports close differently


@pytest.fixture
async def echo(broker):
    await broker.create_queue("echo")


POST = b"POST /v1/models/echo/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Callers:
    """Raw connections to one gateway, closed at the end."""

    def __init__(self, running, stack):
        self.running = running
        self._stack = stack

    async def send(self, request):
        reader, writer = await self._stack.enter_async_context(raw_connection(self.running.port))
        writer.write(request)
        await writer.drain()
        return reader

    async def status(self, request):
        return await status_of(await self.send(request))

    async def fill(self, count):
        """So many connections with requests that the application is at, none of which gives way."""
        filling = [await self.send(POST + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n") for _ in range(count)]
        assert {await status_of(reader) for reader in filling} <= {100}


@contextlib.asynccontextmanager
async def callers(broker, store, **options):
    async with gateway(broker, store, **options) as running, contextlib.AsyncExitStack() as stack:
        yield Callers(running, stack)


async def status_of(reader):
    return int((await asyncio.wait_for(reader.readline(), 5)).split()[1])


async def rest_of(reader):
    """Everything until the gateway closes the connection."""
    return await asyncio.wait_for(reader.read(), 5)


def is_answered(reader):
    return bool(reader._buffer) or reader.at_eof()


def getting(path, *, prefer="wait=60", token="", accept="*/*"):
    key = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nPrefer: {prefer}\r\nAccept: {accept}\r\n{key}\r\n".encode()


async def deferred(running, token=""):
    headers = {"prefer": "respond-async", "content-type": "a/b"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    return (await running.predict(content=b"1", headers=headers)).json()["urls"]["get"]


async def waits(running, count):
    """The gateway has so many requests that only wait."""
    from dumbwaiter.gateway.http.crowd import wait_of

    return await eventually(lambda: sum(map(bool, map(wait_of, scopes()))) == count, what=f"{count} that wait")


def scopes():
    import gc

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    return [thing.scope for thing in gc.get_objects() if type(thing) is RequestResponseCycle]


async def test_a_newcomer_takes_the_place_of_the_oldest_long_poll_which_is_told_to_come_back(broker, store, echo):
    async with callers(broker, store, max_connections=4) as crowd:
        path = await deferred(crowd.running)
        polls = []
        for number in range(4):  # the client's own connection is idle, and goes first
            polls.append(await crowd.send(getting(path)))
            await waits(crowd.running, number + 1)
        assert await crowd.status(MODELS) == 200
        answer = await rest_of(polls[0])
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"too-many-connections" in answer
        assert b"retry-after: 1\r\n" in answer
        assert b"connection: close\r\n" in answer
        assert not any(map(is_answered, polls[1:]))


async def test_a_stream_of_events_that_gives_way_ends_whole_and_another_is_left_alone(broker, store, echo):
    async with callers(broker, store, max_connections=2) as crowd:
        path = await deferred(crowd.running)
        streams = []
        for number in range(2):
            streams.append(await crowd.send(getting(f"{path}/events")))
            await waits(crowd.running, number + 1)
        assert await crowd.status(MODELS) == 200
        answer = await rest_of(streams[0])
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n0\r\n\r\n")
        assert not streams[1].at_eof()


@pytest.mark.parametrize(("prefer", "status"), [("wait=60", 503), ("respond-async, wait=60", 202)])
async def test_whoever_waits_with_an_idempotency_key_gives_way_too(broker, store, echo, prefer, status):
    """All who ask the same share one place of a quota: without end, if they kept their connections."""
    head = POST + f"Prefer: {prefer}\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\n1".encode()
    async with callers(broker, store, max_connections=2) as crowd:
        first = await crowd.send(head)
        await waits(crowd.running, 1)
        await crowd.send(head)
        await waits(crowd.running, 2)
        assert await crowd.status(MODELS) == 200
        assert await status_of(first) == status


async def token_of(store, tenant):
    key, token = mint(tenant=tenant, name="", now=time.time())
    await save_key(store, key)
    return token


async def test_whoever_waits_most_gives_way_though_others_have_waited_longer(broker, store, echo):
    greedy, modest = await token_of(store, "greedy"), await token_of(store, "modest")
    async with callers(broker, store, max_connections=5, auth="on") as crowd:
        theirs, its = await deferred(crowd.running, greedy), await deferred(crowd.running, modest)
        patient = [await crowd.send(getting(its, token=modest)) for _ in range(2)]
        await waits(crowd.running, 2)
        polls = []
        for number in range(3):
            polls.append(await crowd.send(getting(theirs, token=greedy)))
            await waits(crowd.running, number + 3)
        assert await crowd.status(getting("/v1/models", token=modest)) == 200
        assert await status_of(polls[0]) == 503
        assert not any(map(is_answered, [*patient, *polls[1:]]))


async def test_however_many_long_polls_one_caller_opens_others_are_served(broker, store, echo):
    greedy, other = await token_of(store, "greedy"), await token_of(store, "other")
    async with callers(broker, store, max_connections=10, auth="on") as crowd:
        path = await deferred(crowd.running, greedy)
        for _ in range(50):
            await crowd.send(getting(path, token=greedy))
            await crowd.send(getting(f"{path}/events", token=greedy))
        await waits(crowd.running, 10)  # a poll that has only just come does not wait yet, and cannot give way
        for _ in range(5):
            assert await crowd.status(getting("/v1/models", token=other)) == 200


async def test_a_poll_that_has_given_way_can_wait_again_and_is_told_the_result(broker, store, echo):
    async with callers(broker, store, max_connections=2) as crowd:
        path = await deferred(crowd.running)
        for _ in range(2):
            await crowd.send(getting(path))
        await waits(crowd.running, 2)
        again = await crowd.send(getting(path))
        async with serving(broker, store=store):
            assert await status_of(again) == 200
            assert json.loads((await asyncio.wait_for(again.readuntil(b"}\n"), 5)).partition(b"\r\n\r\n")[2])["output"]


async def test_health_is_told_though_every_connection_is_at_work_and_nothing_else_is(broker, store, echo):
    async with callers(broker, store, max_connections=3) as crowd:
        await crowd.fill(3)
        assert await crowd.status(LIVE) == 200
        assert await crowd.status(LIVE.replace(b"live", b"ready")) == 200
        refused = await crowd.send(MODELS)
        answer = await rest_of(refused)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"too-many-connections" in answer
        assert b"retry-after: 1\r\n" in answer


async def test_who_comes_for_health_and_says_nothing_makes_room_for_the_next(broker, store, echo):
    async with callers(broker, store, max_connections=2) as crowd:
        await crowd.fill(2)
        silent = [await crowd.send(b"GET /v2/he") for _ in range(3 * BESIDES)]
        assert await crowd.status(LIVE) == 200
        assert sum(not reader.at_eof() for reader in silent) <= BESIDES


async def test_a_connection_that_came_for_health_may_ask_for_more_once_there_is_room(broker, store, echo):
    async with callers(broker, store, max_connections=2) as crowd:
        async with contextlib.AsyncExitStack() as stack:
            other = Callers(crowd.running, stack)
            await other.fill(2)
            reader, writer = await asyncio.open_connection("127.0.0.1", crowd.running.port)
            writer.write(LIVE)
            await asyncio.wait_for(reader.readuntil(b"}\n"), 5)

        async def is_empty():
            return await crowd.status(MODELS) == 200

        await eventually(is_empty)
        writer.write(MODELS)
        assert await status_of(reader) == 200
        writer.close()
