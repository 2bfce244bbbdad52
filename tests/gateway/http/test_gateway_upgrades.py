"""Requests that ask for another protocol are served in this one, and what follows them is never misread."""

from __future__ import annotations

import asyncio

import pytest
from gateway_running import gateway, raw_connection

from dumbwaiter.gateway.http.upgrades import head_without_upgrade
from echo_worker import serving

pytestmark = pytest.mark.anyio

HIDDEN = b"GET /nothing/of/the/kind HTTP/1.1\r\nHost: localhost\r\n\r\n"
WISH = (
    b"Host: localhost\r\nConnection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAMAAABk\r\n"
)
CLOSE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def said_to(port, *packets):
    async with raw_connection(port) as (reader, writer):
        for packet in packets:
            writer.write(packet)
            await writer.drain()
            await asyncio.sleep(0.05)  # so that they arrive one by one
        return await asyncio.wait_for(reader.read(), 10)


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("path", [b"/v2/health/live", b"/v1/models", b"/"])
async def test_the_body_of_a_request_that_would_upgrade_is_no_request(broker, store, protocol, path):
    head = b"GET " + path + b" HTTP/1.1\r\n" + WISH % protocol + b"Content-Length: %d\r\n\r\n" % len(HIDDEN)
    async with gateway(broker, store) as running:
        for packets in (
            [head, HIDDEN, CLOSE],
            [head + HIDDEN + CLOSE],
            [head[:40], head[40:] + HIDDEN[:9], HIDDEN[9:] + CLOSE],
        ):
            answers = await said_to(running.port, *packets)
            # A body that comes late and that nobody wants to read ends the connection.
            assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 200 ") >= 1
            assert b"/nothing/of/the/kind" not in answers


@pytest.mark.parametrize(
    "body", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
)
async def test_a_client_that_offers_http2_gets_its_answer(broker, store, body):
    head = b"POST /v1/models/echo/predictions HTTP/1.1\r\nContent-Type: a/b\r\n" + WISH % b"h2c"
    async with serving(broker), gateway(broker, store) as running:
        answers = await said_to(running.port, head + body, CLOSE)
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert b"\r\n\r\nhello" in answers


async def test_requests_that_follow_one_without_a_body_are_all_answered(broker, store):
    wish = b"GET /v2/health/live HTTP/1.1\r\n" + WISH % b"h2c" + b"\r\n"
    async with gateway(broker, store) as running:
        answers = await said_to(running.port, wish * 300 + CLOSE)
    assert answers.count(b"HTTP/1.1 200 ") == 301


@pytest.mark.parametrize("target", [b"localhost:80", b"/v2/health/live"])
async def test_the_gateway_is_no_proxy(broker, store, target):
    async with gateway(broker, store) as running:
        answer = await said_to(running.port, b"CONNECT " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_only_the_wish_is_left_out():
    headers = [
        (b"host", b"a"),
        (b"connection", b"Upgrade, close"),
        (b"upgrade", b"h2c"),
        (b"upgrade", b"x"),
        (b"x", b""),
    ]
    assert head_without_upgrade(b"PUT", b"/a?b", "1.1", headers) == (
        b"PUT /a?b HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: \r\n\r\n"
    )
