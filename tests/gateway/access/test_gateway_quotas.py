"""How much one API key may ask: so many a second, and so many in flight."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time

import pytest
from gateway_running import gateway, raw_connection

from dumbwaiter.answers import succeeded
from dumbwaiter.asking import Asker
from dumbwaiter.blobs.acceptances import Acceptance, accept
from dumbwaiter.blobs.cards import ModelCard, save_card
from dumbwaiter.blobs.keyring import mint, save_key
from dumbwaiter.blobs.results import save_result
from dumbwaiter.errors import BlobError
from dumbwaiter.gateway.access import quotas as quotas_module
from dumbwaiter.gateway.access.quotas import NO_QUOTA, Quotas
from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.message import Message, Timings
from dumbwaiter.testing import eventually
from echo_worker import output, serving

pytestmark = pytest.mark.anyio


def key_with(**limits):
    return mint(tenant=None, name="", now=time.time(), **limits)[0]


async def headers_of_key(store, **limits):
    key, token = mint(tenant=None, name="", now=time.time(), **limits)
    await save_key(store, key)
    return {"content-type": "a/b", "authorization": f"Bearer {token}"}


async def refusal(awaitable):
    with pytest.raises(ProblemError) as caught:
        await awaitable
    return caught.value.problem


async def test_above_its_rate_a_key_gets_429_with_the_time_to_wait_and_others_do_not(broker, store):
    limited = await headers_of_key(store, rate=1 / 3600, burst=2.0)
    other = await headers_of_key(store)
    async with serving(broker) as worker, gateway(broker, store, auth="on") as running:
        responses = [await running.predict(content=b"1", headers=limited) for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 200, 429]
        refused = responses[-1]
        assert refused.json()["code"] == "rate-limited"
        assert 3590 < int(refused.headers["retry-after"]) <= 3600
        assert (await running.predict(content=b"1", headers=other)).status_code == 200
    assert len(worker.requests) == 3


async def test_reading_costs_a_tenth_of_asking(store):
    quotas, key = Quotas(store), key_with(rate=1 / 3600, burst=1.0)
    for _ in range(10):
        quotas.charge(key, "GET")
    with pytest.raises(ProblemError):
        quotas.charge(key, "POST")


async def test_cancelling_costs_no_more_than_reading(store):
    quotas, key = Quotas(store), key_with(rate=1 / 3600, burst=1.0)
    for _ in range(10):
        quotas.charge(key, "POST", "/v1/predictions/abc/cancel")
    with pytest.raises(ProblemError):
        quotas.charge(key, "POST", "/v1/models/cancel/predictions")


async def test_a_key_without_limits_is_never_asked_to_wait(store):
    quotas, key = Quotas(store), key_with()
    for _ in range(1000):
        quotas.charge(key, "POST")
    assert await quotas.occupy(key) is NO_QUOTA


async def test_whoever_waits_takes_a_place_until_the_answer_is_there(broker, store):
    await broker.create_queue("echo")
    limited = await headers_of_key(store, in_flight=2)
    async with gateway(broker, store, auth="on") as running:
        waiting = [asyncio.create_task(running.predict(content=b"1", headers=limited)) for _ in range(2)]

        async def both_wait():
            return (await broker.stats("echo")).ready == 2

        await eventually(both_wait)
        refused = await running.predict(content=b"1", headers=limited)
        assert (refused.status_code, refused.json()["code"]) == (429, "quota-exceeded")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await running.http.get("/v1/models", headers=limited)).status_code == 200
        async with serving(broker):
            assert [(await task).status_code for task in waiting] == [200, 200]
            assert (await running.predict(content=b"1", headers=limited)).status_code == 200


PREDICT = "/v1/models/echo/predictions", b"1", "a/b"
INFER = (
    "/v2/models/echo/infer",
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}',
    "application/json",
)


@contextlib.asynccontextmanager
async def hang_up_on(running, headers, path, body, content_type):
    """Ask, and leave when the request lies in the queue."""
    head = {**headers, "content-type": content_type, "content-length": str(len(body)), "host": "localhost"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    async with raw_connection(running.port) as (_, writer):
        writer.write(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        yield


@pytest.mark.parametrize(("path", "body", "content_type"), [PREDICT, INFER], ids=["predictions", "infer"])
async def test_whoever_hangs_up_keeps_the_place_until_the_answer_is_there(broker, store, path, body, content_type):
    array = {"input": {"name": "x", "kind": "array", "schema": {}}, "output": {"kind": "array"}}
    await save_card(store, ModelCard(name="echo", signature=array))
    await broker.create_queue("echo")
    limited = await headers_of_key(store, in_flight=1)
    answered = output(b"x", "a/b")
    async with gateway(broker, store, auth="on") as running:
        asker = the_asker()
        async with hang_up_on(running, limited, path, body, content_type):
            await eventually(lambda: has_ready(broker, 1))
        await eventually(lambda: not asker.waiting())
        for _ in range(3):
            refused = await running.predict(content=b"1", headers=limited)
            assert (refused.status_code, refused.json()["code"]) == (429, "quota-exceeded")
        assert await has_ready(broker, 1)
        async with serving(broker, respond=answered):
            await eventually(lambda: asker.late == 1)
            assert (await running.predict(content=b"1", headers=limited)).status_code == 200


async def test_whoever_hangs_up_keeps_the_place_no_longer_than_the_request_is_worth_something(broker, store):
    await broker.create_queue("echo")
    limited = {**await headers_of_key(store, in_flight=1), "prefer": "wait=1"}
    async with gateway(broker, store, auth="on") as running:
        async with hang_up_on(running, limited, *PREDICT):
            await eventually(lambda: has_ready(broker, 1))
        assert (await running.predict(content=b"1", headers=limited)).status_code == 429

        async def is_let_in():
            return (await running.predict(content=b"1", headers=limited)).status_code == 504

        await eventually(is_let_in)


async def has_ready(broker, count):
    return (await broker.stats("echo")).ready == count


def the_asker():
    return next(thing for thing in gc.get_objects() if type(thing) is Asker and not thing._closed)


async def test_a_place_is_free_again_however_its_request_ended(store):
    quotas, key = Quotas(store), key_with(in_flight=1)
    for error in (ValueError, asyncio.CancelledError, ProblemError):
        with pytest.raises(error), await quotas.occupy(key):
            raise error.__new__(error)
    with await quotas.occupy(key):
        assert (await refusal(quotas.occupy(key))).code == "quota-exceeded"


async def test_a_deferred_prediction_keeps_its_place_until_its_result_is_there(store, monkeypatch):
    monkeypatch.setattr(quotas_module, "LOOK_EVERY", 0.0)
    quotas, key = Quotas(store), key_with(in_flight=2)
    requests = [Message(id=f"request-{number}", body=b"x") for number in range(2)]
    for request in requests:
        with await quotas.occupy(key) as place:
            place.remember(request.id)
    assert (await refusal(quotas.occupy(key))).status == 429
    answer = succeeded(requests[0], body=b"y", content_type="a/b", timings=Timings())
    await save_result(store, requests[0].id, answer, threshold=1000)
    with await quotas.occupy(key):
        assert (await refusal(quotas.occupy(key))).status == 429


@pytest.mark.parametrize(
    ("prefer", "accept"), [("respond-async", "*/*"), ("respond-async, wait=1", "*/*"), ("wait=1", "text/event-stream")]
)
async def test_a_key_with_a_deferred_prediction_in_flight_may_ask_again_when_that_is_answered(
    broker, store, monkeypatch, prefer, accept
):
    monkeypatch.setattr(quotas_module, "LOOK_EVERY", 0.0)
    await broker.create_queue("echo")
    headers = {**await headers_of_key(store, in_flight=1), "prefer": prefer}
    async with gateway(broker, store, auth="on") as running:
        path = "/v1/models/echo/predictions"
        async with running.http.stream("POST", path, content=b"1", headers={**headers, "accept": accept}) as first:
            assert first.status_code == (202 if accept == "*/*" else 200)
            if accept == "*/*":
                await first.aread()
        refused = await running.predict(content=b"1", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (429, "quota-exceeded")
        assert (await broker.stats("echo")).ready == 1
        async with serving(broker, store=store):

            async def is_let_in():
                return (await running.predict(content=b"1", headers=headers)).status_code in (200, 202)

            await eventually(is_let_in)


@pytest.mark.parametrize("prefer", ["respond-async", "wait=30"])
async def test_those_who_ask_the_same_once_share_a_place_whoever_comes_first(broker, store, prefer):
    await broker.create_queue("echo")
    headers = {**await headers_of_key(store, in_flight=3), "prefer": prefer}
    once = {**headers, "idempotency-key": "order-17"}
    async with gateway(broker, store, auth="on") as running:
        asking = [asyncio.create_task(running.predict(content=b"1", headers=once)) for _ in range(60)]

        async def has_come():
            return (await broker.stats("echo")).ready

        await eventually(has_come)
        if prefer == "respond-async":
            assert {(await task).status_code for task in asking} == {202}
            others = [await running.predict(content=b"2", headers=headers) for _ in range(3)]
            assert [response.status_code for response in others] == [202, 202, 429], "60 of the same take one place"
        async with serving(broker, store=store):
            responses = await asyncio.gather(*asking)
            assert {response.status_code for response in responses} == {202 if prefer == "respond-async" else 200}
            if prefer == "wait=30":
                assert len({response.content for response in responses}) == 1
                # All of them have left: three others find a place each.
                more = await asyncio.gather(*(running.predict(content=b"3", headers=headers) for _ in range(3)))
                assert [response.status_code for response in more] == [200] * 3


async def test_what_is_answered_is_told_again_while_every_place_is_taken(broker, store):
    headers = await headers_of_key(store, in_flight=2)
    once = {**headers, "idempotency-key": "order-17"}
    async with gateway(broker, store, auth="on") as running:
        async with serving(broker, store=store):
            first = await running.predict(content=b"1", headers=once)
        assert first.status_code == 200
        for _ in range(2):
            deferred = await running.predict(content=b"2", headers={**headers, "prefer": "respond-async"})
            assert deferred.status_code == 202
        again = await asyncio.gather(*(running.predict(content=b"1", headers=once) for _ in range(5)))
        assert {(response.status_code, response.content) for response in again} == {(200, first.content)}
        other_body = await running.predict(content=b"other", headers=once)
        assert (other_body.status_code, other_body.json()["code"]) == (409, "idempotency-conflict")
        new = await running.predict(content=b"1", headers={**headers, "idempotency-key": "order-18"})
        assert (new.status_code, new.json()["code"]) == (429, "quota-exceeded")


async def test_a_key_that_was_accepted_elsewhere_and_is_not_answered_needs_a_place_here(store):
    quotas, key = Quotas(store), key_with(in_flight=1)
    await accept(store, None, "echo", "order-17", Acceptance(id="elsewhere", digest="", created_at=time.time()))
    with await quotas.occupy(key):
        assert (await refusal(quotas.occupy(key, once=("echo", "order-17")))).code == "quota-exceeded"
    with await quotas.occupy(key, once=("echo", "order-17")):
        assert (await refusal(quotas.occupy(key))).code == "quota-exceeded"


async def test_a_shared_place_is_free_when_the_last_one_has_left_and_not_before(store):
    quotas, key = Quotas(store), key_with(in_flight=1)
    first, second = [await quotas.occupy(key, once=("echo", "a")) for _ in range(2)]
    with second:
        with first:
            pass
        assert (await refusal(quotas.occupy(key, once=("echo", "b")))).code == "quota-exceeded"
        assert (await refusal(quotas.occupy(key, once=("other", "a")))).code == "quota-exceeded"
    with await quotas.occupy(key, once=("echo", "b")):
        pass
    assert not quotas._usages[key.id].shared


async def test_a_deferred_prediction_is_joined_and_counts_once_until_its_result_is_there(store, monkeypatch):
    monkeypatch.setattr(quotas_module, "LOOK_EVERY", 0.0)
    quotas, key, once = Quotas(store), key_with(in_flight=2), ("echo", "a")
    request = Message(id="request", body=b"x")
    for _ in range(3):
        with await quotas.occupy(key, once=once) as place:
            place.remember(request.id)
    with await quotas.occupy(key):
        assert (await refusal(quotas.occupy(key))).status == 429
        joined = await quotas.occupy(key, once=once)
        with joined:  # its result comes meanwhile
            answer = succeeded(request, body=b"y", content_type="a/b", timings=Timings())
            await save_result(store, request.id, answer, threshold=1000)
            with await quotas.occupy(key):
                assert (await refusal(quotas.occupy(key))).status == 429
    usage = quotas._usages[key.id]
    assert (usage.waiting, usage.deferred, usage.shared) == (0, {}, {})


async def test_a_key_that_outlives_its_prediction_holds_the_place_of_the_next_one(store, monkeypatch):
    monkeypatch.setattr(quotas_module, "LOOK_EVERY", 0.0)
    quotas, key, once = Quotas(store), key_with(in_flight=1), ("echo", "a")
    for id_ in ("old", "new"):
        with await quotas.occupy(key, once=once) as place:
            place.remember(id_)
    old = succeeded(Message(id="old", body=b"x"), body=b"y", content_type="a/b", timings=Timings())
    await save_result(store, "old", old, threshold=1000)
    assert (await refusal(quotas.occupy(key))).status == 429
    assert list(quotas._usages[key.id].deferred) == ["new"]


async def test_the_acceptance_is_looked_for_only_when_every_place_is_taken(store, monkeypatch):
    looks = []

    async def counting(*asked):
        looks.append(asked)
        raise BlobError("down")

    monkeypatch.setattr(quotas_module, "find_acceptance", counting)
    quotas, key = Quotas(store), key_with(in_flight=2)
    with await quotas.occupy(key, once=("echo", "a")), await quotas.occupy(key, once=("echo", "b")):
        with await quotas.occupy(key, once=("echo", "a")):
            assert looks == []
        assert (await refusal(quotas.occupy(key, once=("echo", "c")))).code == "quota-exceeded"
    assert len(looks) == 1


@pytest.mark.parametrize("rate", [1.0, 2.5])
async def test_a_refusal_says_in_english_how_often_a_key_may_ask(store, rate):
    quotas, key = Quotas(store), key_with(rate=rate, burst=1.0)
    quotas.charge(key, "POST")
    with pytest.raises(ProblemError, match="1 request a second" if rate == 1 else "2.5 requests a second"):
        quotas.charge(key, "POST")


async def test_the_store_is_asked_at_most_once_a_second_however_often_a_key_is_refused(store, monkeypatch):
    looks = []

    async def counting(store, id_):
        looks.append(id_)
        return False

    monkeypatch.setattr(quotas_module, "has_result", counting)
    quotas, key = Quotas(store), key_with(in_flight=3)
    for number in range(3):
        with await quotas.occupy(key) as place:
            place.remember(f"request-{number}")
    for problem in await asyncio.gather(*(refusal(quotas.occupy(key)) for _ in range(50))):
        assert problem.status == 429
    assert len(looks) == 3


async def test_while_the_store_is_down_places_stay_taken(store, monkeypatch):
    async def down(store, id_):
        raise BlobError("down")

    monkeypatch.setattr(quotas_module, "has_result", down)
    quotas, key = Quotas(store), key_with(in_flight=1)
    with await quotas.occupy(key) as place:
        place.remember("request")
    assert (await refusal(quotas.occupy(key))).status == 429


async def test_a_prediction_that_was_lost_does_not_hold_its_place_for_ever(store, monkeypatch):
    monkeypatch.setattr(quotas_module, "LOOK_EVERY", 0.0)
    quotas, key = Quotas(store), key_with(in_flight=1)
    with await quotas.occupy(key) as place:
        place.remember("lost")
    assert (await refusal(quotas.occupy(key))).status == 429
    monkeypatch.setattr(quotas_module, "FORGOTTEN_AFTER", 0.0)
    with await quotas.occupy(key):
        pass


async def test_keys_that_are_gone_leave_nothing_behind(store):
    quotas, key = Quotas(store), key_with(rate=1.0, burst=1.0)
    quotas.charge(key, "POST")
    quotas.keep_only({})
    assert not quotas._usages
