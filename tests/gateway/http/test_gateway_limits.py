"""Callers that are slow, endless, rude or gone, over raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import socket
import struct
import time

import psutil
import pytest
from gateway_running import gateway, raw_connection

from dumbwaiter.testing import eventually
from echo_worker import serving

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}  # their transports close differently


POST = b"POST /v1/models/echo/predictions HTTP/1.1\r\nHost: localhost\r\n"
CHUNK = b"10000\r\n" + bytes(0x10000) + b"\r\n"


async def read_all(reader, within=10.0):
    """Everything until the gateway closes the connection."""
    return await asyncio.wait_for(reader.read(), within)


async def send_until_cut(writer, piece):
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()


async def test_a_declared_body_over_the_limit_is_413_before_it_is_read(broker, store):
    async with serving(broker), gateway(broker, store, body_limit=1000) as running:
        async with raw_connection(running.port) as (reader, writer):
            writer.write(POST + b"Content-Length: 1000000000\r\n\r\n")
            answer = await read_all(reader)
        response = await running.predict(content=bytes(1001))
        assert (response.status_code, response.json()["limit"]) == (413, 1000)
        assert (await running.predict(content=bytes(1000), headers={"content-type": "a/b"})).status_code == 200
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


async def test_an_endless_chunked_body_is_cut_with_413_and_memory_stays_flat(broker, store):
    process = psutil.Process()
    async with serving(broker), gateway(broker, store, body_limit=4 * 1024 * 1024) as running:
        await running.predict(content=b"1", headers={"content-type": "a/b"})
        gc.collect()
        before = process.memory_info().rss
        async with raw_connection(running.port) as (reader, writer):
            writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
            sending = asyncio.create_task(send_until_cut(writer, CHUNK))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            grown = process.memory_info().rss - before
            await asyncio.wait_for(sending, 10)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert grown < 48 * 1024 * 1024  # of an endless body; the limit twice over, buffers, and this test's own


async def test_a_1_gb_body_that_is_declared_honestly_is_refused_while_the_caller_still_sends(broker, store):
    async with serving(broker), gateway(broker, store) as running, raw_connection(running.port) as (reader, writer):
        writer.write(POST + b"Content-Length: 1073741824\r\n\r\n")
        sending = asyncio.create_task(send_until_cut(writer, bytes(65536)))
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 413 ")
        await asyncio.wait_for(sending, 10)


async def test_an_unknown_model_is_refused_without_asking_for_the_body(broker, store):
    async with gateway(broker, store) as running, raw_connection(running.port) as (reader, writer):
        writer.write(POST + b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
        answer = await read_all(reader)
    assert answer.startswith(b"HTTP/1.1 404 ")


async def test_a_known_model_asks_for_the_body_with_100_continue(broker, store):
    async with serving(broker), gateway(broker, store) as running, raw_connection(running.port) as (reader, writer):
        writer.write(POST + b"Content-Type: a/b\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await asyncio.wait_for(reader.readuntil(b"hello"), 5)).startswith(b"HTTP/1.1 200 ")


async def test_a_connection_that_says_nothing_is_closed(broker, store):
    async with gateway(broker, store, header_timeout=0.3) as running, raw_connection(running.port) as (reader, _):
        with contextlib.suppress(ConnectionError):
            assert await read_all(reader, 5) == b""


async def drip(writer, data):
    with contextlib.suppress(ConnectionError):
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("part", ["head", "body"])
async def test_a_dripping_head_or_body_is_408_and_closed(broker, store, part):
    async with (
        serving(broker) as worker,
        gateway(broker, store, header_timeout=0.3, body_timeout=0.3) as running,
        raw_connection(running.port) as (reader, writer),
    ):
        head = POST + b"Content-Length: 1000\r\n\r\n"
        writer.write(head[:10] if part == "head" else head)
        dripping = asyncio.create_task(drip(writer, bytes(1000) if part == "body" else head[10:]))
        answer = await read_all(reader, 5)
        dripping.cancel()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert part.encode() in answer
        assert (await running.predict(content=b"1", headers={"content-type": "a/b"})).status_code == 200
    assert len(worker.requests) == 1


async def test_what_came_quickly_buys_no_long_silence(broker, store):
    """At 64 KiB a second what was sent would have taken 160 seconds."""
    async with (
        serving(broker),
        gateway(broker, store, body_timeout=0.5) as running,
        raw_connection(running.port) as (reader, writer),
    ):
        writer.write(POST + b"Content-Type: application/json\r\nContent-Length: 10485761\r\n\r\n" + b" " * 10_485_760)
        await writer.drain()
        assert (await read_all(reader, 5)).startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed_and_a_busy_one_is_kept(broker, store):
    request = POST + b"Content-Type: a/b\r\nContent-Length: 1\r\n\r\n1"
    async with (
        serving(broker),
        gateway(broker, store, idle_timeout=0.5, header_timeout=0.5, body_timeout=0.5) as running,
        raw_connection(running.port) as (reader, writer),
    ):
        for _ in range(8):  # longer in all than any of the timeouts
            writer.write(request)
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n1"), 5)).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(0.1)
        with contextlib.suppress(ConnectionError):
            assert await read_all(reader, 5) == b""


async def test_waiting_for_the_model_is_not_the_callers_slowness(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, idle_timeout=0.2, header_timeout=0.2, body_timeout=0.2) as running:
        waiting = asyncio.create_task(running.predict(content=b"1", headers={"content-type": "a/b"}))
        await asyncio.sleep(1.0)
        async with serving(broker):
            assert (await waiting).status_code == 200


@pytest.mark.parametrize("form", ["many headers", "one header", "one header that never ends", "a long path"])
async def test_an_oversized_head_is_431(broker, store, form):
    head = {
        "many headers": POST + b"X-Y: 1234567890\r\n" * 3000,
        "one header": POST + b"X-Y: " + b"z" * 50_000 + b"\r\n",
        "one header that never ends": POST + b"X-Y: " + b"z" * 50_000,
        "a long path": b"GET /" + b"z" * 50_000 + b" HTTP/1.1\r\n",
    }[form]
    async with gateway(broker, store) as running, raw_connection(running.port) as (reader, writer):
        writer.write(head)
        assert (await read_all(reader, 5)).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"EHLO me\r\n"])
async def test_what_is_not_http_is_400(broker, store, data):
    async with gateway(broker, store) as running, raw_connection(running.port) as (reader, writer):
        writer.write(data)
        assert (await read_all(reader, 5)).startswith(b"HTTP/1.1 400 ")


async def test_pipelined_requests_are_answered_in_order_and_outlive_the_timeouts(broker, store):
    await broker.create_queue("echo")
    request = POST + b"Content-Type: a/b\r\nContent-Length: 2\r\n\r\n"
    async with (
        gateway(broker, store, idle_timeout=0.2, header_timeout=0.2, body_timeout=0.2) as running,
        raw_connection(running.port) as (reader, writer),
    ):
        writer.write(request + b"#1" + request + b"#2" + request)
        await asyncio.sleep(0.8)
        async with serving(broker):
            for body in (b"#1", b"#2"):
                assert (await asyncio.wait_for(reader.readuntil(body), 5)).startswith(b"HTTP/1.1 200 ")
            writer.write(b"#3")
            assert b"HTTP/1.1 200 " in await asyncio.wait_for(reader.readuntil(b"#3"), 5)


async def test_connections_over_the_cap_get_503_and_places_become_free_again(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, max_connections=3) as running:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                reader, writer = await stack.enter_async_context(raw_connection(running.port))
                writer.write(POST + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
                assert b" 100 " in await asyncio.wait_for(reader.readline(), 5)
            async with raw_connection(running.port) as (reader, writer):
                writer.write(POST + b"Content-Length: 10\r\n\r\n")
                answer = await read_all(reader, 5)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"too-many-connections" in answer

        async def served():
            return (await running.http.get("/v2/health/live")).status_code == 200

        await eventually(served)


LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("begun", [b"", b"POST /v1"], ids=["idle", "slow heads"])
async def test_those_who_ask_for_nothing_make_room_for_newcomers_and_the_longest_first(broker, store, begun):
    async with gateway(broker, store, max_connections=3) as running, contextlib.AsyncExitStack() as stack:
        crowd = []
        for _ in range(3):
            crowd.append(await stack.enter_async_context(raw_connection(running.port)))
            crowd[-1][1].write(begun)
            await asyncio.sleep(0.05)
        async with raw_connection(running.port) as (reader, writer):
            writer.write(LIVE)
            assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200 ")
            with contextlib.suppress(ConnectionError):
                assert await read_all(crowd[0][0], 5) == b""
            assert not any(reader.at_eof() for reader, _ in crowd[1:])


async def test_a_request_is_answered_although_the_next_head_came_with_it(broker, store):
    body = b"GET / HTTP/1.1\r\n" + bytes(50_000)
    async with (
        serving(broker),
        gateway(broker, store, header_limit=8192) as running,
        raw_connection(running.port) as (reader, writer),
    ):
        head = POST + b"Content-Type: a/b\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body + LIVE[:30])
        answer = await asyncio.wait_for(reader.readuntil(body), 5)
        assert answer.startswith(b"HTTP/1.1 200 ")
        writer.write(LIVE[30:])
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (POST + b"Content-Length: x\r\n\r\n", b"400"),
        (POST + b"X: " + b"x" * 9000 + b"\r\nY: y\r\nZ", b"431"),
    ],
    ids=["no HTTP", "no length", "long head"],
)
async def test_what_is_owed_is_answered_before_what_is_refused(broker, store, rest, status):
    await broker.create_queue("echo")
    async with (
        gateway(broker, store, header_limit=8192) as running,
        raw_connection(running.port) as (reader, writer),
    ):
        writer.write(POST + b"Content-Type: a/b\r\nContent-Length: 2\r\n\r\n#1" + LIVE + rest)
        await asyncio.sleep(0.2)
        async with serving(broker):
            answer = await read_all(reader)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"200", status]


async def test_thousands_of_pipelined_requests_are_all_answered_and_few_of_them_are_in_memory(broker, store):
    async with gateway(broker, store) as running, raw_connection(running.port) as (reader, writer):
        writer.write(LIVE * 5000)
        for number in range(5000):
            assert b" 200 " in (await asyncio.wait_for(reader.readuntil(b"}"), 5)), number
            if number == 100:
                from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

                assert sum(type(thing) is RequestResponseCycle for thing in gc.get_objects()) < 1000


@pytest.mark.parametrize(
    "line", [b"CONNECT host:80", b"GET http:///x", b"GET https://[/", b"GET http://127.0.0.1:99999/x"]
)
async def test_a_target_that_cannot_be_read_is_400(broker, store, line):
    async with gateway(broker, store) as running, raw_connection(running.port) as (reader, writer):
        writer.write(line + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_all(reader, 5)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))


@pytest.mark.parametrize(
    ("version", "coding", "status"),
    [(b"1.0", b"chunked", b"400"), (b"1.1", b"gzip, chunked", b"501"), (b"1.1", b"Chunked", b"200")],
)
async def test_a_body_is_chunked_in_http_1_1_and_coded_in_no_other_way(broker, store, version, coding, status):
    head = POST.replace(b"1.1", b"%b") + b"Content-Type: a/b\r\nTransfer-Encoding: %b\r\n\r\n"
    async with serving(broker), gateway(broker, store) as running, raw_connection(running.port) as (reader, writer):
        writer.write(head % (version, coding) + b"1\r\nx\r\n0\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == status


async def test_extensions_of_chunks_count_like_a_head_and_small_chunks_do_not(broker, store):
    head = POST + b"Content-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(broker), gateway(broker, store, header_limit=8192) as running:
        async with raw_connection(running.port) as (reader, writer):
            writer.write(head)
            for _ in range(5000):
                writer.write(b"1\r\nx\r\n")
            writer.write(b"0\r\n\r\n")
            assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200 ")
        async with raw_connection(running.port) as (reader, writer):
            writer.write(head)
            await writer.drain()
            for _ in range(40):
                writer.write(b"1;" + b"e" * 1000 + b"\r\nx\r\n")
            assert (await read_all(reader, 5)).startswith(b"HTTP/1.1 431 ")


async def test_large_bodies_that_never_end_do_not_turn_small_ones_away(broker, store):
    head = POST + b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    async with (
        serving(broker),
        gateway(broker, store, memory_limit=2_500_000) as running,
        contextlib.AsyncExitStack() as stack,
    ):

        async def begin(nbytes):
            _, writer = await stack.enter_async_context(raw_connection(running.port))
            writer.write(head + b" " * nbytes)
            await writer.drain()

        for _ in range(8):
            await begin(1)
        await asyncio.sleep(0.1)  # what is only announced takes nothing
        assert (await running.predict(json={"input": "x" * 900_000})).status_code == 200
        for _ in range(2):
            await begin(900_000)

        async def is_full():
            async with raw_connection(running.port) as (reader, writer):
                writer.write(head)
                with contextlib.suppress(asyncio.TimeoutError):
                    return (await asyncio.wait_for(reader.readline(), 0.2)).startswith(b"HTTP/1.1 503 ")

        await eventually(is_full)
        assert (await running.predict(json={"input": "x" * 1000})).status_code == 200


@pytest.mark.parametrize("how", ["closed", "reset", "half closed"])
async def test_a_caller_who_hangs_up_is_forgotten_and_the_rest_is_served(broker, store, how):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(POST + b"Content-Length: 1\r\n\r\n1")

        async def has_arrived():
            return (await broker.stats("echo")).ready == 1

        await eventually(has_arrived)
        asker = gateway_asker()
        assert len(asker.waiting()) == 1
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if how == "half closed":
            writer.write_eof()
        else:
            writer.close()
        await eventually(lambda: not asker.waiting())
        async with serving(broker):
            assert (await running.predict(content=b"2", headers={"content-type": "a/b"})).content == b"2"
        writer.close()
    assert asker.late == 1


async def test_a_caller_who_hangs_up_while_sending_leaves_nothing_in_the_queue(broker, store):
    async with serving(broker) as worker, gateway(broker, store) as running:
        async with raw_connection(running.port) as (_, writer):
            writer.write(POST + b"Content-Length: 100\r\n\r\nabc")
            await writer.drain()
        assert (await running.predict(content=b"2", headers={"content-type": "a/b"})).status_code == 200
    assert [request.body for request in worker.requests] == [b"2"]


async def test_two_hundred_slow_sockets_do_not_keep_a_healthy_caller_waiting(broker, store):
    async with serving(broker), gateway(broker, store, header_timeout=1.0) as running:
        async with contextlib.AsyncExitStack() as stack:
            slow = [await stack.enter_async_context(raw_connection(running.port)) for _ in range(200)]
            for _, writer in slow:
                writer.write(b"POST /v1")
            started = time.monotonic()
            assert (await running.predict(content=b"1", headers={"content-type": "a/b"})).status_code == 200
            assert time.monotonic() - started < 1.0
            answers = await asyncio.gather(*(read_all(reader) for reader, _ in slow))
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)


def gateway_asker():
    from dumbwaiter.asking import Asker

    return next(thing for thing in gc.get_objects() if type(thing) is Asker and not thing._closed)
