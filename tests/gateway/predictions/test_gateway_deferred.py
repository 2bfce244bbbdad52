"""Requests whose caller does not wait: 202, and where the prediction is found afterwards."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from gateway_running import SIGNING_KEY, gateway
from problems_seen import problem

from dumbwaiter.answers import failed, succeeded
from dumbwaiter.blobs.events import Event, append, event_id, new_attempt
from dumbwaiter.blobs.results import load_result, save_result
from dumbwaiter.blobs.signing_key import load_signing_key
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.message import KEEP, WEBHOOK, WEBHOOK_EVENTS, Failure, Message
from dumbwaiter.testing import eventually
from echo_worker import TIMINGS, failure, output, serving

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
ASYNC = {"prefer": "respond-async"}


async def defer(running, body=None, **headers):
    return await running.predict(json={"input": 1} if body is None else body, headers={**ASYNC, **headers})


async def answer(store, id_, body=b"7", content_type="application/json"):
    answered = succeeded(Message(id=id_), body=body, content_type=content_type, timings=TIMINGS)
    await save_result(store, id_, answered, threshold=64 * 1024)


async def finished(running, id_):
    response = await running.http.get(f"/v1/predictions/{id_}", headers={"prefer": "wait=10"})
    assert response.status_code == 200, response.text
    return response.json()


async def test_respond_async_is_202_with_the_place_and_the_prediction_as_it_is(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        before = time.time()
        response = await defer(running)
        assert response.status_code == 202
        prediction = response.json()
        id_ = prediction["id"]
        assert response.headers["location"] == f"/v1/predictions/{id_}"
        assert response.headers["x-prediction-id"] == id_
        assert response.headers["preference-applied"] == "respond-async"
        assert (prediction["model"], prediction["status"]) == ("echo", "starting")
        assert prediction["urls"]["cancel"] == f"/v1/predictions/{id_}/cancel"
    (delivery,) = await broker.receive("echo", max_messages=9, max_wait=1.0)
    message = delivery.message
    assert (message.id, message.reply_to, message.extensions[KEEP]) == (id_, None, "true")
    assert message.deadline == pytest.approx(before + 7 * 86400, abs=5)


async def test_the_result_is_fetched_by_id_with_its_timings_and_the_bytes_are_the_same_each_time(broker, store):
    async with serving(broker, store=store), gateway(broker, store) as running:
        id_ = (await defer(running, {"input": {"n": [1]}})).json()["id"]
        prediction = await finished(running, id_)
        again = await running.http.get(f"/v1/predictions/{id_}")
        third = await running.http.get(f"/v1/predictions/{id_}")
    assert (prediction["status"], prediction["output"]) == ("succeeded", {"n": [1]})
    assert prediction["metrics"]["predict_time"] == 0.003
    assert prediction["created_at"] <= prediction["completed_at"]
    assert prediction["started_at"] < prediction["completed_at"]
    assert again.content == third.content
    assert again.json() == prediction


async def test_another_gateway_of_the_same_store_answers_for_the_id(broker, store):
    async with serving(broker, store=store), gateway(broker, store) as one, gateway(broker, store) as other:
        id_ = (await defer(one)).json()["id"]
        assert (await finished(other, id_))["output"] == 1


async def test_with_wait_an_answer_in_time_is_200_and_a_late_one_202(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        late = await defer(running, prefer="respond-async, wait=1")
        assert late.status_code == 202
        assert late.headers["preference-applied"] == "respond-async, wait=1"
        async with serving(broker, store=store):
            in_time = await defer(running, prefer="respond-async, wait=20")
            assert (in_time.status_code, in_time.json()["output"]) == (200, 1)
            assert (await finished(running, late.json()["id"]))["output"] == 1


@pytest.mark.parametrize(("prefer", "said"), [("wait=1", "wait=1"), ("wait=9999", "wait=2"), ("respond-async", None)])
async def test_a_look_says_which_preferences_it_honoured_and_never_more_than_that(broker, store, prefer, said):
    await broker.create_queue("echo")
    async with gateway(broker, store, max_patience=2.0) as running:
        path = (await defer(running)).headers["location"]
        unfinished = await running.http.get(path, headers={"prefer": prefer})
        assert (unfinished.json()["status"], unfinished.headers.get("preference-applied")) == ("starting", said)
        async with serving(broker, store=store):
            await finished(running, path.rpartition("/")[2])
        for route in (path, f"{path}/output"):
            look = await running.http.get(route, headers={"prefer": prefer})
            assert (look.status_code, look.headers.get("preference-applied")) == (200, said)
        plain = await running.http.get(path)
    assert "preference-applied" not in plain.headers


async def test_an_answer_in_time_says_how_long_it_would_have_waited(broker, store):
    async with serving(broker, store=store), gateway(broker, store, max_patience=30.0) as running:
        kept = {"idempotency-key": "k"}
        for headers, said in [({"prefer": "wait=3"}, "wait=3"), ({"prefer": "wait=99"}, "wait=30"), ({}, None)]:
            for more in ({}, kept):
                response = await running.predict(json={"input": 1}, headers={**headers, **more})
                assert (response.status_code, response.headers.get("preference-applied")) == (200, said)


async def test_a_failure_in_time_is_a_problem_and_afterwards_a_failed_prediction(broker, store):
    respond = failure("model-error", "it broke\nsecret", detail="Traceback")
    async with serving(broker, respond=respond, store=store), gateway(broker, store) as running:
        response = await defer(running, prefer="respond-async, wait=20")
        document = problem(response, 500, "model-error")
        kept = await running.http.get(f"/v1/predictions/{response.headers['x-prediction-id']}")
    assert (document["detail"], document["attempts"]) == ("it broke", 2)
    assert kept.status_code == 200
    assert kept.json()["status"] == "failed"
    assert kept.json()["error"] == {"code": "model-error", "message": "it broke", "attempts": 2}
    assert "secret" not in kept.text + response.text


async def test_a_prediction_that_waits_says_how_many_are_served_before_it(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        ids = [(await defer(running)).json()["id"] for _ in range(3)]
        seen = [(await running.http.get(f"/v1/predictions/{id_}")).json() for id_ in ids]
        urgent = (await defer(running, **{"dumbwaiter-priority": "5"})).json()["id"]
        assert (await running.http.get(f"/v1/predictions/{urgent}")).json()["queue_position"] == 0
    assert [one["queue_position"] for one in seen] == [0, 1, 2]
    assert {one["status"] for one in seen} == {"starting"}


async def test_a_prediction_that_runs_is_processing_and_has_no_place_in_the_queue(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        id_ = (await defer(running)).json()["id"]
        attempt = new_attempt(1, time.time())
        await append(store, id_, [Event(id=event_id(attempt, 0), event="start", data=b"null")])
        seen = (await running.http.get(f"/v1/predictions/{id_}")).json()
    assert seen["status"] == "processing"
    assert "queue_position" not in seen


@pytest.mark.parametrize("path", ["", "/output", "/events"])
@pytest.mark.parametrize(
    "id_", ["x", "a" * 5000, "0" * 42 + ".echo", "%00", "%ff%fe", "01a213d4c67b706a7db1fc462466651a", "..", "a%0d%0ab"]
)
async def test_an_invented_id_is_404(broker, store, id_, path):
    async with gateway(broker, store) as running:
        problem(
            await running.http.get(f"/v1/predictions/{id_}{path}"),
            404,
            "unknown-prediction" if id_ != ".." else "not-found",
        )


async def test_another_tenants_id_is_404_for_everything(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        id_ = (await defer(running, **{"dumbwaiter-tenant": "ann"})).json()["id"]
        for headers in ({}, {"dumbwaiter-tenant": "bob"}):
            for method, path in (("GET", ""), ("GET", "/output"), ("GET", "/events"), ("POST", "/cancel")):
                response = await running.http.request(method, f"/v1/predictions/{id_}{path}", headers=headers)
                problem(response, 404, "unknown-prediction")
        mine = await running.http.get(f"/v1/predictions/{id_}", headers={"dumbwaiter-tenant": "ann"})
        assert mine.json()["status"] == "starting"


async def test_a_tenant_in_the_body_owns_the_prediction(broker, store):
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        id_ = (await defer(running, {"input": 1, "tenant": "ann"})).json()["id"]
        problem(await running.http.get(f"/v1/predictions/{id_}"), 404, "unknown-prediction")
        response = await running.http.get(f"/v1/predictions/{id_}", headers={"dumbwaiter-tenant": "ann"})
    assert response.status_code == 200
    assert worker.requests[0].tenant == "ann"


async def test_a_key_that_signs_differently_knows_no_id_of_ours(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running, gateway(broker, store, signing_key="z" * 64) as other:
        id_ = (await defer(running)).json()["id"]
        problem(await other.http.get(f"/v1/predictions/{id_}"), 404, "unknown-prediction")


async def test_what_is_older_than_results_are_kept_is_gone(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, results_kept_for=0.05) as running:
        id_ = (await defer(running)).json()["id"]
        await asyncio.sleep(0.1)
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            response = await running.http.request(method, f"/v1/predictions/{id_}{path}")
            problem(response, 410, "prediction-expired")


async def test_what_was_begun_late_is_shown_followed_and_cancelled_while_it_runs_however_old_it_is(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, results_kept_for=60.0) as running:
        old = (await load_signing_key(store, SIGNING_KEY)).new_id("echo", None, now=time.time() - 100.0)
        path = f"/v1/predictions/{old}"
        problem(await running.http.get(path), 410, "prediction-expired")
        attempt = new_attempt(1, time.time() - 50.0)
        await append(store, old, [Event(id=event_id(attempt, 0), event="start")])
        assert (await running.http.get(path)).json()["status"] == "processing"
        assert (await running.http.get(path, headers={"prefer": "wait=0"})).json()["status"] == "processing"
        assert (await running.http.post(f"{path}/cancel")).json()["status"] == "canceled"
        assert (await running.http.get(f"{path}/events")).status_code == 200


async def test_what_was_begun_so_long_ago_that_its_result_may_have_been_removed_is_gone(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, results_kept_for=60.0) as running:
        old = (await load_signing_key(store, SIGNING_KEY)).new_id("echo", None, now=time.time() - 100.0)
        await append(store, old, [Event(id=event_id(new_attempt(1, time.time() - 80.0), 0), event="start")])
        for method, end in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            problem(await running.http.request(method, f"/v1/predictions/{old}{end}"), 410, "prediction-expired")


async def test_the_output_is_served_as_it_is(broker, store):
    async with serving(broker, respond=output(b"\x89PNG", "image/png"), store=store), gateway(broker, store) as running:
        id_ = (await defer(running)).json()["id"]
        response = await running.http.get(f"/v1/predictions/{id_}/output", headers={"prefer": "wait=10"})
        head = await running.http.head(f"/v1/predictions/{id_}/output")
    assert (response.content, response.headers["content-type"]) == (b"\x89PNG", "image/png")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert (head.content, head.headers["content-length"]) == (b"", "4")


async def test_there_is_no_output_before_the_end_and_none_of_a_failure(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        id_ = (await defer(running)).json()["id"]
        problem(await running.http.get(f"/v1/predictions/{id_}/output"), 404, "no-output-yet")
        await save_result(store, id_, failed(Message(id=id_), Failure(code="bad-input", message="no")), threshold=9)
        problem(await running.http.get(f"/v1/predictions/{id_}/output"), 422, "bad-input")


async def test_the_prediction_links_to_a_long_output_which_is_streamed(broker, store):
    long = json.dumps("ä" * 1_500_000).encode()
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        id_ = (await defer(running)).json()["id"]
        await answer(store, id_, long)
        seen = (await running.http.get(f"/v1/predictions/{id_}")).json()
        assert (seen["output"], seen["output_url"]) == (None, f"/v1/predictions/{id_}/output")
        assert (await running.http.get(seen["output_url"])).content == long


@pytest.mark.parametrize("nbytes", [200_000, 1_048_570])
async def test_an_output_below_the_limit_stands_in_the_prediction_wherever_it_lies(broker, store, nbytes):
    body = b'"' + b"x" * nbytes + b'"'
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        id_ = (await defer(running)).json()["id"]
        await answer(store, id_, body)
        assert (await running.http.get(f"/v1/predictions/{id_}")).json()["output"] == "x" * nbytes


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml; charset=utf-8", "application/xml", "text/xml"])
async def test_what_could_hold_a_script_is_never_shown_as_a_page(broker, store, content_type):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        id_ = (await defer(running)).json()["id"]
        await answer(store, id_, b"<script>alert(1)</script>", content_type)
        response = await running.http.get(f"/v1/predictions/{id_}/output")
    assert response.headers["content-disposition"] == "attachment"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"].startswith("sandbox")


async def test_a_content_type_that_no_header_takes_is_bytes(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        id_ = (await defer(running)).json()["id"]
        await answer(store, id_, b"x", "image/png\r\nset-cookie: a=b")
        response = await running.http.get(f"/v1/predictions/{id_}/output")
    assert response.headers["content-type"] == "application/octet-stream"
    assert "set-cookie" not in response.headers


async def test_long_polls_of_a_gateway_that_stops_are_answered_at_once_as_things_are(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, grace=20.0) as running:
        id_ = (await defer(running)).json()["id"]
        polling = asyncio.create_task(running.http.get(f"/v1/predictions/{id_}", headers={"prefer": "wait=60"}))
        waiting = asyncio.create_task(defer(running, prefer="respond-async, wait=60"))

        async def both_have_come():
            return (await broker.stats("echo")).ready == 2

        await eventually(both_have_come)
        await asyncio.sleep(0.05)
        running.stop.set()
        assert (await asyncio.wait_for(polling, 10)).json()["status"] == "starting"
        waiting.cancel()


async def test_a_gateway_at_the_end_of_its_grace_says_where_the_prediction_will_be(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, grace=0.2) as running:
        waiting = asyncio.create_task(defer(running, prefer="respond-async, wait=60"))

        async def has_come():
            return (await broker.stats("echo")).ready == 1

        await eventually(has_come)
        running.stop.set()
        assert (await asyncio.wait_for(waiting, 10)).status_code == 202


async def test_nothing_is_accepted_that_the_broker_does_not_confirm(store):
    from dumbwaiter.brokers.memory import MemoryBroker

    class Refusing(MemoryBroker):
        async def send(self, queue, messages, *, delay=0.0):
            raise BrokerUnavailableError("disk full")

    async with Refusing("memory:") as broker:
        await broker.create_queue("echo")
        async with gateway(broker, store) as running:
            problem(await defer(running), 503, "broker-unavailable")


async def test_an_unknown_model_is_404_also_when_it_vanished_just_now(broker, store):
    async with gateway(broker, store) as running:
        problem(await defer(running), 404, "unknown-model")


async def test_a_webhook_goes_with_the_request_and_keeps_it(broker, store):
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        body = {"input": 1, "webhook": "https://example.com/hook", "webhook_events_filter": ["start", "completed"]}
        response = await running.predict(json=body)
        id_ = response.headers["x-prediction-id"]
        assert (response.status_code, response.json()["output"]) == (200, 1)
        assert (await finished(running, id_))["output"] == 1
    extensions = worker.requests[0].extensions
    assert (extensions[WEBHOOK], extensions[WEBHOOK_EVENTS]) == ("https://example.com/hook", "start,completed")


@pytest.mark.parametrize(
    "url", ["http://example.com/", "https://127.0.0.1/", "https://169.254.169.254/", "file:///etc/passwd", "", "x"]
)
async def test_a_webhook_that_may_not_be_reached_is_refused_before_anything_is_queued(broker, store, url):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        problem(await running.predict(json={"input": 1, "webhook": url}, headers=ASYNC), 422, "forbidden-url")
    assert (await broker.stats("echo")).ready == 0


@pytest.mark.parametrize(
    ("member", "status", "words"),
    [
        ({"webhok": "https://x.example"}, 422, "it has no member 'webhok'; did you mean 'webhook'?"),
        ({"webhook_events_filter": ["complete"]}, 422, "did you mean 'completed'?"),
        ({"webhook_events_filter": "completed"}, 422, "must be a list of events: start, output, logs, completed"),
        ({"webhook": 5}, 422, "webhook must be text"),
        ({"stream": "yes"}, 422, "stream must be true or false"),
        ({"deadline": [1]}, 422, "deadline must be text or a number"),
        ({"wait": 5}, 422, "it has no member 'wait'; known: input, webhook, webhook_events_filter"),
        ({"webhook": "https://x.example/" + "a" * 3000}, 422, "longer than"),
        ({"priority": 10}, 400, "from -9 to 9"),
        ({"priority": "high"}, 422, "priority must be a whole number"),
        ({"deadline": "soon"}, 400, "RFC 3339"),
        ({"tenant": "a\nb"}, 400, "tenant"),
        ({"tenant": ""}, 400, "tenant"),
    ],
)
async def test_a_member_with_a_wrong_form_is_named(broker, store, member, status, words):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        response = await running.predict(json={"input": 1, **member})
    assert response.status_code == status
    assert words in response.json()["detail"]
    assert (await broker.stats("echo")).ready == 0


async def test_deadline_priority_and_tenant_travel_by_header_or_by_field(broker, store):
    deadline = time.time() + 1000
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        headers = {"dumbwaiter-deadline": str(deadline), "dumbwaiter-priority": "-3", "dumbwaiter-tenant": "ann"}
        await running.predict(json={"input": 1}, headers={**headers, "prefer": "respond-async, wait=9"})
        fields = {"deadline": deadline, "priority": -3, "tenant": "ann"}
        await running.predict(json={"input": 1, **fields}, headers={"prefer": "respond-async, wait=9"})
        await running.predict(json={"input": 1, **fields}, headers={**headers, "prefer": "respond-async, wait=9"})
    seen = {(request.priority, request.tenant, round(request.deadline, 3)) for request in worker.requests}
    assert seen == {(-3, "ann", round(deadline, 3))}
    assert len(worker.requests) == 3


async def test_a_tenant_in_the_body_that_is_not_the_callers_is_403(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        response = await running.predict(json={"input": 1, "tenant": "bob"}, headers={"dumbwaiter-tenant": "ann"})
        problem(response, 403, "foreign-tenant")


@pytest.mark.parametrize(
    ("headers", "fields", "code"),
    [
        ({"dumbwaiter-priority": "1"}, {"priority": 2}, "conflicting-priority"),
        ({"dumbwaiter-deadline": "2099-01-01T00:00:00Z"}, {"deadline": "2098-01-01T00:00:00Z"}, "conflicting-deadline"),
        ({"dumbwaiter-priority": "x"}, {}, "invalid-priority"),
        ({"dumbwaiter-deadline": "x"}, {}, "invalid-deadline"),
        ({"dumbwaiter-deadline": "1e400"}, {}, "invalid-deadline"),
    ],
)
async def test_header_and_field_that_contradict_each_other_are_400(broker, store, headers, fields, code):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        problem(await running.predict(json={"input": 1, **fields}, headers=headers), 400, code)


async def test_a_deadline_that_is_over_is_504_at_once(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        problem(await defer(running, **{"dumbwaiter-deadline": "1"}), 504, "deadline-exceeded")
    assert (await broker.stats("echo")).ready == 0


async def test_the_shorter_of_patience_and_deadline_is_the_deadline_of_a_waiting_request(broker, store):
    deadline = time.time() + 3
    async with serving(broker) as worker, gateway(broker, store) as running:
        await running.predict(json={"input": 1}, headers={"dumbwaiter-deadline": str(deadline)})
        await running.predict(json={"input": 1}, headers={"dumbwaiter-deadline": str(deadline), "prefer": "wait=1"})
    assert worker.requests[0].deadline == pytest.approx(deadline, abs=0.001)
    assert worker.requests[1].deadline < deadline - 1


async def test_the_webhook_secret_is_the_tenants_own(broker, store):
    async with gateway(broker, store) as running:
        path = "/v1/webhooks/default/secret"
        responses = [
            await running.http.get(path, headers=headers)
            for headers in ({}, {"dumbwaiter-tenant": "ann"}, {"dumbwaiter-tenant": "ann"})
        ]
    keys = [response.json()["key"] for response in responses]
    assert {response.headers["cache-control"] for response in responses} == {"no-store"}
    assert keys[0].startswith("whsec_")
    assert keys[0] != keys[1] == keys[2]


async def test_a_store_that_fails_is_503_and_a_body_is_not_left_behind(broker, store):
    async with serving(broker, store=store), gateway(broker, store, claim_threshold=1000) as running:
        response = await running.predict(content=bytes(5000), headers={**ASYNC, "content-type": "a/b"})
        id_ = response.json()["id"]
        await finished(running, id_)

        async def nothing_left():
            return await store.list("claims/") == []

        await eventually(nothing_left)
        assert (await load_result(store, id_)).body == bytes(5000)


async def test_a_broker_that_cannot_tell_the_place_costs_the_place_alone(broker, store, monkeypatch):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        deferred = await running.predict(json={"input": 1}, headers={"prefer": "respond-async"})

        async def cannot_tell(queue, id_):
            raise BrokerUnavailableError("down")

        monkeypatch.setattr(broker, "position", cannot_tell)
        seen = await running.http.get(deferred.headers["location"])
    assert (seen.status_code, seen.json()["status"]) == (200, "starting")
    assert "queue_position" not in seen.json()
