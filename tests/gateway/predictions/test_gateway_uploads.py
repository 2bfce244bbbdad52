"""Large bodies: through the blob store, never whole in memory, and gone when they are of no use."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import psutil
import pytest
from gateway_running import gateway, raw_connection
from problems_seen import problem

from dumbwaiter.answers import succeeded
from dumbwaiter.errors import BlobError
from dumbwaiter.gateway.http.budget import Budget
from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.testing import eventually
from echo_worker import TIMINGS, serving

pytestmark = pytest.mark.anyio

BYTES = {"content-type": "a/b"}
MIB = 1024 * 1024


async def many(count, chunk=bytes(MIB)):
    for _ in range(count):
        yield chunk


def short(request):
    digest = hashlib.sha256(request.body).hexdigest()
    return succeeded(request, body=digest.encode(), content_type="text/plain", timings=TIMINGS)


async def no_claims(store):
    async def none():
        return await store.list("claims/") == []

    await eventually(none)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
@pytest.mark.parametrize("nbytes", [262_143, 262_144, 262_145, 3_000_000])
async def test_a_body_arrives_whole_however_long_and_however_it_is_sent(broker, store, declared, nbytes):
    body = bytes(range(256)) * (nbytes // 256) + b"x" * (nbytes % 256)

    async def chunks():
        for start in range(0, nbytes, 100_000):
            yield body[start : start + 100_000]

    async with serving(broker, respond=short, store=store) as worker, gateway(broker, store) as running:
        response = await running.predict(content=body if declared else chunks(), headers=BYTES)
        assert response.json()["output"] == hashlib.sha256(body).hexdigest()
        assert (worker.requests[0].data_ref is not None) == (nbytes > 262_144)
        await no_claims(store)


async def test_a_body_larger_than_memory_allows_passes_through(broker, store):
    """200 MiB, with 8 MiB for the bodies of all requests; gateway and reader live in this process."""
    process = psutil.Process()
    await broker.create_queue("echo")
    async with gateway(broker, store, body_limit=500 * MIB, memory_limit=8 * MIB) as running:
        await running.predict(content=b"1", headers={**BYTES, "prefer": "respond-async"})
        before = process.memory_info().rss
        most = 0

        async def watched():
            nonlocal most
            async for chunk in many(200):
                most = max(most, process.memory_info().rss - before)
                yield chunk

        response = await running.predict(content=watched(), headers={**BYTES, "prefer": "respond-async"})
        assert response.status_code == 202
        (key,) = await store.list("claims/")
        assert await store.size(key) == 200 * MIB
    assert most < 40 * MIB


async def test_a_long_answer_passes_through_too(broker, store):
    body = bytes(50 * MIB)

    def long(request):
        return succeeded(request, body=body, content_type="a/b", timings=TIMINGS)

    async with serving(broker, respond=long, store=store), gateway(broker, store) as running:
        async with running.http.stream("POST", "/v1/models/echo/predictions", content=b"1", headers=BYTES) as response:
            assert response.headers["content-length"] == str(len(body))
            nbytes = 0
            async for chunk in response.aiter_raw():
                nbytes += len(chunk)
        assert nbytes == len(body)
        await no_claims(store)


@pytest.mark.parametrize("deferred", [True, False])
async def test_a_caller_who_hangs_up_while_sending_leaves_nothing(broker, store, deferred):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        async with raw_connection(running.port) as (_, writer):
            prefer = b"Prefer: respond-async\r\n" if deferred else b""
            writer.write(
                b"POST /v1/models/echo/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\n" + prefer
            )
            writer.write(b"Content-Length: 10000000\r\n\r\n" + bytes(5_000_000))
            await writer.drain()
            await asyncio.sleep(0.1)

        async def nothing_at_all():
            return await store.list("") == [] and await store.remove_leftovers(before=2e10) == 0

        await eventually(nothing_at_all)
    assert (await broker.stats("echo")).ready == 0


async def test_a_body_that_turns_out_too_large_leaves_nothing(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, body_limit=2 * MIB) as running:
        problem(await running.predict(content=many(4), headers=BYTES), 413, "body-too-large")
        problem(await running.predict(content=bytes(3 * MIB), headers=BYTES), 413, "body-too-large")
        await no_claims(store)


@pytest.mark.parametrize(
    ("fields", "headers", "status", "code"),
    [
        ({"tenant": "bob"}, {"dumbwaiter-tenant": "ann"}, 403, "foreign-tenant"),
        ({"deadline": "1"}, {"dumbwaiter-deadline": "4102444800"}, 400, "conflicting-deadline"),
        ({"deadline": "1"}, {}, 504, "deadline-exceeded"),
    ],
)
@pytest.mark.parametrize("prefer", ["wait=5", "respond-async"])
async def test_an_upload_of_a_request_that_is_refused_leaves_nothing(
    broker, store, fields, headers, status, code, prefer
):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        files = {"input": ("big", bytes(2 * MIB), "a/b")}
        response = await running.predict(data=fields, files=files, headers={**headers, "prefer": prefer})
        problem(response, status, code)
        assert await store.list("claims/") == []


async def test_json_is_never_larger_than_32_mib_whatever_the_limit(broker, store):
    await broker.create_queue("echo")
    async with (
        gateway(broker, store, body_limit=500 * MIB) as running,
        raw_connection(running.port) as (reader, writer),
    ):
        writer.write(b"POST /v1/models/echo/predictions HTTP/1.1\r\nHost: localhost\r\n")
        writer.write(b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (33 * MIB))
        answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"limit":%d' % (32 * MIB) in answer


@pytest.mark.parametrize("kind", ["application/cloudevents+json", "Application/CloudEvents+JSON; charset=utf-8"])
async def test_a_large_whole_message_is_refused_as_a_small_one_is(broker, store, kind):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        response = await running.predict(content=bytes(MIB), headers={"content-type": kind})
        problem(response, 415, "unsupported-media-type")
    assert (await broker.stats("echo")).ready == 0


async def test_a_store_that_fails_in_the_middle_is_503(broker, store):
    class Full:
        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        async def put_stream(self, key, chunks, *, durable=True):
            async for _ in chunks:
                raise BlobError("disk full")

    await broker.create_queue("echo")
    async with gateway(broker, Full(store)) as running:
        problem(await running.predict(content=bytes(MIB), headers=BYTES), 503, "blob-store-unavailable")
        assert (await running.http.get("/v2/health/live")).status_code == 200


async def test_when_memory_is_full_of_bodies_the_next_one_is_503_and_later_ones_are_served(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, memory_limit=1_000_000) as running:
        asking = [asyncio.create_task(running.predict(content=bytes(200_000), headers=BYTES)) for _ in range(8)]

        async def some_are_refused():
            return sum(task.done() for task in asking) >= 3

        await eventually(some_are_refused)
        await asyncio.sleep(0.1)  # those that came side by side may each have had a part of the last room
        for task in asking:
            if task.done():
                problem(task.result(), 503, "overloaded")
                assert task.result().headers["retry-after"]
        async with serving(broker, store=store):
            statuses = [response.status_code for response in await asyncio.gather(*asking)]
            assert set(statuses) == {200, 503}
            assert 1 <= statuses.count(200) <= 5
            response = await running.predict(content=bytes(200_000), headers=BYTES)
            assert response.status_code == 200


async def test_chunked_bodies_are_counted_as_they_come(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, memory_limit=MIB) as running:
        async with raw_connection(running.port) as (_, writer):
            json = b"Content-Type: application/json\r\n"
            writer.write(b"POST /v1/models/echo/predictions HTTP/1.1\r\nHost: localhost\r\n" + json)
            writer.write(b"Transfer-Encoding: chunked\r\n\r\nd0000\r\n" + b" " * 0xD0000 + b"\r\n")
            await writer.drain()

            async def is_full():
                response = await running.predict(json={"input": "x" * 100_000}, headers={"prefer": "respond-async"})
                return response.status_code == 503

            await eventually(is_full)

        async def is_free():
            response = await running.predict(json={"input": "x" * 100_000}, headers={"prefer": "respond-async"})
            return response.status_code == 202

        await eventually(is_free)


@pytest.mark.parametrize("sent", [b"", b"1\r\nx\r\n"], ids=["nothing", "a byte"])
async def test_whoever_announces_an_upload_and_sends_nothing_of_it_takes_no_memory(broker, store, sent):
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving(broker, store=store))
        running = await stack.enter_async_context(gateway(broker, store, memory_limit=8 * MIB))
        for _ in range(20):
            reader, writer = await stack.enter_async_context(raw_connection(running.port))
            head = b"POST /v1/models/echo/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\n"
            writer.write(head + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
            assert b" 100 " in await reader.readline()  # its body is waited for
            writer.write(sent)
        assert (await running.predict(content=bytes(900_000), headers=BYTES)).status_code == 200


async def test_an_output_that_goes_out_within_an_object_takes_memory_too(broker, store):
    large = bytes(3_000_000)
    async with serving(broker, store=store), gateway(broker, store, memory_limit=8 * MIB) as running:
        as_object = {**BYTES, "accept": "application/json"}
        problem(await running.predict(content=large, headers=as_object), 503, "overloaded")
        assert (await running.predict(content=large, headers=BYTES)).content == large
        assert (await running.predict(content=large[:1_000_000], headers=as_object)).status_code == 200
        assert (await running.predict(content=large[:1_000_000], headers=as_object)).status_code == 200


def test_a_budget_gives_back_what_was_taken_whatever_happens():
    budget = Budget(100)
    with budget.hold() as hold:
        hold.take(60)
        hold.ensure(50)
        assert budget.taken == 60
        hold.ensure(70)
        with pytest.raises(ProblemError):
            hold.take(31)
        assert budget.taken == 70
    assert budget.taken == 0
    hold.release()
    assert budget.taken == 0
