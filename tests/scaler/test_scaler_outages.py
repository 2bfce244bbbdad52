"""Where the scaler cannot tell, it says so: never 0, never "not active"."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time

import grpc
import httpx
import pytest
from keda_client import Keda, outcome, refused
from scaler_running import cooking

from dumbwaiter.config import ScalingSettings
from dumbwaiter.errors import BrokerError
from dumbwaiter.scaler import looks
from dumbwaiter.testing import eventually
from dumbwaiter.testing.servers import RabbitmqServer, RedisServer, redis_program

pytestmark = pytest.mark.anyio
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
async def redis(tmp_path):
    server = RedisServer(redis_program(), tmp_path / "redis")
    server.start()
    yield server
    server.stop()


async def get(kitchen, path):
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
        return await client.get(kitchen.url(path))


async def says(state, ask):
    """Whether that is the outcome now: an answer, or UNAVAILABLE."""
    return await outcome(ask(model="cats")) == state


async def test_a_broker_that_is_killed_makes_every_call_fail_until_it_is_back(redis, tmp_path):
    async with cooking(redis.url, tmp_path) as kitchen, Keda(kitchen.doors.grpc_port) as keda:
        async with keda.following(model="cats") as stream:
            await stream.next_is(False)
            assert not await keda.is_active(model="cats")
            redis.stop()
            await stream.end()
            assert (stream.states, stream.ended) == ([False], UNAVAILABLE)
        await eventually(lambda: says(UNAVAILABLE, keda.is_active))
        await eventually(lambda: says(UNAVAILABLE, keda.metric))
        assert await keda.metric_spec(model="cats") == ("dumbwaiter-cats", 1, 1.0)
        for path in ("/v1/scale/cats", "/v1/scale"):
            answer = await get(kitchen, path)
            assert (answer.status_code, answer.json()["code"]) == (503, "broker-unavailable")
            assert "desired" not in answer.text
        assert (await get(kitchen, "/healthz")).status_code == 200
        async with keda.following(model="cats") as stream:
            await stream.end()
            assert (stream.states, stream.ended) == ([], UNAVAILABLE)
        redis.start()
        await eventually(lambda: sent(kitchen))
        await eventually(lambda: says(True, keda.is_active))
        async with keda.following(model="cats") as stream:
            await stream.next_is(True)


async def sent(kitchen):
    try:
        await kitchen.send("cats")
    except BrokerError:
        return False
    return True


async def test_a_broker_that_hangs_makes_calls_fail_in_bounded_time(redis, tmp_path, monkeypatch):
    monkeypatch.setattr(looks, "LOOK_WITHIN", 0.5)
    async with cooking(redis.url, tmp_path) as kitchen, Keda(kitchen.doors.grpc_port) as keda:
        async with keda.following(model="cats") as stream:
            await stream.next_is(False)
            redis.pause(signal.SIGSTOP)
            try:
                await stream.end()
                assert stream.ended is UNAVAILABLE
                with refused(UNAVAILABLE, r"did not tell within 0\.5 s$"):
                    await keda.is_active(model="cats", drain_target="8s")
                answer = await get(kitchen, "/v1/scale/cats?drain_target=9s")
                assert (answer.status_code, answer.json()["code"]) == (503, "too-slow")
            finally:
                redis.pause(signal.SIGCONT)
        await eventually(lambda: says(False, keda.is_active))


async def test_a_scaler_that_stops_while_it_looks_says_so_at_once(redis, tmp_path):
    async with cooking(redis.url, tmp_path) as kitchen, Keda(kitchen.doors.grpc_port) as keda:
        redis.pause(signal.SIGSTOP)
        try:
            asking = asyncio.create_task(keda.is_active(model="cats"))
            await eventually(lambda: kitchen.asked)
            began = time.monotonic()
            kitchen.stop.set()
            with refused(UNAVAILABLE, r"^the scaler is stopping; ask again$"):
                await asking
            assert await kitchen.running == 0
            assert time.monotonic() - began < 5.0
        finally:
            redis.pause(signal.SIGCONT)


async def test_a_store_that_cannot_be_read_makes_calls_fail(kitchen, keda, tmp_path):
    async with keda.following(model="cats", look_every="20ms", min_replicas="1") as stream:
        await stream.next_is(True)
        folder = tmp_path / "blobs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.write_text("this was a folder")
        await stream.end()
        assert (stream.states, stream.ended) == ([True], UNAVAILABLE)
    with refused(UNAVAILABLE, "blobs"):
        await keda.is_active(model="dogs")
    answer = await get(kitchen, "/v1/scale/dogs")
    assert (answer.status_code, answer.json()["code"]) == (503, "blob-store-unavailable")


async def test_a_bug_is_an_error_too_and_no_zero(kitchen, keda, caplog):
    async def broken(queue):
        raise ZeroDivisionError("secret of the house")

    kitchen.ask = broken
    for ask in (keda.is_active, keda.metric):
        with refused(grpc.StatusCode.INTERNAL, r"^unexpected ZeroDivisionError; the scaler's log says more$"):
            await ask(model="cats")
    async with keda.following(model="cats") as stream:
        await stream.end()
        assert (stream.states, stream.ended) == ([], grpc.StatusCode.INTERNAL)
    answer = await get(kitchen, "/v1/scale/cats")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
    assert "secret" not in answer.text
    assert "secret of the house" in caplog.text


async def test_a_signal_that_the_broker_cannot_tell_is_refused_for_what_it_is(tmp_path):
    server = RabbitmqServer(tmp_path / "rabbitmq")
    server.start()
    try:
        by_age = {"dogs": ScalingSettings(signal="age")}
        async with cooking(server.url, tmp_path, own=by_age) as kitchen, Keda(kitchen.doors.grpc_port) as keda:
            with refused(grpc.StatusCode.FAILED_PRECONDITION, r"^scaling by age follows how long .* set another"):
                await keda.is_active(model="cats", signal="age")
            async with keda.following(model="cats", signal="age") as stream:
                await stream.end()
                assert stream.ended is grpc.StatusCode.FAILED_PRECONDITION
            answer = await get(kitchen, "/v1/scale/cats?signal=age")
            assert (answer.status_code, answer.json()["code"]) == (503, "signal-unknown")
            assert (await get(kitchen, "/v1/scale/cats")).json()["oldest_age"] is None
            assert not await keda.is_active(model="cats")
            cats, dogs = (await get(kitchen, "/v1/scale")).json()["models"]
            assert (cats["model"], cats["desired"]) == ("cats", 0)
            assert (dogs["model"], dogs["problem"]["code"]) == ("dogs", "signal-unknown")
            assert "desired" not in dogs
    finally:
        server.stop()
