"""The pipe carries frames whole, whatever their size, in both directions."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.worker.pipe import ConsumerEnd, Done, Item, Load, Predict, Result, RunnerEnd, split

pytestmark = pytest.mark.anyio


def item(slot: int, body: bytes) -> Item:
    return Item(slot, "text/plain", len(body), None, 1.5, alone=False)


async def test_a_batch_larger_than_the_socket_buffer_arrives_unchanged_both_ways() -> None:
    ours, theirs = socket.socketpair()
    consumer = await ConsumerEnd.over(ours)
    runner = RunnerEnd(theirs)
    bodies = [bytes([slot]) * 700_001 for slot in range(20)]

    def serve() -> None:
        meta, data = runner.receive()
        assert isinstance(meta, Predict)
        pieces = list(split([one.nbytes for one in meta.items], data))
        results = [Result(one.slot, "text/plain", one.nbytes, 0.0, 0.0, 20) for one in meta.items]
        runner.send(Done(results, 20, 0.001), pieces)

    thread = threading.Thread(target=serve)
    thread.start()
    await consumer.send(Predict([item(slot, body) for slot, body in enumerate(bodies)]), bodies)
    meta, data = await consumer.receive()
    await asyncio.to_thread(thread.join)
    assert isinstance(meta, Done)
    assert [bytes(piece) for piece in split([one.nbytes for one in meta.results], data)] == bodies
    consumer.close()
    theirs.close()


async def test_more_bodies_than_one_system_call_takes_arrive_unchanged() -> None:
    ours, theirs = socket.socketpair()
    consumer = await ConsumerEnd.over(ours)
    runner = RunnerEnd(theirs)
    bodies = [b"%d" % number for number in range(3000)]
    results = [Result(slot % 1024, "", len(body), 0.0, 0.0, 1) for slot, body in enumerate(bodies)]
    sending = asyncio.to_thread(runner.send, Done(results, 1, 0.0), bodies)
    (meta, data), _ = await asyncio.gather(consumer.receive(), sending)
    assert isinstance(meta, Done)
    assert [bytes(piece) for piece in split([one.nbytes for one in meta.results], data)] == bodies
    consumer.close()
    theirs.close()


async def test_the_runner_sees_the_end_of_the_pipe() -> None:
    ours, theirs = socket.socketpair()
    consumer = await ConsumerEnd.over(ours)
    runner = RunnerEnd(theirs)
    await consumer.send(Load(ModelSpec(name="echo", target="network:Echo")))
    meta, _ = await asyncio.to_thread(runner.receive)
    assert isinstance(meta, Load)
    assert meta.spec.target == "network:Echo"
    consumer.close()
    with pytest.raises(EOFError):
        await asyncio.to_thread(runner.receive)
    theirs.close()


async def test_the_consumer_sees_a_frame_cut_short_as_the_end() -> None:
    ours, theirs = socket.socketpair()
    consumer = await ConsumerEnd.over(ours)
    theirs.sendall(b"\x10\x00\x00\x00\x00")
    theirs.close()
    with pytest.raises(EOFError):
        await consumer.receive()
    consumer.close()
