"""Streams: the first message on an empty queue is pushed at once, and whoever goes away leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import statistics
import sys
import time
from pathlib import Path

import grpc
import pytest
from keda_client import Keda
from scaler_running import cooking, working

from dumbwaiter.scaler import following, grpc_server
from dumbwaiter.scaler.grpc_server import _OPTIONS as OPTIONS
from dumbwaiter.testing import eventually
from dumbwaiter.testing.servers import RedisServer, redis_program, valkey_program

pytestmark = pytest.mark.anyio

ROUNDS = 15
QUICK = {"model": "cats", "look_every": "20ms"}


@contextlib.contextmanager
def broker_of(kind, folder):
    if kind == "sqlite":
        yield f"sqlite:{folder}/queue.db"
        return
    server = RedisServer({"redis": redis_program, "valkey": valkey_program}[kind](), folder / kind)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["sqlite", "redis", "valkey"])
async def test_the_first_message_on_an_empty_queue_is_pushed_within_a_tenth_of_a_second(tmp_path, kind):
    with broker_of(kind, tmp_path) as url:
        async with (
            cooking(url, tmp_path) as kitchen,
            Keda(kitchen.doors.grpc_port) as keda,
            keda.following(**QUICK) as stream,
        ):
            took = []
            for _ in range(ROUNDS):
                await stream.next_is(False)
                await kitchen.send("cats")
                sent = time.monotonic()
                await stream.next_is(True)
                took.append(stream.told[-1][0] - sent)
                await kitchen.empty("cats")
    assert statistics.median(took) < 0.1, sorted(took)


async def test_only_changes_are_pushed(kitchen, keda):
    async with keda.following(**QUICK) as stream:
        await stream.next_is(False)
        for _ in range(3):
            await kitchen.send("cats")
            await stream.next_is(True)
            asked = kitchen.asked
            await eventually(lambda asked=asked: kitchen.asked > asked + 3)
    assert stream.states == [False, True]


async def test_what_was_said_is_said_again_now_and_then(keda, monkeypatch):
    monkeypatch.setattr(following, "REPEAT_EVERY", 0.05)
    async with keda.following(model="cats") as stream:
        await eventually(lambda: stream.states == [False, False, False])


async def test_a_stream_that_is_opened_while_work_waits_says_so_at_once(kitchen, keda):
    await kitchen.send("cats")
    async with keda.following(model="cats") as stream:
        await eventually(lambda: stream.states == [True])


async def test_what_a_glance_misses_as_a_worker_takes_it_at_once_a_whole_look_sees(kitchen, keda):
    await working(kitchen.store, "cats")
    await kitchen.send("cats")
    await kitchen.take("cats")
    async with keda.following(**QUICK) as stream:
        await eventually(lambda: stream.states == [True])


async def test_whoever_asks_after_a_push_hears_the_same(kitchen, keda):
    """Although a look that is less than a second old has seen an empty queue."""
    async with keda.following(model="cats") as stream:
        await stream.next_is(False)
        assert not await keda.is_active(model="cats")
        swift, glanced, held = kitchen.ask, asyncio.Event(), asyncio.Event()

        async def slow_after_a_glance(queue):
            if glanced.is_set():
                await held.wait()
            stats = await swift(queue)
            if stats.ready:
                glanced.set()
            return stats

        kitchen.ask = slow_after_a_glance
        await kitchen.send("cats")
        await stream.next_is(True)
        asking = asyncio.gather(keda.is_active(model="cats"), keda.metric(model="cats"))
        await asyncio.wait({asking}, timeout=0.2)
        held.set()
        assert await asking == [True, ("dumbwaiter-cats", 1.0)]


async def test_each_model_is_followed_for_itself(kitchen, keda):
    async with keda.following(model="cats") as cats, keda.following(model="dogs") as dogs:
        await cats.next_is(False)
        await dogs.next_is(False)
        await kitchen.send("dogs")
        await dogs.next_is(True)
    assert cats.states == [False]


async def test_a_hundred_streams_cost_the_broker_no_more_than_one(kitchen, keda):
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(keda.following(model="cats")) for _ in range(100)]
        await eventually(lambda: all(stream.states == [False] for stream in streams))
        began, asked = time.monotonic(), kitchen.asked
        await eventually(lambda: kitchen.asked >= asked + 10)
        seconds = time.monotonic() - began
        assert kitchen.asked - asked <= seconds / kitchen.settings.scaler.glance_every + 2
        await kitchen.send("cats")
        await eventually(lambda: all(stream.states == [False, True] for stream in streams))
    await eventually(lambda: not loops(), what="the end of the loop, once nobody follows")


def loops():
    """The loops of all Activities that run."""
    return [task for task in asyncio.all_tasks() if "Activity._follow" in repr(task.get_coro())]


async def test_a_hundred_polls_at_once_share_one_look(kitchen, keda):
    async def poll():
        return await asyncio.gather(keda.metric(model="cats"), keda.is_active(model="cats"))

    answers = await asyncio.gather(*(poll() for _ in range(100)))
    assert answers == [[("dumbwaiter-cats", 0.0), False]] * 100
    assert kitchen.asked <= 1 + len(answers) // 10  # a second may pass on a machine that is busy


async def test_nothing_is_asked_of_the_broker_while_nobody_asks(kitchen, keda):
    async with keda.following(model="cats") as stream:
        await stream.next_is(False)
        assert len(loops()) == 1
    await eventually(lambda: not loops())


async def test_another_follower_of_a_pool_that_was_left_is_told_the_state_anew(kitchen, keda):
    for state in (False, True):
        async with keda.following(model="cats") as stream:
            await stream.next_is(state)
        await kitchen.send("cats")


FOLLOW = """
import sys, grpc
from keda_client import MESSAGES, SERVICE
channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}")
request = MESSAGES["ScaledObjectRef"](scalerMetadata={"model": "cats"}).SerializeToString()
for response in channel.unary_stream(f"/{SERVICE}/StreamIsActive")(request):
    print(response, flush=True)
