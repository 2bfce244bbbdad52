"""Cancelling: what has no result yet gets one that says canceled, and the first result stands for good."""

from __future__ import annotations

import asyncio

import pytest
from gateway_running import gateway
from problems_seen import problem

from dumbwaiter.answers import failure_of, succeeded
from dumbwaiter.blobs.results import load_result, save_result
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from echo_worker import TIMINGS, serving

pytestmark = pytest.mark.anyio


async def cancel(running, id_):
    return await running.http.post(f"/v1/predictions/{id_}/cancel")


async def test_a_waiting_prediction_is_canceled_and_a_worker_sees_it_in_the_store(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running, gateway(broker, store) as other:
        id_ = (await running.predict(json={"input": 1}, headers={"prefer": "respond-async"})).json()["id"]
        response = await cancel(other, id_)
        seen = await running.http.get(f"/v1/predictions/{id_}")
        again = await cancel(running, id_)
    assert (response.status_code, response.json()["status"]) == (200, "canceled")
    assert response.content == seen.content == again.content
    assert failure_of(await load_result(store, id_)).code == "canceled"


async def test_a_finished_prediction_stays_as_it_is(broker, store):
    async with serving(broker, store=store), gateway(broker, store) as running:
        kept = await running.predict(json={"input": 1}, headers={"idempotency-key": "k"})
        response = await cancel(running, kept.json()["id"])
    assert (response.status_code, response.json()["status"], response.json()["output"]) == (200, "succeeded", 1)
    assert response.content == kept.content


async def test_whoever_waits_for_it_is_told_409(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running, gateway(broker, store) as other:
        waiting = asyncio.create_task(running.predict(json={"input": 1}, headers={"idempotency-key": "k"}))
        polled = None

        async def is_accepted():
            nonlocal polled
            polled = await other.http.get("/v1/models/echo/predictions/k")
            return polled.status_code == 200

        await eventually(is_accepted)
        id_ = polled.json()["id"]
        assert (await cancel(other, id_)).json()["status"] == "canceled"
        problem(await asyncio.wait_for(waiting, 10), 409, "canceled")
        problem(await running.http.get(f"/v1/predictions/{id_}/output"), 409, "canceled")


async def test_a_cancel_that_races_with_the_answer_shows_whichever_was_first(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        for n in range(20):
            response = await running.predict(json={"input": n}, headers={"prefer": "respond-async"})
            id_ = response.json()["id"]
            answer = succeeded(Message(id=id_), body=b"1", content_type="application/json", timings=TIMINGS)
            cancelled, stored = await asyncio.gather(
                cancel(running, id_), save_result(store, id_, answer, threshold=1000)
            )
            assert (cancelled.json()["status"] == "succeeded") == (stored.id == answer.id)


@pytest.mark.parametrize("body", [b"", b"{}", b"x" * 100])
async def test_a_body_of_the_cancel_is_passed_over(broker, store, body):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        id_ = (await running.predict(json={"input": 1}, headers={"prefer": "respond-async"})).json()["id"]
        response = await running.http.post(f"/v1/predictions/{id_}/cancel", content=body)
    assert response.json()["status"] == "canceled"
