"""The protocol over HTTP: what reaches the queue, what comes back, and what is refused before."""

from __future__ import annotations

import asyncio
import gzip
import json
import time

import msgspec
import numpy as np
import pytest
from gateway_running import gateway, raw_connection

from dumbwaiter.blobs.cards import ModelCard, save_card
from dumbwaiter.blobs.keyring import mint, save_key
from dumbwaiter.blobs.presence import WorkerStatus, announce
from dumbwaiter.testing import eventually
from echo_worker import failure, output, serving

pytestmark = pytest.mark.anyio

TEXT = {"input": {"name": "text", "kind": "text", "schema": {"type": "string"}}, "output": {"kind": "text"}}
ARRAY = {"input": {"name": "x", "kind": "array", "schema": {}}, "output": {"kind": "array"}}
ROWS = {**ARRAY, "batched": True}


@pytest.fixture
async def shout(store):
    await save_card(store, ModelCard(name="echo", signature=TEXT))


def texts(*values, **members):
    return {"inputs": [{"name": "text", "shape": [len(values)], "datatype": "BYTES", "data": list(values)}], **members}


async def infer(running, body=None, **request):
    if body is not None:
        request["json"] = body
    return await running.http.post("/v2/models/echo/infer", **request)


def error(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert document["error"]
    return document["error"]


async def test_each_element_is_a_message_with_what_the_caller_wished(broker, store, shout):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"dumbwaiter-tenant": "acme", "traceparent": trace}
    body = texts("a", "b", parameters={"priority": 2, "timeout": 3_000_000})
    async with serving(broker) as worker, gateway(broker, store) as running:
        response = await infer(running, body, headers=headers)
    assert response.json()["outputs"] == [{"name": "output", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}]
    assert [message.body for message in worker.requests] == [b"a", b"b"]
    assert len({message.id for message in worker.requests}) == 2
    for message in worker.requests:
        assert (message.priority, message.tenant, message.subject) == (8, "acme", "echo")
        assert (message.content_type, message.trace_parent) == ("text/plain; charset=utf-8", trace)
        assert message.deadline == pytest.approx(message.time + 3.0)


async def test_a_deadline_in_the_head_is_the_messages_deadline(broker, store, shout):
    async with serving(broker) as worker, gateway(broker, store) as running:
        for deadline, status in (("4000000000", 200), ("1000000000", 504)):
            headers = {"dumbwaiter-deadline": deadline}
            response = await infer(running, texts("a"), headers=headers)
            assert response.status_code == status
    assert len(worker.requests) == 1
    assert worker.requests[0].deadline < 4000000000  # nobody waits that long


async def test_one_failure_fails_the_call_with_its_reason_and_its_place(broker, store, shout):
    def respond(request):
        refuse = failure("bad-input", "expected another text", "Traceback: secret")
        return refuse(request) if request.body == b"bad" else output(request.body, "text/plain")(request)

    async with serving(broker, respond=respond), gateway(broker, store) as running:
        response = await infer(running, texts("a", "bad", "c"))
        assert error(response, 400) == "element 1: expected another text"
        assert "secret" not in response.text
        assert error(await infer(running, texts("bad")), 400) == "expected another text"


async def test_no_answer_in_time_is_504(broker, store, shout):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        body = texts("a", "b", parameters={"timeout": 100_000})
        assert "no answer" in error(await infer(running, body), 504)


async def test_a_model_that_is_scaled_to_zero_is_known_by_its_card(broker, store, shout):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        assert (await running.http.get("/v2/models/echo")).json()["inputs"][0]["name"] == "text"
        assert "not ready" in error(await running.http.get("/v2/models/echo/ready"), 503)
        waiting = asyncio.create_task(infer(running, texts("a")))

        async def has_arrived():
            return (await broker.stats("echo")).ready == 1

        await eventually(has_arrived)
        async with serving(broker):
            assert (await waiting).status_code == 200


async def test_what_a_model_takes_is_learnt_from_its_workers_where_it_has_no_card(broker, store):
    async with serving(broker), gateway(broker, store) as running:
        response = await infer(running, texts("a"))
        assert "not known yet" in error(response, 503)
        assert response.headers["retry-after"]
        await announce(store, WorkerStatus(worker="w", model="echo", state="ready", signature=TEXT))
        assert (await infer(running, texts("a"))).status_code == 200
        assert (await running.http.get("/v2/models/echo/ready")).json() == {"name": "echo", "ready": True}


