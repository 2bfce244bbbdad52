"""Uploads apart from predictions: to the store itself where it can sign, and only what is one's own can be named."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from gateway_running import gateway
from problems_seen import problem

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.keyring import mint, save_key
from dumbwaiter.blobs.retention import sweep
from dumbwaiter.gateway.predictions import presigned
from dumbwaiter.testing import eventually
from echo_worker import serving
from store_servers import SERVER_KINDS

pytestmark = pytest.mark.anyio

KINDS = ["file", "memory", *SERVER_KINDS]
PICTURE = bytes(range(256)) * 2000


@pytest.fixture
def store(request, tmp_path, monkeypatch, store_server):
    kind = getattr(request, "param", "file")
    if kind in {"file", "memory"}:
        return open_store(f"file://{tmp_path}/blobs" if kind == "file" else f"memory:{tmp_path}")
    server = store_server(kind)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_store(server.new_url())


async def made(running, headers=None):
    response = await running.http.post("/v1/uploads", headers=headers)
    assert response.status_code == 201, response.text
    return response.json()


async def put(running, upload, body=PICTURE, headers=None):
    """As a client does that knows nothing but what it was told."""
    url = running.http.base_url.join(upload["url"])
    sent = {"content-type": "", **upload["headers"], **(headers or {})}
    async with httpx.AsyncClient(timeout=30) as http:
        return await http.request(upload["method"], url, content=body, headers=sent)


def ask(running, upload, headers=None, **more):
    named = {**upload["input"], "content_type": "image/x-picture"}
    return running.http.post("/v1/models/echo/predictions", json={"input": named, **more}, headers=headers)


async def nothing_below(store, prefix):
    return not await store.list(prefix)


async def tenant_key(store, tenant):
    key, token = mint(tenant=tenant, name="", now=time.time())
    await save_key(store, key)
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("store", KINDS, indirect=True)
async def test_what_was_uploaded_is_the_input_of_a_prediction(broker, store):
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        upload = await made(running)
        assert upload["url"].startswith("http" if store.url.startswith(("s3:", "az:")) else "/v1/uploads/")
        assert (await put(running, upload)).status_code in {200, 201, 204}
        answer = await ask(running, upload)
        assert (answer.headers["content-type"], answer.content) == ("image/x-picture", PICTURE)
        [request] = worker.requests
        assert request.body == b""
        assert request.data_ref.startswith("blob:claims/")


@pytest.mark.parametrize("store", KINDS, indirect=True)
async def test_an_upload_that_is_put_again_changes_no_prediction_that_was_accepted(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        upload = await made(running)
        await put(running, upload, b"first")
        first = await ask(running, upload, {"prefer": "respond-async"})
        await put(running, upload, b"second")
        second = await ask(running, upload, {"prefer": "respond-async"})
        async with serving(broker, store=store):
            for accepted, body in ((first, b"first"), (second, b"second")):
                output = f"/v1/predictions/{accepted.json()['id']}/output"
                assert (await running.http.get(output, headers={"prefer": "wait=20"})).content == body


@pytest.mark.parametrize("store", KINDS, indirect=True)
async def test_with_a_key_the_same_upload_is_the_same_request_and_one_with_other_bytes_is_not(broker, store):
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        upload, key = await made(running), {"idempotency-key": "order-17"}
        await put(running, upload, b"first")
        answers = [await ask(running, upload, key) for _ in range(2)]
        assert [answer.content for answer in answers] == [b"first"] * 2
        await put(running, upload, b"other")
        problem(await ask(running, upload, key), 409, "idempotency-conflict")
        assert (await ask(running, upload, {"idempotency-key": "order-18"})).content == b"other"
        await eventually(lambda: nothing_below(store, "claims/"))
    assert len(worker.requests) == 2


@pytest.mark.parametrize("gone", ["its time", "its bytes"])
async def test_with_a_key_the_answer_outlives_the_upload(broker, store, monkeypatch, gone):
    async with gateway(broker, store) as running:
        await broker.create_queue("echo")
        upload, key = await made(running), {"idempotency-key": "order-17"}
        await put(running, upload)
        accepted = await ask(running, upload, {**key, "prefer": "respond-async"})
        if gone == "its time":
            monkeypatch.setattr(presigned, "NAMED_WITHIN", 0.0)
        else:
            await store.delete(f"uploads/{upload['id']}")
        async with serving(broker, store=store) as worker:
            answers = [await ask(running, upload, key) for _ in range(2)]
        assert [answer.content for answer in answers] == [PICTURE] * 2
        assert {request.id for request in worker.requests} == {accepted.json()["id"]}
        code = "unknown-upload" if gone == "its time" else "no-upload-yet"
        problem(await ask(running, upload, {"idempotency-key": "order-18"}), 404, code)
        problem(await ask(running, upload, key, priority=1), 404, code)
        problem(await ask(running, upload), 404, code)


async def test_what_lost_its_body_before_it_was_answered_cannot_be_asked_again_without_its_upload(
    broker, store, monkeypatch
):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        upload, key = await made(running), {"idempotency-key": "order-17"}
        await put(running, upload)
        await ask(running, upload, {**key, "prefer": "respond-async"})
        for claim in await store.list("claims/"):
            await store.delete(claim)
        monkeypatch.setattr(presigned, "NAMED_WITHIN", 0.0)
        problem(await ask(running, upload, key), 404, "unknown-upload")
    assert (await broker.stats("echo")).ready == 1


async def test_an_upload_that_is_written_over_while_it_is_claimed_is_refused_and_leaves_nothing(
    broker, store, monkeypatch
):
    await broker.create_queue("echo")
    copy = store.copy

    async def meanwhile(source, target):
        await copy(source, target)
        await store.put(source, b"other")

    async with gateway(broker, store) as running:
        upload = await made(running)
        await put(running, upload)
        monkeypatch.setattr(store, "copy", meanwhile)
        problem(await ask(running, upload, {"idempotency-key": "order-17"}), 409, "idempotency-conflict")
    assert await store.list("claims/") == await store.list("acceptances/") == []


@pytest.mark.parametrize("store", KINDS, indirect=True)
async def test_an_upload_that_is_too_large_is_refused_when_it_is_named_and_goes(broker, store):
    await broker.create_queue("echo")
    async with gateway(broker, store, body_limit=1000) as running:
        upload = await made(running)
        assert upload["limit"] == 1000
        told = await put(running, upload, bytes(1001))
        if store.url.startswith(("s3:", "az:")):  # which nothing can bound before
            problem(await ask(running, upload), 413, "body-too-large")
        else:
            problem(told, 413, "body-too-large")
        assert await store.list("uploads/") == await store.list("claims/") == []
        problem(await ask(running, upload), 404, "no-upload-yet")
        await put(running, upload, b"")
        problem(await ask(running, upload), 400, "empty-body")
        assert await store.list("claims/") == []


@pytest.mark.parametrize("store", ["file", "seaweedfs"], indirect=True)
async def test_another_tenant_can_neither_put_to_an_upload_nor_name_it(broker, store):
    ours, theirs = await tenant_key(store, "ours"), await tenant_key(store, "theirs")
    await broker.create_queue("echo")
    async with gateway(broker, store, auth="on") as running:
        upload = await made(running, ours)
        await put(running, upload, headers=ours if upload["url"].startswith("/") else None)
        problem(await ask(running, upload, theirs), 404, "unknown-upload")
        problem(await ask(running, upload, theirs, tenant="ours"), 403, "foreign-tenant")
        direct = f"/v1/uploads/{upload['id']}"
        problem(await running.http.put(direct, content=b"1", headers=theirs), 404, "unknown-upload")
        problem(await running.http.put(direct, content=b"1"), 401, "no-api-key")
        problem(await running.http.post("/v1/uploads"), 401, "no-api-key")
        accepted = await ask(running, upload, {**ours, "prefer": "respond-async"})
        assert accepted.status_code == 202


HOSTILE = ["", "x", "../results/x", "claims/x", "results/%2e%2e", "0" * 42, "v" * 42, "secrets/signing-key", "0" * 500]


async def test_no_text_but_an_id_that_was_given_out_names_anything(broker, store):
    await store.put("results/x", b"another's")
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        upload = await made(running)
        await put(running, upload)
        real = upload["id"]
        changed = [real[:i] + ("0" if real[i] != "0" else "1") + real[i + 1 :] for i in range(len(real))]
        for id_ in [*HOSTILE, *changed, real.upper(), real + " ", f"{real}.echo"]:
            problem(await ask(running, {"input": {"$upload": id_}}), 404, "unknown-upload")
        for id_ in [*changed[:3], "0" * 42]:
            problem(await running.http.put(f"/v1/uploads/{id_}", content=b"1"), 404, "unknown-upload")
        accepted = await ask(running, upload, {"prefer": "respond-async"})
        foreign = {"input": {"$upload": accepted.json()["id"]}}
        problem(await ask(running, foreign), 404, "unknown-upload")
        assert await store.list("uploads/") == [f"uploads/{real}"]


@pytest.mark.parametrize("store", ["file", "seaweedfs", "ministack"], indirect=True)
async def test_an_upload_is_of_no_use_once_its_time_is_over(broker, store, monkeypatch):
    await broker.create_queue("echo")
    monkeypatch.setattr(presigned, "PUT_WITHIN", 1.0)
    async with gateway(broker, store) as running:
        upload = await made(running)
        signed = upload["url"].startswith("http")
        until = time.time() + 20
        while (told := await put(running, upload, b"late")).status_code in {200, 201, 204}:
            assert time.time() < until
            await asyncio.sleep(0.2)
        assert told.status_code == (403 if signed else 404)
        monkeypatch.setattr(presigned, "NAMED_WITHIN", -1.0)
        problem(await ask(running, upload), 404, "unknown-upload")


@pytest.mark.parametrize("store", ["seaweedfs", "ministack", "azurite"], indirect=True)
async def test_a_presigned_url_reaches_nothing_but_its_own_object(broker, store):
    await store.put("results/x", b"another's")
    async with gateway(broker, store) as running:
        upload = await made(running)
        for key in ("results/x", "uploads/another"):
            elsewhere = {**upload, "url": upload["url"].replace(f"uploads/{upload['id']}", key)}
            assert (await put(running, elsewhere, b"mine")).status_code == 403
        async with httpx.AsyncClient() as http:
            assert (await http.get(upload["url"])).status_code in {403, 404}
            assert (await http.delete(upload["url"])).status_code == 403
        assert await store.get("results/x") == b"another's"


async def test_the_same_upload_under_the_same_key_is_one_prediction(broker, store):
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        upload = await made(running)
        await put(running, upload)
        headers = {"idempotency-key": "k", "prefer": "wait=20"}
        first, second = [(await ask(running, upload, headers)).headers["x-prediction-id"] for _ in range(2)]
        assert first == second
        assert len(worker.requests) == 1


async def test_an_object_that_says_more_is_an_input_like_any_other(broker, store):
    async with serving(broker, store=store), gateway(broker, store) as running:
        for value in ({"$upload": "x", "more": 1}, {"$upload": 5}, ["$upload"], "$upload", {"a": {"$upload": "x"}}):
            answer = await running.http.post("/v1/models/echo/predictions", json={"input": value})
            assert answer.json()["output"] == value


async def test_uploads_that_nobody_named_are_swept(broker, store):
    async with gateway(broker, store) as running:
        await put(running, await made(running))
        now = time.time()
        assert await sweep(store, older_than=1e9, claims_older_than=1e9, now=now + 3600) == 0
        assert await sweep(store, older_than=1e9, claims_older_than=1e9, now=now + 7300) == 1
        assert await store.list("uploads/") == []


async def test_a_caller_who_hangs_up_in_the_middle_leaves_no_upload(broker, store):
    async with gateway(broker, store) as running:
        upload = await made(running)

        async def broken():
            yield bytes(100_000)
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await running.http.put(upload["url"], content=broken())
        assert await store.list("uploads/") == []


@pytest.mark.parametrize("store", KINDS, indirect=True)
async def test_a_large_output_is_fetched_from_the_store_by_who_asks_for_that(broker, store):
    async with serving(broker, store=store), gateway(broker, store) as running:
        predict = "/v1/models/echo/predictions"
        headers = {"prefer": "respond-async", "content-type": "a/b"}
        picture = PICTURE * 4
        ids = [(await running.http.post(predict, content=b, headers=headers)).json()["id"] for b in (picture, b"small")]
        large, small = (f"/v1/predictions/{id_}/output" for id_ in ids)
        patient = {"prefer": "wait=20"}
        assert (await running.http.get(large, headers=patient)).content == picture
        assert (await running.http.get(f"{small}?redirect=true", headers=patient)).content == b"small"
        told = await running.http.get(f"{large}?redirect=true")
        if not store.url.startswith(("s3:", "az:")):
            assert (told.status_code, told.content) == (200, picture)
            return
        assert (told.status_code, told.content, told.headers["cache-control"]) == (307, b"", "no-store")
        async with httpx.AsyncClient() as http:
            assert (await http.get(told.headers["location"])).content == picture
            put = await http.put(told.headers["location"], content=b"1", headers={"x-ms-blob-type": "BlockBlob"})
            assert put.status_code == 403
        assert (await running.http.get(f"{large}?redirect=1")).status_code == 200
