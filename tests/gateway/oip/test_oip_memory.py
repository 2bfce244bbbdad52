"""What calls with large tensors take of the gateway's memory, and what is told to those for whom there is none."""

from __future__ import annotations

import asyncio
import json
import time

import msgspec
import numpy as np
import pytest
from gateway_apart import gateway_apart
from gateway_running import gateway

from dumbwaiter.blobs.cards import ModelCard, save_card
from dumbwaiter.models.codecs_array import encode_npy
from dumbwaiter.testing import eventually
from echo_worker import output, serving

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
ARRAY = {"input": {"name": "x", "kind": "array", "schema": {}}, "output": {"kind": "array"}}
LIST = {"input": {"name": "x", "kind": "json", "schema": {"type": "array"}}, "output": {"kind": "json"}}


@pytest.fixture
async def card(store):
    await save_card(store, ModelCard(name="echo", signature=ARRAY))


def call(array, datatype, *, binary_output=False):
    """Body and headers of a request with *array* as binary data."""
    one = {"name": "x", "datatype": datatype, "shape": array.shape, "parameters": {"binary_data_size": array.nbytes}}
    head = json.dumps({"inputs": [one], "parameters": {"binary_data_output": binary_output}}).encode()
    return {"content": head + array.tobytes(), "headers": {"inference-header-content-length": str(len(head))}}


async def infer(running, request):
    return await running.http.post("/v2/models/echo/infer", **request)


@pytest.mark.parametrize("binary", [False, True])
async def test_a_long_output_comes_in_pieces_and_whole(broker, store, card, binary):
    array = np.linspace(0, 1, 300_000, dtype="<f4").reshape(3, -1)
    async with serving(broker, store=store), gateway(broker, store) as running:
        response = await infer(running, call(array, "FP32", binary_output=binary))
        assert response.status_code == 200
        assert int(response.headers["content-length"]) == len(response.content)
        assert "queued" in response.headers["server-timing"]
        length = int(response.headers.get("inference-header-content-length", len(response.content)))
        (said,) = json.loads(response.content[:length])["outputs"]
        data = response.content[length:] if binary else np.array(said["data"], "<f4").tobytes()
        assert (said["shape"], data) == ([3, 100_000], array.tobytes())
        again = await infer(running, call(array[:, :5], "FP32"))
        assert "close" not in again.headers.get("connection", "")


async def test_an_output_that_json_cannot_carry_is_refused_before_the_response_begins(broker, store, card):
    array = np.zeros(300_000, "<f4")
    array[-1] = np.inf
    async with serving(broker, store=store), gateway(broker, store) as running:
        response = await infer(running, call(array, "FP32"))
        assert (response.status_code, "binary_data_output" in response.json()["error"]) == (400, True)
        assert (await infer(running, call(array, "FP32", binary_output=True))).status_code == 200


async def blobs_left(store):
    return await store.list("claims/")


async def test_an_answer_that_never_fits_is_413_and_its_blob_is_dropped_unread(broker, store, card):
    large = output(encode_npy(np.zeros(MIB, "<f4")), "application/x-npy")
    async with serving(broker, respond=large, store=store), gateway(broker, store, memory_limit=2 * MIB) as running:
        for _ in range(3):
            response = await infer(running, call(np.zeros(4, "<f4"), "FP32"))
            assert response.status_code == 413
            assert response.json()["code"] == "body-too-large"
            assert "send less in one call" in response.json()["error"]

        async def none_is_left():
            return await blobs_left(store) == []

        await eventually(none_is_left)


