"""Kept predictions and callers who leave, stores that hang, models that fail, clients that accept anything."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from gateway_running import gateway, raw_connection
from problems_seen import problem

from dumbwaiter.answers import succeeded
from dumbwaiter.blobs.presence import WorkerStatus, announce
from dumbwaiter.blobs.results import save_result
from dumbwaiter.gateway.http import sending
from dumbwaiter.gateway.predictions import uploads
from dumbwaiter.gateway.predictions.sweeping import sweep_for_ever
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from echo_worker import TIMINGS, output, serving

pytestmark = pytest.mark.anyio

BYTES = {"content-type": "a/b"}
ASYNC = {"prefer": "respond-async"}


class Wrapped:
    """*store*, but for what is given by name."""

    def __init__(self, store, **instead):
        self._store = store
        self.__dict__.update(instead)

    def __getattr__(self, name):
        return getattr(self._store, name)


async def test_callers_who_come_and_go_with_one_key_never_see_a_fault_and_the_model_runs_once(broker, store):
    await broker.create_queue("echo")
    luck = random.Random(7)
    async with gateway(broker, store) as running:

        async def impatient(seconds):
            try:
                async with asyncio.timeout(seconds):
                    return await running.predict(json={"input": 1}, headers={"idempotency-key": "k"})
            except TimeoutError:
                return None

        for _ in range(10):
            responses = await asyncio.gather(*(impatient(luck.uniform(0.001, 0.1)) for _ in range(10)))
            assert {response and response.status_code for response in responses} == {None}
        async with serving(broker, store=store) as worker:
            last = await running.predict(json={"input": 1}, headers={"idempotency-key": "k"})
    assert (last.status_code, last.json()["output"]) == (200, 1)
    assert len(worker.requests) == 1


async def test_a_large_request_that_comes_again_after_its_answer_leaves_nothing_in_the_store(broker, store):
    async with (
        serving(broker, respond=output(b"1", "application/json"), store=store) as worker,
        gateway(broker, store, claim_threshold=1000) as running,
    ):
        for _ in range(3):
            response = await running.predict(content=bytes(5000), headers={**BYTES, "idempotency-key": "k"})
            assert response.json()["output"] == 1

        async def nothing_left():
            return await store.list("claims/") == []

        await eventually(nothing_left)
    assert len(worker.requests) == 1


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json, text/event-stream", "text/event-stream;q=0.5, application/json", "text/*"]
)
async def test_who_accepts_events_among_others_gets_what_is_simpler(broker, store, accept):
    async with serving(broker, store=store), gateway(broker, store) as running:
        response = await running.predict(json={"input": 1}, headers={"accept": accept})
    assert response.headers["content-type"] == "application/json"


async def test_a_long_poll_whose_caller_hangs_up_looks_no_more(broker, store):
    looks = 0

    async def get(key):
        nonlocal looks
        looks += key.startswith("results/")
        return await store.get(key)

    await broker.create_queue("echo")
    async with gateway(broker, Wrapped(store, get=get)) as running:
        id_ = (await running.predict(json={"input": 1}, headers=ASYNC)).json()["id"]
        polling = asyncio.create_task(running.http.get(f"/v1/predictions/{id_}", headers={"prefer": "wait=60"}))
        await eventually(lambda: looks > 3)
        polling.cancel()
        await asyncio.sleep(0.3)
        before = looks
        await asyncio.sleep(1.3)
        assert looks == before


async def test_a_store_that_hangs_while_it_takes_an_upload_is_503_and_frees_the_memory(broker, store, monkeypatch):
    monkeypatch.setattr(uploads, "STALLED_AFTER", 0.2)

    async def put_stream(key, chunks, *, durable=True):
        async for _ in chunks:
            await asyncio.sleep(3600)

    await broker.create_queue("echo")
    async with gateway(broker, Wrapped(store, put_stream=put_stream), memory_limit=1024 * 1024) as running:
        for _ in range(3):
            problem(await running.predict(content=bytes(500_000), headers=BYTES), 503, "blob-store-unavailable")


async def test_a_caller_may_be_slower_than_a_store_may_be(broker, store, monkeypatch):
    monkeypatch.setattr(uploads, "STALLED_AFTER", 0.2)

    async def slow():
        for _ in range(4):
            yield bytes(200_000)
            await asyncio.sleep(0.3)

    async with serving(broker, store=store), gateway(broker, store) as running:
        assert len((await running.predict(content=slow(), headers=BYTES)).content) == 800_000


async def test_an_output_that_stops_in_the_middle_breaks_the_connection_rather_than_look_whole(
    broker, store, monkeypatch
):
    monkeypatch.setattr(sending, "STALLED_AFTER", 0.2)

    async def stream(key, **how):
        async for chunk in store.stream(key, **how):
            yield chunk
            await asyncio.sleep(3600)

    await broker.create_queue("echo")
    async with gateway(broker, Wrapped(store, stream=stream)) as running:
        id_ = (await running.predict(json={"input": 1}, headers=ASYNC)).json()["id"]
        answer = succeeded(Message(id=id_), body=bytes(2_000_000), content_type="a/b", timings=TIMINGS)
        await save_result(store, id_, answer, threshold=1000)
        async with raw_connection(running.port) as (reader, writer):
            writer.write(f"GET /v1/predictions/{id_}/output HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            received = await asyncio.wait_for(reader.read(), 10)
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-length: 2000000" in head
    assert 0 < len(body) < 2_000_000


async def test_a_model_that_fails_to_load_refuses_new_requests_and_keeps_those_that_were_deferred(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        deferred = asyncio.create_task(running.predict(json={"input": 1}, headers={"prefer": "respond-async, wait=60"}))

        async def has_arrived():
            return (await broker.stats("echo")).ready == 1

        await eventually(has_arrived)
        await announce(store, WorkerStatus(worker="w1", model="echo", state="failing", reason="no weights"))
        assert (await asyncio.wait_for(deferred, 10)).status_code == 202
        problem(await running.predict(json={"input": 1}, headers=ASYNC), 503, "model-failing")
        assert (await broker.stats("echo")).ready == 1


async def test_a_finished_key_is_answered_also_while_the_model_fails(broker, store):
    async with gateway(broker, store) as running:
        async with serving(broker, store=store):
            first = await running.predict(json={"input": 1}, headers={"idempotency-key": "k"})
        await announce(store, WorkerStatus(worker="w1", model="echo", state="failing", reason="no weights"))

        async def is_failing():
            return (await running.predict(json={"input": 1})).status_code == 503

        await eventually(is_failing)
        again = await running.predict(json={"input": 1}, headers={"idempotency-key": "k"})
    assert (again.status_code, again.content) == (200, first.content)


async def test_what_is_too_old_is_swept_away_in_the_background(store):
    answer = succeeded(Message(id="x"), body=b"1", content_type="a/b", timings=TIMINGS)
    await save_result(store, "x", answer, threshold=100)
    sweeping = asyncio.create_task(sweep_for_ever(store, 0.0, longest_wait=0.0, every=0.01))

    async def is_gone():
        return not await store.exists("results/x")

    await eventually(is_gone)
    sweeping.cancel()


async def test_links_begin_with_the_public_url_when_there_is_one(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, public_url="https://models.example.com/api/") as running:
        response = await running.predict(json={"input": 1}, headers=ASYNC)
    id_ = response.json()["id"]
    assert response.headers["location"] == f"https://models.example.com/api/v1/predictions/{id_}"
    assert response.json()["urls"]["stream"] == f"https://models.example.com/api/v1/predictions/{id_}/events"


async def test_a_prediction_without_a_deadline_of_its_own_has_none_where_results_are_kept_for_ever(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, results_kept_for=0.0) as running:
        await running.predict(json={"input": 1}, headers=ASYNC)
    (delivery,) = await broker.receive("echo", max_messages=1, max_wait=1.0)
    assert delivery.message.deadline is None
    assert delivery.message.time == pytest.approx(time.time(), abs=10)


async def test_a_fault_of_the_gateway_is_500_and_tells_nothing(broker, store, monkeypatch):
    from dumbwaiter.gateway.predictions import creating

    def broken(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(creating, "new_id", broken)
    async with serving(broker, store=store), gateway(broker, store) as running:
        for headers in ({}, ASYNC):
            response = await running.predict(json={"input": 1}, headers=headers)
            problem(response, 500, "internal-error")
            assert "secret" not in response.text
        assert (await running.http.get("/v2/health/live")).status_code == 200
