"""Work over large tensors beside the event loop: everyone else is served meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import numpy as np
import pytest

from dumbwaiter.gateway.oip.inputs import split
from dumbwaiter.gateway.oip.offloading import HUGE, LARGE, Offload
from dumbwaiter.gateway.oip.outputs import join
from dumbwaiter.gateway.oip.requests import read_request
from dumbwaiter.gateway.oip.responses import write_response
from dumbwaiter.gateway.oip.tensors import Tensor
from dumbwaiter.models.codecs_array import encode_npy

pytestmark = pytest.mark.anyio

COUNT = 2_000_000
JSON_MODEL = {"input": {"name": "x", "kind": "json", "schema": {"type": "array"}}}


def request(datatype, shape, data):
    head = f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":'
    return head.encode() + data + b"}]}"


def numbers(*shape, datatype="FP32", dtype="<f4"):
    data = np.random.default_rng(0).random(shape).astype(dtype).tobytes()
    return Tensor(name="x", datatype=datatype, shape=shape, data=data)


def sent(tensor, *, binary=False):
    return sum(map(len, write_response(tensor, model="m", id_=None, binary=binary).pieces()))


def text_output():
    return Tensor(name="output", datatype="BYTES", shape=(1,), data=["é\n".encode() * COUNT])


def bf16():
    return Tensor(name="input", datatype="BF16", shape=(9, COUNT), data=bytes(2 * 9 * COUNT))


def works():
    """Each a call that goes over many megabytes."""
    listed = b"[" + b"0.25," * COUNT + b"1]"
    pairs = b"[" + b"[1, 2]," * COUNT + b"[3, 4]]"
    escaped = b'["' + b"\\n\\u00e9" * COUNT + b'"]'
    texts = json.dumps(["ab"] * (COUNT // 4)).encode()
    array = encode_npy(np.zeros((COUNT, 4)).T)
    return {
        "numbers in JSON": lambda: read_request(request("FP32", [COUNT + 1], listed), None),
        "nested numbers": lambda: read_request(request("INT64", [COUNT + 1, 2], pairs), None),
        "a long text": lambda: read_request(request("BYTES", [1], escaped), None),
        "a JSON body for the model": lambda: split(JSON_MODEL, [numbers(COUNT, 2)]),
        "BF16 for the model": lambda: split({}, [bf16()]),
        "a JSON answer of numbers": lambda: join((), [("application/json", pairs)], name="output"),
        "a JSON answer of texts": lambda: join((), [("application/json", texts)], name="output"),
        "an array answer": lambda: join((), [("application/x-npy", array)], name="output"),
        "an output in JSON": lambda: sent(numbers(COUNT)),
        "a text output in JSON": lambda: sent(text_output()),
        "an output in binary": lambda: sent(numbers(COUNT, 4), binary=True),
    }


@pytest.mark.parametrize("name", works())
async def test_the_event_loop_has_its_turns_all_the_while(name):
    """Its longest wait is a small part of what the work takes, or short; a single long step would be most of it."""
    work, over, longest = works()[name], asyncio.Event(), 0.0

    async def turn():
        nonlocal longest
        while not over.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before)

    turning = asyncio.create_task(turn())
    begun = time.perf_counter()
    await Offload().run(HUGE, work)
    took = time.perf_counter() - begun
    over.set()
    await turning
    assert longest < max(took / 3, 0.25)


async def test_small_work_is_done_at_once_and_large_work_in_a_thread():
    offload = Offload()
    assert await offload.run(LARGE - 1, threading.get_ident) == threading.get_ident()
    assert await offload.run(LARGE, threading.get_ident) != threading.get_ident()


async def test_long_work_waits_for_other_long_work_and_nobody_else_does():
    offload, order = Offload(), []
    going, may_go = threading.Event(), threading.Event()

    def first():
        going.set()
        assert may_go.wait(30)
        order.append("first")

    long = [asyncio.create_task(offload.run(HUGE, first))]
    assert await asyncio.to_thread(going.wait, 30)
    long.append(asyncio.create_task(offload.run(HUGE, lambda: order.append("second"))))
    await offload.run(LARGE, lambda: order.append("shorter"))
    order += [piece async for piece in offload.pieces(iter([b"piece"]))]
    may_go.set()
    await asyncio.gather(*long)
    assert order == ["shorter", b"piece", "first", "second"]


async def test_pieces_are_made_when_they_are_asked_for():
    made = []

    def pieces():
        for place in range(3):
            made.append(place)
            yield bytes([place + 1])

    stream = Offload().pieces(pieces())
    assert made == []
    assert await anext(stream) == b"\x01"
    assert made == [0]
    assert [piece async for piece in stream] == [b"\x02", b"\x03"]
