"""Waiting: a message comes with its wake-up, and nothing stays with a receiver that has left."""

from __future__ import annotations

import asyncio
import time

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.redis.taking import ServerClock
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def until_blocked(producer):
    """The connection of the one who waits blocks at the server."""

    async def is_blocked():
        return (await producer.info("clients"))["blocked_clients"] > 0

    await eventually(is_blocked, within=10.0)


async def script_calls(producer):
    return (await producer.info("commandstats"))["cmdstat_evalsha"]["calls"]


async def test_a_message_that_is_waited_for_costs_one_call_to_send_and_one_to_receive(server, broker, producer, queue):
    await broker.create_queue(queue)
    assert await broker.receive(queue, max_messages=1, max_wait=0.0) == []
    async with open_broker(server.url) as sender:
        for _ in range(3):
            receiving = asyncio.create_task(broker.receive(queue, max_messages=8, max_wait=20.0))
            await until_blocked(producer)
            before = await script_calls(producer)
            await sender.send(queue, [Message()])
            (delivery,) = await asyncio.wait_for(receiving, 10.0)
            assert await script_calls(producer) == before + 2
            await broker.complete([delivery])


async def test_a_lock_lasts_as_long_as_it_is_said_to_however_long_was_waited(server, producer, queue):
    async with open_broker(server.url, lock_duration=5.0) as broker, open_broker(server.url) as sender:
        await broker.create_queue(queue)
        receiving = asyncio.create_task(broker.receive(queue, max_messages=1, max_wait=20.0))
        await until_blocked(producer)
        sent_at = time.monotonic()
        await sender.send(queue, [Message()])
        (delivery,) = await asyncio.wait_for(receiving, 10.0)
        seconds, micros = await producer.time()
        left_here = delivery.locked_until - time.monotonic()
        ((_, ends),) = await producer.zrange(f"dumbwaiter:{{{queue}}}:locks", 0, -1, withscores=True)
        assert left_here <= ends / 1000 - (seconds + micros / 1e6) + 0.002
        assert delivery.locked_until > sent_at + 4.5


async def test_a_short_receive_finds_a_lock_that_ran_out_after_the_last_look(server, broker, queue):
    await broker.create_queue(queue)
    async with open_broker(server.url, lock_duration=0.1) as forgetful, open_broker(server.url) as sender:
        assert await broker.receive(queue, max_messages=1, max_wait=0.0) == []
        await sender.send(queue, [Message()])
        assert len(await forgetful.receive(queue, max_messages=1, max_wait=5.0)) == 1
        await asyncio.sleep(0.15)
        # All of them come before the next look that is due. One may find the message taken by a wake-up of its own.
        short = [await broker.receive(queue, max_messages=1, max_wait=0.05) for _ in range(3)]
        assert [delivery.delivery_count for deliveries in short for delivery in deliveries] == [2]


async def test_several_that_wait_share_what_comes_and_none_gets_more_than_asked(broker, server, producer, queue):
    await broker.create_queue(queue)
    first = asyncio.create_task(broker.receive(queue, max_messages=5, max_wait=20.0))
    await until_blocked(producer)
    others = [asyncio.create_task(broker.receive(queue, max_messages=2, max_wait=20.0)) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()  # the server would still receive five
    async with open_broker(server.url) as sender:
        await sender.send(queue, [Message() for _ in range(5)])
    got = await asyncio.wait_for(asyncio.gather(*others), 10.0)
    assert [len(deliveries) for deliveries in got] == [2, 2]
    (last,) = await broker.receive(queue, max_messages=5, max_wait=5.0)
    assert last.delivery_count == 1


@pytest.mark.parametrize("leaves_by", ["cancelling", "closing", "time"])
async def test_what_comes_while_a_receiver_leaves_is_somebody_elses_at_once(server, broker, producer, queue, leaves_by):
    await broker.create_queue(queue)
    for number in range(20):
        leaver = open_broker(server.url, lock_duration=60.0)
        await leaver.open()
        patience = 0.03 if leaves_by == "time" else 20.0
        receiving = asyncio.create_task(leaver.receive(queue, max_messages=9, max_wait=patience))
        if leaves_by == "time":
            await asyncio.sleep(0.02 + number / 1000)  # before its time is up, and after
        else:
            await until_blocked(producer)
        sending = asyncio.create_task(broker.send(queue, [Message()]))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        if leaves_by == "cancelling":
            receiving.cancel()
        elif leaves_by == "closing":
            await leaver.close()
        (outcome,) = await asyncio.gather(receiving, return_exceptions=True)
        await sending
        if isinstance(outcome, list) and outcome:
            await leaver.abandon(outcome, counted=False)
        (delivery,) = await asyncio.wait_for(broker.receive(queue, max_messages=2, max_wait=5.0), 10.0)
        assert delivery.delivery_count == 1
        await broker.complete([delivery])
        await leaver.close()


def test_the_servers_clock_is_never_taken_to_be_later_than_it_is():
    clock = ServerClock()
    assert clock.here(1000.0, now=5.0) == float("-inf")
    clock.note(10.0, 1000.2)  # it was asked at 10.0, and read its clock 0.2 s later
    clock.note(20.0, 1010.05)
    assert clock.here(1020.0, now=30.0) == pytest.approx(29.95)
    clock.note(40.0, 1031.0)  # a slow one tells less, and is not better
    assert clock.here(1040.0, now=50.0) == pytest.approx(49.95)
    clock.note(90.0, 1081.0)  # but the better one is old by now
    assert clock.here(1090.0, now=100.0) == pytest.approx(99.0)
    assert clock.here(1300.0, now=300.0) == float("-inf")
