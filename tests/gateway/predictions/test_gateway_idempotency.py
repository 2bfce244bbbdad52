"""The same key and the same body: one run of the model, one answer, by whichever gateway and however often."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import tempfile
import time
from pathlib import Path

import pytest
from gateway_running import gateway
from problems_seen import problem

from dumbwaiter.answers import failed, succeeded
from dumbwaiter.blobs.acceptances import find_acceptance
from dumbwaiter.blobs.presence import WorkerStatus, announce
from dumbwaiter.blobs.results import result_key, save_result
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.sqlite import SqliteBroker
from dumbwaiter.dead_letters import redrive
from dumbwaiter.message import Failure, Message
from dumbwaiter.testing import eventually
from echo_worker import TIMINGS, failure, output, serving

pytestmark = pytest.mark.anyio

KEY = {"idempotency-key": "order-17"}
BYTES = {"content-type": "a/b"}


async def arrived(broker, count=1):
    async def has_arrived():
        return (await broker.stats("echo")).ready >= count

    await eventually(has_arrived)


async def test_fifty_at_once_are_one_run_and_the_same_bytes_for_all_over_two_gateways(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as one, gateway(broker, store) as other:
        asking = [
            asyncio.create_task((one, other)[n % 2].predict(json={"input": {"n": 1}}, headers=KEY)) for n in range(50)
        ]
        await arrived(broker)
        async with serving(broker, store=store) as worker:
            responses = await asyncio.gather(*asking)
        late = await other.predict(json={"input": {"n": 1}}, headers=KEY)
    assert {response.status_code for response in responses} == {200}
    assert len({response.content for response in [*responses, late]}) == 1
    assert responses[0].json()["output"] == {"n": 1}
    assert len(worker.requests) == 1


@contextlib.contextmanager
def nobody_may_write(broker):
    """As when a process that was stopped holds the queues' turnstile."""
    with Path(f"{broker.path}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


async def test_a_broker_that_is_stuck_is_told_in_time_and_the_key_stays_good(store):
    with tempfile.TemporaryDirectory(prefix="dw-") as folder:
        async with SqliteBroker(f"sqlite://{folder}/queue.db") as broker, gateway(broker, store) as running:
            await broker.create_queue("echo")
            headers = {**KEY, "prefer": "respond-async, wait=1"}
            with nobody_may_write(broker):
                refused = await running.predict(json={"input": 1}, headers=headers)
            problem(refused, 503, "broker-unavailable")
            async with serving(broker, store=store) as worker:
                response = await running.predict(json={"input": 1}, headers={**KEY, "prefer": "wait=20"})
            assert (response.status_code, response.json()["output"]) == (200, 1)
            assert len(worker.requests) == 1


async def test_bytes_are_equal_too_and_so_are_failures(broker, store):
    async with gateway(broker, store) as running:
        async with serving(broker, respond=output(b"\x89PNG" * 100_000, "image/png"), store=store) as worker:
            first = await running.predict(content=b"1", headers={**KEY, **BYTES})
            second = await running.predict(content=b"1", headers={**KEY, **BYTES})
        async with serving(broker, "bad", respond=failure("model-error", "no"), store=store) as bad:
            broken = [await running.predict("bad", content=b"1", headers={**KEY, **BYTES}) for _ in range(2)]
    assert first.content == second.content == b"\x89PNG" * 100_000
    assert broken[0].content == broken[1].content
    problem(broken[0], 500, "model-error")
    assert (len(worker.requests), len(bad.requests)) == (1, 1)


async def test_an_output_too_long_for_an_object_is_streamed_to_each_of_them(broker, store):
    long = bytes(range(256)) * 10_000
    async with serving(broker, respond=output(long, "a/b"), store=store), gateway(broker, store) as running:
        responses = await asyncio.gather(*(running.predict(content=b"1", headers={**KEY, **BYTES}) for _ in range(5)))
    assert [response.content == long for response in responses] == [True] * 5


@pytest.mark.parametrize(
    "other",
    [
        {"json": {"input": 2}},
        {"content": b'{"input":1}', "headers": {"content-type": "application/json; charset=utf-8"}},
        {"json": {"input": 1, "priority": 1}},
    ],
)
async def test_the_same_key_for_another_request_is_409_and_nothing_is_queued(broker, store, other):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        headers = {**KEY, "prefer": "respond-async"}
        assert (await running.predict(json={"input": 1}, headers=headers)).status_code == 202
        response = await running.predict(**{**other, "headers": {**headers, **other.get("headers", {})}})
    problem(response, 409, "idempotency-conflict")
    assert (await broker.stats("echo")).ready == 1


async def test_each_tenant_and_model_has_keys_of_its_own(broker, store):
    async with (
        serving(broker, store=store) as one,
        serving(broker, "other", store=store) as other,
        gateway(broker, store) as running,
    ):
        for model, tenant in (("echo", "ann"), ("echo", "bob"), ("other", "ann"), ("echo", None)):
            headers = {**KEY, **({"dumbwaiter-tenant": tenant} if tenant else {})}
            assert (
                await running.predict(model, json={"input": f"{model}{tenant}"}, headers=headers)
            ).status_code == 200
    assert (len(one.requests), len(other.requests)) == (3, 1)


async def test_put_is_post_with_the_key_of_the_path_and_get_finds_it(broker, store):
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        path = "/v1/models/echo/predictions/photo-17"
        put = await running.http.put(path, json={"input": 1})
        posted = await running.predict(json={"input": 1}, headers={"idempotency-key": "photo-17"})
        got = await running.http.get(path)
        assert put.content == posted.content
        assert got.json() == put.json()
        assert len(worker.requests) == 1
        problem(await running.http.get("/v1/models/echo/predictions/nobody"), 404, "unknown-prediction")
        both = await running.http.put(path, json={"input": 1}, headers={"idempotency-key": "other"})
        problem(both, 400, "conflicting-idempotency-key")
        wrong = await running.http.request("DELETE", path)
        problem(wrong, 405, "method-not-allowed")
        assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT"}


@pytest.mark.parametrize("key", ["", "k" * 256, "a\tb", "\x85"])
async def test_a_key_that_cannot_be_one_is_400(broker, store, key):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        headers = [(b"idempotency-key", key.encode("latin-1"))]
        problem(await running.predict(json={"input": 1}, headers=headers), 400, "invalid-idempotency-key")


async def test_a_key_of_the_path_may_be_percent_encoded_but_not_endless(broker, store):
    async with serving(broker, store=store), gateway(broker, store) as running:
        path = "/v1/models/echo/predictions/"
        assert (await running.http.put(path + "a%20b%C3%A4", json={"input": 1})).status_code == 200
        problem(await running.http.put(path + "k" * 5000, json={"input": 1}), 400, "invalid-idempotency-key")
        problem(await running.http.get(path + "%00"), 400, "invalid-idempotency-key")


async def test_a_request_that_was_accepted_and_never_sent_is_sent_by_the_next_try(broker, store):
    """What a gateway leaves that dies between the two: the acceptance, and nothing in the queue."""
    await broker.create_queue("echo")

    class Deaf:
        def __init__(self, inner):
            self._inner = inner
            self.deaf = True

        def __getattr__(self, name):
            return getattr(self._inner, name)

        async def send(self, queue, messages, *, delay=0.0):
            if self.deaf:
                raise ConnectionError("killed here")
            await self._inner.send(queue, messages, delay=delay)

    deaf = Deaf(broker)
    async with gateway(deaf, store) as dying, gateway(broker, store) as other:
        response = await dying.predict(json={"input": 1}, headers={**KEY, "prefer": "respond-async"})
        assert response.status_code == 500
        accepted = await find_acceptance(store, None, "echo", "order-17")
        async with serving(broker, store=store) as worker:
            again = await other.predict(json={"input": 1}, headers=KEY)
    assert (again.status_code, again.json()["id"]) == (200, accepted.id)
    assert [request.id for request in worker.requests] == [accepted.id]


async def test_a_large_body_that_was_accepted_lies_in_the_store_once_however_often_it_is_sent(broker, store):
    await broker.create_queue("echo")
    body = bytes(100_000)
    async with gateway(broker, store, claim_threshold=1000) as one, gateway(broker, store, claim_threshold=1000) as two:
        asking = [
            asyncio.create_task((one, two)[n % 2].predict(content=body, headers={**KEY, **BYTES})) for n in range(6)
        ]
        await arrived(broker)

        async def only_one_is_left():
            return len(await store.list("claims/")) == 1

        await eventually(only_one_is_left)
        async with serving(broker, store=store) as worker:
            responses = await asyncio.gather(*asking)

            async def none_is_left():
                return not await store.list("claims/")

            await eventually(none_is_left, within=20)
    assert {(response.status_code, response.content) for response in responses} == {(200, body)}
    assert len(worker.requests) == 1


async def test_a_body_whose_claim_is_gone_is_replaced_by_the_one_sent_again(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, claim_threshold=1000) as running:
        headers = {**KEY, **BYTES}
        first = await running.predict(content=bytes(5000), headers={**headers, "prefer": "respond-async"})
        (delivery,) = await broker.receive("echo", max_messages=1, max_wait=1.0)
        await broker.complete([delivery])
        await broker.purge("echo")
        for key in await store.list("claims/"):
            await store.delete(key)
        await running.predict(content=bytes(5000), headers={**headers, "prefer": "respond-async"})
    assert first.status_code == 202
    assert len(await store.list("claims/")) == 1


async def test_a_retry_leaves_the_body_that_a_dead_letter_needs_for_its_redrive(broker, store):
    body = bytes(100_000)
    async with gateway(broker, store, claim_threshold=1000) as running:
        await broker.create_queue("echo")
        headers = {**KEY, **BYTES, "prefer": "respond-async"}
        assert (await running.predict(content=body, headers=headers)).status_code == 202
        (delivery,) = await broker.receive("echo", max_messages=1, max_wait=1.0)
        said = failed(delivery.message, Failure(code="model-error", message="no"))
        await save_result(store, delivery.message.id, said, threshold=1000)
        await broker.dead_letter([delivery], reason="model-error")
        for _ in range(2):
            again = await running.predict(content=body, headers={**KEY, **BYTES})
            problem(again, 500, "model-error")
        assert [f"blob:{key}" for key in await store.list("claims/")] == [delivery.message.data_ref]
        assert await redrive(broker, store, "echo") == 1
        async with serving(broker, store=store):
            assert (await running.predict(content=body, headers={**KEY, **BYTES})).content == body


async def test_a_retry_drops_the_body_that_it_brought_when_there_is_a_result_already(broker, store):
    body = bytes(100_000)
    async with serving(broker, store=store), gateway(broker, store, claim_threshold=1000) as running:
        for _ in range(3):
            assert (await running.predict(content=body, headers={**KEY, **BYTES})).content == body

        async def none_is_left():
            return not await store.list("claims/")

        await eventually(none_is_left)


async def test_a_damaged_acceptance_or_result_is_500_and_no_invitation_to_ask_again(broker, store):
    async with serving(broker, store=store), gateway(broker, store) as running:
        path = "/v1/models/echo/predictions/order-17"
        first = await running.http.put(path, json={"input": 1})
        await store.put(result_key(first.json()["id"]), b"damaged")
        for response in (
            await running.http.put(path, json={"input": 1}),
            await running.http.get(path),
            await running.http.get(f"/v1/predictions/{first.json()['id']}/events"),
        ):
            told = problem(response, 500, "result-damaged")
            assert "retry-after" not in response.headers
            assert "is damaged" in told["detail"]
            assert "file:" not in told["detail"]
        (place,) = await store.list("acceptances/")
        await store.put(place, b"damaged")
        problem(await running.http.put(path, json={"input": 1}), 500, "result-damaged")
        problem(await running.http.get(path), 500, "result-damaged")


async def test_a_deadline_is_not_later_than_its_answer_is_kept(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, results_kept_for=100.0) as running:
        for seconds in (50.0, 5000.0):
            headers = {"prefer": "respond-async", "dumbwaiter-deadline": str(time.time() + seconds)}
            assert (await running.predict(json={"input": 1}, headers=headers)).status_code == 202
        deliveries = await broker.receive("echo", max_messages=2, max_wait=1.0)
    left = [delivery.message.deadline - delivery.message.time for delivery in deliveries]
    assert 40.0 < left[0] < 60.0
    assert left[1] == pytest.approx(100.0, abs=0.01)


async def test_no_answer_within_patience_is_504_and_the_next_try_gets_it(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        problem(await running.predict(json={"input": 1}, headers={**KEY, "prefer": "wait=1"}), 504, "no-answer-in-time")
        async with serving(broker, store=store) as worker:
            response = await running.predict(json={"input": 1}, headers=KEY)
    assert (response.status_code, response.json()["output"]) == (200, 1)
    assert len(worker.requests) == 1


async def test_whoever_hangs_up_leaves_the_others_their_answer(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        quitter = asyncio.create_task(running.predict(json={"input": 1}, headers=KEY))
        await arrived(broker)
        other = asyncio.create_task(running.predict(json={"input": 1}, headers=KEY))
        await asyncio.sleep(0.1)
        quitter.cancel()
        async with serving(broker, store=store) as worker:
            assert (await other).status_code == 200
    assert len(worker.requests) == 1


@pytest.mark.parametrize("content_type", ["a/b", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize("nbytes", [10, 300_000])
async def test_a_body_is_the_same_whether_its_length_is_declared_or_not(broker, store, content_type, nbytes):
    body = b"x" * nbytes

    async def chunks():
        yield body[:5]
        yield body[5:]

    headers = {**KEY, **({"content-type": content_type} if content_type else {})}
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        responses = [await running.predict(content=content, headers=headers) for content in (body, chunks())]
    assert [response.status_code for response in responses] == [200, 200]
    assert responses[0].content == responses[1].content
    assert len(worker.requests) == 1


async def test_a_form_is_the_same_request_whatever_its_boundary(broker, store):
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        responses = [
            await running.predict(files={"input": ("a.png", b"\x89PNG", "image/png")}, headers=KEY) for _ in range(2)
        ]
        other = await running.predict(files={"input": ("a.png", b"\x89PNX", "image/png")}, headers=KEY)
    assert responses[0].content == responses[1].content == b"\x89PNG"
    problem(other, 409, "idempotency-conflict")
    assert len(worker.requests) == 1


async def test_the_answer_that_a_worker_saved_first_is_told_not_the_one_in_its_reply(broker, store):
    """A worker may answer an inbox with what it computed, while another one's result was first."""
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        asking = asyncio.create_task(running.predict(json={"input": 1}, headers=KEY))
        await arrived(broker)
        (delivery,) = await broker.receive("echo", max_messages=1, max_wait=1.0)
        request = delivery.message
        winner = succeeded(Message(id=request.id), body=b'"first"', content_type="application/json", timings=TIMINGS)
        await save_result(store, request.id, winner, threshold=1000)
        loser = succeeded(request, body=b'"second"', content_type="application/json", timings=TIMINGS)
        await broker.reply(request.reply_to, [loser])
        assert (await asking).json()["output"] == "first"


async def fails(running, broker, store):
    """Have the gateway see that no worker can load the model."""
    await announce(store, WorkerStatus(worker="w1", model="echo", state="failing", reason="no weights"))

    async def is_failing():
        return (await running.predict(content=b"1", headers=BYTES)).status_code == 503

    await eventually(is_failing)


@pytest.mark.parametrize("headers", [KEY, {"prefer": "respond-async"}, {"accept": "text/event-stream"}])
async def test_what_is_refused_was_never_accepted_and_leaves_nothing(broker, store, headers):
    await broker.create_queue("echo")
    async with gateway(broker, store, claim_threshold=1000) as running:
        await fails(running, broker, store)
        waiting = (await broker.stats("echo")).ready
        for body in (bytes(10), bytes(5000)):
            refused = await running.predict(content=body, headers={**BYTES, **headers})
            problem(refused, 503, "model-failing")
            assert "x-prediction-id" not in refused.headers, "it would look as if it still waited"
        problem(await running.http.get("/v1/models/echo/predictions/order-17"), 404, "unknown-prediction")
    assert (await broker.stats("echo")).ready == waiting
    assert await store.list("acceptances/") == []
    assert await store.list("claims/") == []


async def test_what_was_accepted_keeps_its_body_and_its_answer_although_its_model_fails_since(broker, store):
    await broker.create_queue("echo")
    headers, body = {**KEY, **BYTES}, bytes(5000)
    async with gateway(broker, store, claim_threshold=1000) as running:
        first = await running.predict(content=body, headers={**headers, "prefer": "respond-async"})
        (claim,) = await store.list("claims/")
        await fails(running, broker, store)
        again = await running.predict(content=body, headers=headers)
        problem(again, 503, "model-failing")
        assert again.headers["x-prediction-id"] == first.json()["id"]
        problem(await running.predict(content=b"other", headers=headers), 409, "idempotency-conflict")
        assert await store.list("claims/") == [claim]
        request = Message(id=first.json()["id"])
        answer = succeeded(request, body=b"7", content_type="application/json", timings=TIMINGS)
        await save_result(store, request.id, answer, threshold=1000)
        assert (await running.predict(content=body, headers=headers)).json()["output"] == 7


def looking_for_results(store, monkeypatch):
    """The results that are asked for from now on: what comes again is sent right after that."""
    exists, looked = store.exists, []

    async def witnessed(key):
        looked.append(key)
        return await exists(key)

    monkeypatch.setattr(store, "exists", witnessed)
    return looked


class SlowToSend:
    """*broker*, whose sends wait until it is *well*; *begun* says that one does."""

    def __init__(self, broker):
        self.well, self.begun = asyncio.Event(), asyncio.Event()
        self._send = broker.send
        broker.send = self.send

    async def send(self, queue, messages, *, delay=0.0):
        self.begun.set()
        await self.well.wait()
        await self._send(queue, messages, delay=delay)


@pytest.mark.parametrize(
    ("comes", "prefer", "code"),
    [
        ("again", "wait=1", "broker-unavailable"),
        ("again", "wait=20", "shutting-down"),
        ("again", "respond-async", "shutting-down"),
        ("first", "wait=20", "shutting-down"),
        ("first", "respond-async", "shutting-down"),
    ],
)
async def test_what_a_gateway_never_sends_leaves_the_body_that_another_has_sent(
    store, monkeypatch, comes, prefer, code
):
    """Two gateways before one queue. The broker of one is slow, and it stops or its caller has waited long enough."""
    headers, body = {**KEY, **BYTES}, bytes(5000)
    async with open_broker("memory://shared") as broker, open_broker("memory://shared") as slow:
        await broker.create_queue("echo")
        sending = SlowToSend(slow)
        async with gateway(broker, store, claim_threshold=1000) as one:
            sent = one.predict(content=body, headers={**headers, "prefer": "respond-async"})
            if comes == "again":
                await sent
            async with gateway(slow, store, claim_threshold=1000, grace=0.2) as other:
                ahead = asyncio.create_task(other.predict(content=b"1", headers={**BYTES, "prefer": "respond-async"}))
                await sending.begun.wait()
                looked = looking_for_results(store, monkeypatch)
                unsent = asyncio.create_task(other.predict(content=body, headers={**headers, "prefer": prefer}))
                await eventually((lambda: looked) if comes == "again" else (lambda: store.list("acceptances/")))
                if comes == "first":
                    assert (await sent).status_code == 202
                if code == "shutting-down":
                    other.stop.set()
                problem(await unsent, 503, code)
                sending.well.set()
                await ahead
        accepted = await find_acceptance(store, None, "echo", KEY["idempotency-key"])
        async with serving(broker, store=store) as worker, gateway(broker, store) as one:
            output = await one.http.get(f"/v1/predictions/{accepted.id}/output", headers={"prefer": "wait=20"})
        assert output.content == body
        assert accepted.id in {request.id for request in worker.requests}


@pytest.mark.parametrize(("change", "code"), [("body", "idempotency-conflict"), ("webhook", "forbidden-url")])
async def test_a_large_body_whose_request_is_not_accepted_is_dropped(broker, store, change, code):
    await broker.create_queue("echo")
    async with gateway(broker, store, claim_threshold=1000) as running:
        form = {"files": {"input": ("a.png", b"\x89PNG" * 1000, "image/png")}}
        headers = {**KEY, "prefer": "respond-async"}
        if change == "body":
            assert (await running.predict(**form, headers=headers)).status_code == 202
            form = {"files": {"input": ("a.png", b"\x89PNX" * 1000, "image/png")}}
        else:
            form["data"] = {"webhook": "http://10.0.0.1/"}
        before = await store.list("claims/")
        refused = await running.predict(**form, headers=headers)
        assert refused.json()["code"] == code
        assert await store.list("claims/") == before


@pytest.mark.parametrize(
    ("headers", "durable"),
    [
        (BYTES, False),
        ({**BYTES, **KEY}, True),
        ({**BYTES, "prefer": "respond-async"}, True),
        ({"content-type": "application/json", **KEY}, True),
        ({"content-type": "application/json", "prefer": "respond-async"}, True),
    ],
)
async def test_the_body_of_what_is_kept_survives_a_power_cut(broker, store, monkeypatch, headers, durable):
    put, put_stream, written = store.put, store.put_stream, []

    def witness(verb):
        async def witnessed(key, data, *, durable=True):
            if key.startswith("claims/"):
                written.append(durable)
            return await verb(key, data, durable=durable)

        return witnessed

    async with serving(broker, store=store), gateway(broker, store, claim_threshold=1000) as running:
        monkeypatch.setattr(store, "put", witness(put))
        monkeypatch.setattr(store, "put_stream", witness(put_stream))
        body = b'{"input": "%s"}' % (b"x" * 5000)
        assert (await running.predict(content=body, headers=headers)).status_code in {200, 202}
    assert written[:1] == [durable]