async def test_the_index_says_why_a_model_is_not_ready(broker, store, shout):
    for name in ("echo", "broken", "loading"):
        await broker.create_queue(name)
    await announce(store, WorkerStatus(worker="a", model="echo", state="ready"))
    await announce(store, WorkerStatus(worker="b", model="broken", state="failing", reason="no weights\nTraceback"))
    await announce(store, WorkerStatus(worker="c", model="loading", state="loading"))
    async with gateway(broker, store) as running:
        index = (await running.http.post("/v2/repository/index")).json()
        ready = (await running.http.post("/v2/repository/index", json={"ready": True})).json()
        error(await running.http.post("/v2/repository/index", content=b"[]"), 400)
        error(await running.http.post("/v2/repository/index", content=b"x" * 100_000), 413)
    states = {one["name"]: (one["state"], one["reason"]) for one in index}
    assert states == {
        "echo": ("READY", ""),
        "broken": ("UNAVAILABLE", "no weights"),
        "loading": ("LOADING", ""),
    }
    assert [one["name"] for one in ready] == ["echo"]


async def test_a_thousand_elements_are_asked_and_one_more_than_allowed_is_refused(broker, store, shout):
    async with serving(broker) as worker, gateway(broker, store) as running:
        response = await infer(running, texts(*map(str, range(1024))))
        assert response.json()["outputs"][0]["data"] == [str(n) for n in range(1024)]
        assert "at most 1024" in error(await infer(running, texts(*map(str, range(1025)))), 400)
    assert len(worker.requests) == 1024


async def test_a_caller_who_hangs_up_is_let_go_and_others_are_served(broker, store, shout):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        body = json.dumps(texts("a", "b")).encode()
        async with raw_connection(running.port) as (_, writer):
            head = f"POST /v2/models/echo/infer HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)

            async def has_arrived():
                return (await broker.stats("echo")).ready == 2

            await eventually(has_arrived)
        async with serving(broker) as worker:
            await eventually(lambda: len(worker.requests) == 2)
        assert (await running.http.get("/v2/health/live")).status_code == 200


async def test_arrays_travel_as_npy_and_large_ones_by_claim_check(broker, store):
    await save_card(store, ModelCard(name="echo", signature=ROWS))
    rows = np.arange(400_000, dtype="<f4").reshape(4, 100_000)
    header = {
        "inputs": [
            {"name": "x", "shape": [4, 100_000], "datatype": "FP32", "parameters": {"binary_data_size": rows.nbytes}}
        ],
        "parameters": {"binary_data_output": True},
    }
    encoded = json.dumps(header).encode()
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        response = await infer(
            running, content=encoded + rows.tobytes(), headers={"inference-header-content-length": str(len(encoded))}
        )
        length = int(response.headers["inference-header-content-length"])
        (told,) = json.loads(response.content[:length])["outputs"]
        assert told == {**header["inputs"][0], "name": "output"}
        assert response.content[length:] == rows.tobytes()
        assert all(message.data_ref for message in worker.requests)

        async def nothing_is_left():
            return not await store.list("claims/")

        await eventually(nothing_is_left)


BAD_BODIES = {
    "empty": b"",
    "no JSON": b"{",
    "deep": b'{"inputs":' + b"[" * 10**6,
    "deep data": b'{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":'
    + b"[" * 10**6
    + b"]" * 10**6
    + b"}]}",
    "NaN": b'{"inputs":[{"name":"text","shape":[1],"datatype":"FP32","data":[NaN]}]}',
    "no inputs": b'{"inputs":[]}',
    "negative": b'{"inputs":[{"name":"text","shape":[-1],"datatype":"BYTES","data":[]}]}',
    "huge": b'{"inputs":[{"name":"text","shape":[9223372036854775807,9],"datatype":"BYTES","data":[]}]}',
    "huge numbers": b'{"inputs":[{"name":"text","shape":[4294967296,4294967296],"datatype":"UINT8","data":[]}]}',
    "zero": b'{"inputs":[{"name":"text","shape":[0],"datatype":"BYTES","data":[]}]}',
    "unknown type": b'{"inputs":[{"name":"text","shape":[1],"datatype":"COMPLEX","data":[1]}]}',
    "not UTF-8": b'{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":["\xff"]}]}',
    "no binary": b'{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}',
    "many lists": b'{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":[' + b"[]," * 10**6 + b"[]]}]}",
    "many parameters": b'{"inputs":[],"parameters":{' + b'"a":1,' * 10**5 + b'"a":1}}',
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_a_bad_body_is_400_with_a_reason_and_the_connection_goes_on(broker, store, shout, name):
    async with serving(broker) as worker, gateway(broker, store) as running:
        response = await infer(running, content=BAD_BODIES[name])
        error(response, 400)
        assert "close" not in response.headers.get("connection", "")
        assert (await infer(running, texts("a"))).status_code == 200
    assert len(worker.requests) == 1


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"", {}, 400, "empty-body"),
        (gzip.compress(b""), {"content-encoding": "gzip"}, 400, "empty-body"),
        (b"{", {}, 400, "invalid-json"),
        (BAD_BODIES["no inputs"], {}, 400, "bad-input"),
        (json.dumps(texts(*["a"] * 1025)).encode(), {}, 400, "call-too-large"),
        (b"x", {"content-encoding": "br"}, 415, "unsupported-encoding"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_the_code_says_which_mistake_it_was(broker, store, shout, content, headers, status, code):
    async with serving(broker), gateway(broker, store) as running:
        response = await infer(running, content=content, headers=headers)
        error(response, status)
        assert response.json()["code"] == code


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "9" * 30, "1000", "0"])
async def test_a_header_length_that_lies_is_400(broker, store, shout, length):
    async with serving(broker), gateway(broker, store) as running:
        body = json.dumps(texts("a")).encode()
        error(await infer(running, content=body, headers={"inference-header-content-length": length}), 400)


