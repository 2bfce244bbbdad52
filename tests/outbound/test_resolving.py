"""Look-ups take a place each, and give it back whatever becomes of them."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading

import pytest

from dumbwaiter.errors import OutboundError
from dumbwaiter.outbound import resolving
from dumbwaiter.outbound.resolving import Resolver
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

HOME = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]


@pytest.fixture
def two_places(monkeypatch):
    monkeypatch.setattr(resolving, "_AT_ONCE", 2)


def answering(monkeypatch, answer):
    monkeypatch.setattr(resolving.socket, "getaddrinfo", lambda host, *_, **__: answer(host))


async def fail_each_time(resolver, *, match):
    for _ in range(6):
        async with asyncio.timeout(10.0):
            with pytest.raises(OutboundError, match=match) as caught:
                await resolver("hooks.test")
        assert caught.value.transient


async def test_a_look_up_that_has_ended_gives_its_place_back(two_places, monkeypatch):
    answering(monkeypatch, lambda host: HOME)
    resolver = Resolver()
    for _ in range(6):
        async with asyncio.timeout(10.0):
            assert await resolver("hooks.test") == [ipaddress.ip_address("127.0.0.1")]


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), ValueError("embedded null")])
async def test_one_that_fails_does_too_and_says_why(two_places, monkeypatch, error):
    def fail(host):
        raise error

    answering(monkeypatch, fail)
    await fail_each_time(Resolver(), match=r"'hooks\.test' cannot be resolved: (Name or service|embedded)")


async def test_one_that_gets_no_thread_does_too(two_places, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    answering(monkeypatch, lambda host: HOME)
    resolver = Resolver()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        await fail_each_time(resolver, match="cannot be resolved now: can't start new thread")
    assert await resolver("hooks.test")


async def test_one_that_nobody_waits_for_keeps_its_place_until_it_ends(two_places, monkeypatch):
    go, asked = threading.Event(), []

    def slow(host):
        asked.append(host)
        if host == "slow.test":
            go.wait(30.0)
        return HOME

    answering(monkeypatch, slow)
    resolver = Resolver()
    waiting = [asyncio.create_task(resolver("slow.test")) for _ in range(2)]
    await eventually(lambda: len(asked) == 2)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    next_one = asyncio.create_task(resolver("hooks.test"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert asked == ["slow.test"] * 2, "the threads of the others still run"
    go.set()
    async with asyncio.timeout(10.0):
        assert await next_one == [ipaddress.ip_address("127.0.0.1")]
    assert asked[2:] == ["hooks.test"]
