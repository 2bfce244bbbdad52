"""POST /v1/models/{model}/predictions, as a caller sees it, on a real server."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from pathlib import Path

import pytest
from gateway_running import gateway

from dumbwaiter.blobs.presence import WorkerStatus, announce
from dumbwaiter.errors import BlobError
from dumbwaiter.testing import eventually
from echo_worker import failure, output, serving

pytestmark = pytest.mark.anyio

JPEG = {"content-type": "image/jpeg"}
REST_PAGE = Path(__file__).parents[3] / "docs/rest.md"


def problem(response, status, code):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["code"] == code
    assert document["type"] == f"urn:dumbwaiter:problem:{code}"
    assert document["detail"]
    return document


async def test_raw_bytes_go_to_the_queue_with_their_type_and_come_back(broker, store):
    before = time.time()
    async with serving(broker) as worker, gateway(broker, store) as running:
        response = await running.predict(content=b"\xff\xd8", headers={**JPEG, "prefer": "wait=7"})
    assert (response.status_code, response.content) == (200, b"\xff\xd8")
    assert response.headers["content-type"] == "image/jpeg"
    assert "queued;dur=1.000" in response.headers["server-timing"]
    (request,) = worker.requests
    assert (request.subject, request.content_type, request.body) == ("echo", "image/jpeg", b"\xff\xd8")
    assert request.correlation_id == request.id == response.headers["x-prediction-id"]
    assert before <= request.time <= time.time()
    assert request.deadline == pytest.approx(request.time + 7.0)


async def test_a_json_input_comes_back_as_a_prediction(broker, store):
    async with serving(broker), gateway(broker, store) as running:
        response = await running.predict(json={"input": {"text": "ä", "n": [1, 2.5, None]}})
    prediction = response.json()
    assert prediction.pop("id")
    assert prediction == {
        "model": "echo",
        "status": "succeeded",
        "output": {"text": "ä", "n": [1, 2.5, None]},
        "metrics": {"queued_time": 0.001, "batched_time": 0.002, "predict_time": 0.003, "batch_size": 4},
    }


async def test_a_data_url_reaches_the_model_as_bytes(broker, store):
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
    async with serving(broker) as worker, gateway(broker, store) as running:
        await running.predict(json={"input": url})
    assert (worker.requests[0].content_type, worker.requests[0].body) == ("image/png", b"\x89PNG")


async def test_a_trace_parent_travels_and_a_forged_one_does_not(broker, store):
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving(broker) as worker, gateway(broker, store) as running:
        await running.predict(content=b"1", headers={"traceparent": good})
        await running.predict(content=b"1", headers={"traceparent": "x" * 60})
    assert [request.trace_parent for request in worker.requests] == [good, None]


async def test_two_hundred_at_once_each_get_their_own_answer(broker, store):
    async with serving(broker), gateway(broker, store) as running:
        responses = await asyncio.gather(*(running.predict(json={"input": n}) for n in range(200)))
    assert [response.json()["output"] for response in responses] == list(range(200))


async def test_large_bodies_travel_by_claim_check_in_both_directions_and_leave_nothing_behind(broker, store):
    body = bytes(range(256)) * 4096
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        response = await running.predict(content=body, headers=JPEG)

        async def nothing_left():
            return await store.list("claims/") == []

        await eventually(nothing_left)
    assert response.content == body
    assert (worker.requests[0].body, worker.requests[0].data_ref is None) == (b"", False)


async def test_no_answer_within_the_callers_patience_is_504(broker, store):
    await broker.create_queue("slow")
    async with gateway(broker, store) as running:
        started = time.monotonic()
        response = await running.predict("slow", content=b"1", headers={"prefer": "wait=1"})
    document = problem(response, 504, "no-answer-in-time")
    assert response.headers["x-prediction-id"] in document["detail"]
    assert 0.9 < time.monotonic() - started < 5
    assert "from 'slow' within 1 s; it may still be waiting or running; no worker of this" in document["detail"]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, "no worker of this model is running"),
        ("loading", "its worker is still loading the model"),
        ("ready", "its worker is ready, so the model is busy or slow"),
    ],
)
async def test_a_504_says_what_the_workers_of_the_model_are_doing(broker, store, state, reason):
    await broker.create_queue("slow")
    if state:
        await announce(store, WorkerStatus(worker="w", model="slow", state=state))
    async with gateway(broker, store, default_patience=0.2) as running:
        document = problem(await running.predict("slow", content=b"1"), 504, "no-answer-in-time")
    assert document["detail"].endswith(f" within 0.2 s; it may still be waiting or running; {reason}")


async def test_without_a_look_at_the_workers_a_504_does_not_guess(broker):
    class Unreadable:
        async def list(self, prefix):
            raise BlobError("no permission")

    await broker.create_queue("slow")
    async with gateway(broker, Unreadable(), default_patience=0.2) as running:
        document = problem(await running.predict("slow", content=b"1"), 504, "no-answer-in-time")
    assert document["detail"].endswith(" within 0.2 s; it may still be waiting or running")


class SlowStore:
    """*store*, whose *verb* takes *seconds*."""

    def __init__(self, store, verb, seconds):
        self._store = store
        self._slow = (verb, seconds)

    def __getattr__(self, name):
        verb, seconds = getattr(self._store, name), self._slow[1]

        async def slow(*arguments, **facts):
            await asyncio.sleep(seconds)
            return await verb(*arguments, **facts)

        return slow if name == self._slow[0] else verb


async def test_fetching_the_answer_from_a_store_that_hangs_ends_with_the_callers_patience(broker, store):
    hanging = SlowStore(store, "get", 3600)
    large = output(bytes(100_000), "image/png")
    async with serving(broker, respond=large, store=store), gateway(broker, hanging, default_patience=0.3) as running:
        problem(await running.predict(content=b"1"), 504, "no-answer-in-time")


async def test_the_time_that_writing_the_request_took_is_not_granted_again(broker, store):
    await broker.create_queue("slow")
    limits = {"default_patience": 1.0, "claim_threshold": 10}
    async with gateway(broker, SlowStore(store, "put", 0.9), **limits) as running:
        large = asyncio.create_task(running.predict("slow", content=bytes(100)))
        await asyncio.sleep(0.4)
        later = asyncio.create_task(running.predict("slow", content=b"1"))
        await asyncio.wait({large, later}, return_when=asyncio.FIRST_COMPLETED)
        assert (large.done(), later.done()) == (True, False)
        for request in (large, later):
            problem(await request, 504, "no-answer-in-time")


async def test_a_late_answer_is_ignored(broker, store):
    await broker.create_queue("slow")
    async with gateway(broker, store) as running:
        problem(await running.predict("slow", content=b"1", headers={"prefer": "wait=1"}), 504, "no-answer-in-time")
        async with serving(broker, "slow") as worker:
            assert (await running.predict("slow", content=b"2", headers=JPEG)).content == b"2"
    assert [request.body for request in worker.requests] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("bad-input", 422),
        ("deadline-exceeded", 504),
        ("model-error", 500),
        ("delivery-limit", 500),
        ("runner-crashed", 502),
        ("runner-hung", 502),
        ("transient", 503),
        ("something-new", 500),
    ],
)
async def test_a_failure_becomes_a_problem_without_its_traceback(broker, store, code, status):
    respond = failure(code, "why it failed\n  File /secret.py", detail="Traceback: /secret.py")
    async with serving(broker, respond=respond), gateway(broker, store) as running:
        response = await running.predict(content=b"1")
    document = problem(response, status, code)
    assert document["detail"] == "why it failed"
    assert document["attempts"] == 2
    assert "secret" not in response.text
    assert ("retry-after" in response.headers) == (status == 503)


async def test_an_unknown_model_is_404_and_names_those_that_exist(broker, store):
    async with serving(broker, "cats"), serving(broker, "dogs"), gateway(broker, store) as running:
        document = problem(await running.predict("birds", content=b"1" * 1000), 404, "unknown-model")
    assert document["detail"] == "no model named 'birds'; known: cats, dogs"
    assert document["models"] == ["cats", "dogs"]


async def test_a_name_that_is_nearly_a_models_is_404_with_a_suggestion(broker, store):
    async with serving(broker, "cats"), gateway(broker, store) as running:
        document = problem(await running.predict("cast", content=b"1"), 404, "unknown-model")
    assert document["detail"] == "no model named 'cast'; known: cats; did you mean 'cats'?"


async def test_a_model_that_appears_later_is_found_at_once(broker, store):
    async with gateway(broker, store) as running:
        problem(await running.predict(content=b"1"), 404, "unknown-model")
        async with serving(broker):
            assert (await running.predict(content=b"1", headers=JPEG)).status_code == 200


async def test_a_model_name_may_be_percent_encoded(broker, store):
    async with serving(broker), gateway(broker, store) as running:
        assert (await running.predict("e%63ho", content=b"1", headers=JPEG)).status_code == 200
        document = problem(await running.predict("a%20b%25", content=b"1"), 404, "unknown-model")
    assert "no model named 'a b%'" in document["detail"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty-body"),
        (b'{"input": NaN}', 400, "invalid-json"),
        (b'{"input": ' + b"[" * 2000 + b"]" * 2000 + b"}", 400, "invalid-json"),
        (b"[1]", 422, "bad-input"),
        (b'{"input": "data:x"}', 422, "bad-input"),
    ],
)
async def test_a_bad_body_is_refused_before_the_queue(broker, store, body, status, code):
    async with serving(broker) as worker, gateway(broker, store) as running:
        response = await running.predict(content=body, headers={"content-type": "application/json"})
        problem(response, status, code)
        assert (await running.predict(json={"input": 1})).status_code == 200
    assert len(worker.requests) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_another_method_is_405_and_says_which_is_allowed(broker, store, method):
    async with serving(broker), gateway(broker, store) as running:
        response = await running.http.request(method, "/v1/models/echo/predictions")
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


async def test_another_path_is_404(broker, store):
    async with gateway(broker, store) as running:
        problem(await running.http.get("/nothing"), 404, "not-found")
        problem(await running.http.post("/v1/models/echo/predictions/", content=b"1"), 404, "not-found")


async def test_bytes_come_back_as_a_data_url_to_whoever_accepts_only_json(broker, store):
    async with serving(broker, respond=output(b"\x89PN", "image/png")), gateway(broker, store) as running:
        response = await running.predict(content=b"1", headers={"accept": "application/json"})
    assert json.loads(response.content)["output"] == "data:image/png;base64,iVBO"


async def test_when_all_workers_fail_callers_get_503_with_the_reason_also_those_that_wait(broker, store):
    await broker.create_queue("broken")
    async with gateway(broker, store) as running:
        waiting = asyncio.create_task(running.predict("broken", content=b"1"))

        async def has_arrived():
            return (await broker.stats("broken")).ready == 1

        await eventually(has_arrived)
        reason = "no weights at /w:\n\tneither a\n\tnor b\nTraceback: secret"
        await announce(store, WorkerStatus(worker="w1", model="broken", state="failing", reason=reason))
        response = await asyncio.wait_for(waiting, 10)
        document = problem(response, 503, "model-failing")
        assert document["detail"] == "model 'broken' cannot be loaded: no weights at /w: neither a nor b"
        assert "secret" not in response.text
        assert response.headers["retry-after"]
        started = time.monotonic()
        problem(await running.predict("broken", content=b"1"), 503, "model-failing")
        assert time.monotonic() - started < 0.5
        assert (await broker.stats("broken")).ready == 1

        await announce(store, WorkerStatus(worker="w2", model="broken", state="ready"))
        async with serving(broker, "broken"):

            async def recovered():
                return (await running.predict("broken", content=b"1", headers=JPEG)).status_code == 200

            await eventually(recovered)


async def test_a_model_without_workers_just_waits_for_one(broker, store):
    await broker.create_queue("later")
    async with gateway(broker, store) as running:
        waiting = asyncio.create_task(running.predict("later", content=b"1", headers=JPEG))

        async def has_arrived():
            return (await broker.stats("later")).ready == 1

        await eventually(has_arrived)
        async with serving(broker, "later"):
            assert (await waiting).status_code == 200


async def test_json_goes_through_as_deep_as_the_documentation_promises_and_deeper_is_refused(broker, store):
    (promised,) = re.findall(r"^\| depth of JSON \| (\d+) levels", REST_PAGE.read_text(), re.MULTILINE)
    depth = int(promised)
    assert depth > 800, "what is promised is what there is"
    headers = {"content-type": "application/json"}
    async with serving(broker), gateway(broker, store) as running:
        deep = b'{"input":' + b"[" * depth + b"]" * depth + b"}"
        response = await running.predict(content=deep, headers=headers)
        assert response.status_code == 200
        assert b'"output":' + b"[" * depth + b"]" * depth in response.content
        too_deep = b'{"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        problem(await running.predict(content=too_deep, headers=headers), 400, "invalid-json")