async def test_bodies_are_bounded_packed_and_unpacked(broker, store, shout):
    async with serving(broker), gateway(broker, store, body_limit=10_000) as running:
        packed = {"content-encoding": "gzip"}
        assert (await infer(running, content=gzip.compress(json.dumps(texts("a")).encode()), headers=packed)).json()
        error(await infer(running, content=b" " * 10_001), 413)
        error(await infer(running, content=gzip.compress(b" " * 10_001), headers=packed), 413)
        error(await infer(running, content=b"not gzip", headers=packed), 400)
        error(await infer(running, content=b"x", headers={"content-encoding": "br"}), 415)
        assert (await infer(running, texts("a"))).status_code == 200


async def test_bodies_of_all_calls_together_are_bounded_too(broker, store, shout):
    async with serving(broker), gateway(broker, store, memory_limit=10_000) as running:
        response = await infer(running, texts("a" * 10_000))
        assert "memory" in error(response, 503)
        assert response.headers["retry-after"]
        assert "memory_limit" in error(await infer(running, texts("a" * 8000)), 413)
        for _ in range(20):
            assert (await infer(running, texts("a" * 1000))).status_code == 200


async def test_all_else_below_v2_is_404_in_the_protocols_words(broker, store):
    async with gateway(broker, store) as running:
        assert error(await running.http.get("/v2/models/echo/config"), 404).startswith(
            "nothing is served at /v2/models"
        )
        error(await running.http.post("/v2/systemsharedmemory/region/a/register", json={}), 404)
        refused = await running.http.get("/v2/models/echo/infer")
        error(refused, 405)
        assert refused.headers["allow"] == "POST"
        assert (await running.http.get("/v2")).json()["name"] == "dumbwaiter"
        head = await running.http.head("/v2/models/echo")
        assert (head.status_code, head.content) == (404, b"")
        elsewhere = await running.http.get("/v1/nothing")
        assert elsewhere.headers["content-type"] == "application/problem+json"
        assert (await running.http.get("/v2/health/live")).status_code == 200


async def test_without_a_key_a_client_can_read_why_it_is_refused(broker, store, shout):
    async with serving(broker), gateway(broker, store, auth="on") as running:
        response = await infer(running, texts("a"))
        assert "API key" in error(response, 401)
        assert response.headers["www-authenticate"].startswith("Bearer")
        error(await running.http.get("/v2/models/echo"), 401)


@pytest.mark.parametrize("limits", [{"in_flight": 3}, {"rate": 1 / 3600, "burst": 3.0}], ids=["in flight", "rate"])
async def test_each_element_counts_for_the_quotas_of_an_api_key(broker, store, shout, limits):
    key, token = mint(tenant="acme", name="", now=time.time(), **limits)
    await save_key(store, key)
    headers = {"authorization": f"Bearer {token}"}
    async with serving(broker) as worker, gateway(broker, store, auth="on") as running:
        too_large = await infer(running, texts("a", "b", "c", "d"), headers=headers)
        assert "in one call" in error(too_large, 400)
        responses = [await infer(running, texts("a", "b"), headers=headers) for _ in range(2)]
    assert [message.tenant for message in worker.requests] == ["acme"] * len(worker.requests)
    assert [response.status_code for response in responses] == ([200, 200] if "in_flight" in limits else [200, 429])


async def test_a_broken_signature_in_the_store_is_a_503(broker, store):
    await store.put("models/echo.json", msgspec.json.encode({"name": 1}))
    async with serving(broker), gateway(broker, store) as running:
        error(await infer(running, texts("a")), 503)