async def test_json_that_becomes_too_large_is_413_and_the_advice_is_binary(broker, store, card):
    text = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[200000],"data":[' + b"1," * 199_999 + b"1]}]}"
    async with serving(broker, store=store) as worker, gateway(broker, store, memory_limit=2 * MIB) as running:
        response = await infer(running, {"content": text})
        assert (response.status_code, response.json()["code"]) == (413, "body-too-large")
        assert "binary data" in response.json()["error"]
    assert worker.requests == []


@pytest.mark.parametrize("signature", [ARRAY, LIST], ids=["array", "list"])
async def test_all_that_was_taken_is_given_back_however_a_call_ends(broker, store, signature):
    """Each call takes half of what there is: a few that kept something would be too many."""
    await save_card(store, ModelCard(name="echo", signature=signature))
    array = np.zeros(20_000, "<f4")
    nan = array + np.nan
    async with serving(broker, store=store), gateway(broker, store, memory_limit=2 * MIB) as running:
        for _ in range(6):
            assert (await infer(running, call(array, "FP32"))).status_code == 200
            assert (await infer(running, call(nan, "FP32"))).status_code == 400
            assert (await infer(running, {"content": b"{"})).status_code == 400


async def test_a_caller_who_reads_no_further_holds_the_memory_and_others_are_told(broker, store, card):
    """What was not sent yet is counted; when the caller has gone it is there for others."""
    array = np.zeros(4_000_000, "<f4")  # more than the sockets of both sides hold
    async with serving(broker, store=store), gateway(broker, store, memory_limit=60 * MIB) as running:
        request = call(array, "FP32", binary_output=True)
        asking = [
            running.http.send(running.http.build_request("POST", "/v2/models/echo/infer", **request), stream=True)
            for _ in range(2)
        ]
        slow = [await one for one in asking]
        assert [response.status_code for response in slow] == [200, 200]

        async def status():
            return (await infer(running, request)).status_code

        assert await status() == 503
        for response in slow:
            await response.aclose()

        async def is_served():
            return await status() == 200

        await eventually(is_served, within=15.0)


# --- a gateway in a process of its own ---


@pytest.mark.trial
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("signature", "limit"), [(ARRAY, 64 * MIB), (LIST, 128 * MIB)], ids=["array", "list"])
async def test_many_large_tensors_as_json_stay_within_the_memory_limit(tmp_path, signature, limit):
    """Each would take a dozen times its size as Python's numbers; those that do not fit are told so at once."""
    array = np.random.default_rng(0).integers(0, 2**16, 4 * MIB, dtype="<u2")
    async with (
        gateway_apart(tmp_path, DUMBWAITER_GATEWAY__MEMORY_LIMIT=str(limit)) as apart,
        serving(apart.broker, store=apart.store),
    ):
        await save_card(apart.store, ModelCard(name="echo", signature=signature))
        assert (await infer(apart, call(array[:10], "UINT16"))).status_code == 200

        async def ask():
            response = await infer(apart, call(array, "UINT16"))
            if response.status_code == 200:
                data = response.content[response.content.index(b'"data":') + 7 : -len(b"}]}\n")]
                assert msgspec.json.decode(data) == array.tolist()
            return response.status_code

        async with apart.watched():
            statuses = await asyncio.gather(*(ask() for _ in range(8)))
        assert set(statuses) <= {200, 503}
        assert 200 in statuses
        assert apart.most < 2 * limit


@pytest.mark.trial
@pytest.mark.timeout(120)
async def test_others_are_answered_while_a_large_tensor_is_written_as_json(tmp_path):
    """Their longest wait is a small part of what the large call takes."""
    array = np.random.default_rng(0).random(6 * MIB, dtype="<f4")
    async with gateway_apart(tmp_path) as apart, serving(apart.broker, store=apart.store):
        await save_card(apart.store, ModelCard(name="echo", signature=ARRAY))
        order, longest = [], 0.0

        async def ask():
            request = apart.http.build_request("POST", "/v2/models/echo/infer", **call(array, "FP32"))
            response = await apart.http.send(request, stream=True)
            order.append("head")
            async for _ in response.aiter_raw():
                pass
            order.append("end")
            await response.aclose()
            return response.status_code

        begun = time.monotonic()
        asking = asyncio.create_task(ask())
        while not asking.done():
            before = time.monotonic()
            assert (await apart.http.get("/v2/health/live")).status_code == 200
            longest = max(longest, time.monotonic() - before)
            order.append("live")
            await asyncio.sleep(0.005)
        assert await asking == 200
        took = time.monotonic() - begun
    assert order.index("live") < order.index("head")
    assert "live" in order[order.index("head") : order.index("end")]
    assert longest < max(took / 3, 0.3)