"""


async def test_a_client_that_is_killed_leaves_nothing_behind(kitchen):
    command = [sys.executable, "-c", FOLLOW, str(kitchen.doors.grpc_port)]
    streams = {"cwd": Path(__file__).parent, "stdout": asyncio.subprocess.PIPE}
    client = await asyncio.create_subprocess_exec(*command, **streams)
    try:
        assert await client.stdout.readline() == b"b''\n"  # false, as proto3 spells it
        assert len(loops()) == 1
    finally:
        client.kill()
        await client.wait()
    await eventually(lambda: not loops(), what="the end of the loop of a client that is dead")


async def test_a_client_that_falls_silent_is_noticed(tmp_path, monkeypatch):
    """It was cut off: no word of it comes any more, not even that it is gone."""
    quick = [(name, 200 if "keepalive" in name or "timeout" in name else value) for name, value in OPTIONS]
    assert dict(quick) != dict(OPTIONS)
    monkeypatch.setattr(grpc_server, "_OPTIONS", quick)
    async with cooking(f"sqlite:{tmp_path}/queue.db", tmp_path) as kitchen:
        command = [sys.executable, "-c", FOLLOW, str(kitchen.doors.grpc_port)]
        streams = {"cwd": Path(__file__).parent, "stdout": asyncio.subprocess.PIPE}
        client = await asyncio.create_subprocess_exec(*command, **streams)
        try:
            assert await client.stdout.readline() == b"b''\n"
            assert len(loops()) == 1
            client.send_signal(signal.SIGSTOP)
            await eventually(lambda: not loops(), what="the end of the loop of a client that says nothing")
        finally:
            client.kill()
            await client.wait()


async def test_streams_end_without_an_error_when_the_scaler_stops(kitchen, keda):
    async with keda.following(model="cats") as stream:
        await stream.next_is(False)
        began = time.monotonic()
        kitchen.stop.set()
        await stream.end()
        assert await kitchen.running == 0
    assert stream.ended is grpc.StatusCode.OK
    assert time.monotonic() - began < 5.0


async def test_after_one_slow_glance_a_push_comes_as_soon_as_before(tmp_path):
    async with cooking(f"sqlite:{tmp_path}/queue.db", tmp_path) as kitchen:
        swift, slow_ones = kitchen.ask, iter([4.0])

        async def ask(queue):
            await asyncio.sleep(next(slow_ones, 0.0))
            return await swift(queue)

        async with Keda(kitchen.doors.grpc_port) as keda, keda.following(model="cats") as stream:
            await stream.next_is(False)
            kitchen.ask = ask
            asked = kitchen.asked
            await eventually(lambda: kitchen.asked >= asked + 3)
            await kitchen.send("cats")
            async with asyncio.timeout(3.0):  # three times as long as the slow one would be 12 s
                await stream.next_is(True)


async def test_slow_glances_are_taken_more_seldom(tmp_path):
    """Of the broker's time a stream takes no more than its share."""
    async with cooking(f"sqlite:{tmp_path}/queue.db", tmp_path) as kitchen:
        swift = kitchen.ask

        async def slow(queue):
            await asyncio.sleep(0.1)
            return await swift(queue)

        kitchen.ask = slow
        async with Keda(kitchen.doors.grpc_port) as keda, keda.following(model="cats") as stream:
            await stream.next_is(False)
            asked, began = kitchen.asked, time.monotonic()
            await eventually(lambda: kitchen.asked >= asked + 6)
            assert time.monotonic() - began > 6 * 0.1 * 2
