"""The pipe carries frames whole, whatever their size, in both directions."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from dumbwaiter.devices import admission
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.policies.footprints import Footprint, Measured, Observation
from dumbwaiter.worker.pipe import (
    ConsumerEnd,
    Done,
    FromRunner,
    Item,
    Load,
    Move,
    Moved,
    Predict,
    Ready,
    Result,
    RunnerEnd,
    ToRunner,
    split,
)

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


@pytest.mark.parametrize(
    "frame",
    [
        Load(ModelSpec(name="echo", target="network:Echo"), "cuda:GPU-1", probes=True),
        Predict([], most=3),
        Move("park"),
    ],
)
async def test_orders_for_a_shared_device_arrive_unchanged(frame: ToRunner) -> None:
    ours, theirs = socket.socketpair()
    consumer = await ConsumerEnd.over(ours)
    await consumer.send(frame)
    assert RunnerEnd(theirs).receive()[0] == frame
    consumer.close()
    theirs.close()


@pytest.mark.parametrize(
    "frame",
    [
        Ready(4, {}, 1.5, Footprint(weights=3, parked=0, batches={"2^3": {1: Measured(7, 0.1, 5.0)}})),
        Ready(4, {}, 1.5),
        Done([], 4, 0.1, [Observation("2^3", 1, 7, 0.1, is_exact=True)], out_of_memory=True),
        Moved(reserved=7, seconds=0.1, is_done=False),
    ],
)
async def test_what_became_of_a_shared_devices_memory_arrives_unchanged(frame: FromRunner) -> None:
    ours, theirs = socket.socketpair()
    consumer = await ConsumerEnd.over(ours)
    RunnerEnd(theirs).send(frame)
    assert (await consumer.receive())[0] == frame
    consumer.close()
    theirs.close()


def test_a_moved_frame_is_what_the_admission_is_told() -> None:
    assert isinstance(Moved(reserved=7, seconds=0.1), admission.Moved)


async def test_the_consumer_sees_a_frame_cut_short_as_the_end() -> None:
    ours, theirs = socket.socketpair()
    consumer = await ConsumerEnd.over(ours)
    theirs.sendall(b"\x10\x00\x00\x00\x00")
    theirs.close()
    with pytest.raises(EOFError):
        await consumer.receive()
    consumer.close()
