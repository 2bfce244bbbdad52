"""AsyncClient: values in, values out, over a real broker with a worker on the other side."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest
from PIL import Image

from dumbwaiter import AsyncClient
from dumbwaiter.answers import timings_of
from dumbwaiter.blobs.events import Event, append, event_id, new_attempt
from dumbwaiter.brokers import open_broker
from dumbwaiter.client import Cancellation, PredictionStatus
from dumbwaiter.errors import (
    BadInputError,
    BlobError,
    BrokerClosedError,
    ConfigError,
    PredictionError,
    PredictionTimeoutError,
    QueueNotFoundError,
)
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(service):
    async with AsyncClient(service.url, blobs=service.blobs, claim_threshold=1000) as client:
        yield client


@pytest.mark.parametrize("value", ["soup", "", "ä\n", b"\x00\xff", b"", {"a": [1, 2.5, None]}, [], 7, True, None])
async def test_a_value_goes_to_the_model_and_its_output_comes_back(client, value):
    output = await client.predict("echo", value)
    assert output == value
    assert type(output) is type(value)


async def test_arrays_and_images_keep_their_shape(client):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    output = await client.predict("echo", array)
    assert (output.dtype, output.tolist()) == (array.dtype, array.tolist())
    image = Image.new("RGB", (40, 30), (200, 100, 50))
    output = await client.predict("echo", image)
    assert (output.size, output.getpixel((1, 1))) == ((40, 30), (200, 100, 50))


LARGE_ARRAY = np.zeros(100_000)


@pytest.mark.parametrize("value", [Image.new("L", (4, 3)), LARGE_ARRAY], ids=["image", "array"])
async def test_images_and_arrays_are_encoded_and_decoded_beside_the_event_loop(client, workplaces, value):
    await client.predict("echo", value)
    await (await client.submit("echo", value)).result(20)
    kept = await client.submit("echo", value, keep=True)
    await client.result(kept.id, 20)
    here = threading.current_thread()
    assert len(workplaces["sent"]) == len(workplaces["got"]) == 3
    assert here not in workplaces["sent"] + workplaces["got"]


async def test_a_file_is_read_beside_the_event_loop(client, workplaces, tmp_path):
    file = tmp_path / "order.txt"
    file.write_text("two eggs")
    assert await client.predict("echo", file) == "two eggs"
    assert threading.current_thread() not in workplaces["sent"]


async def test_texts_bytes_and_json_are_encoded_at_once(client, workplaces):
    for value in ("soup", b"\x00", {"a": 1}):
        assert await client.predict("echo", value) == value
    assert {*workplaces["sent"], *workplaces["got"]} == {threading.current_thread()}


async def test_a_file_that_cannot_be_read_is_named(client, tmp_path):
    with pytest.raises(BadInputError, match=r"cannot read .*nowhere: No such file"):
        await client.predict("echo", tmp_path / "nowhere")


async def test_a_request_says_what_it_is_and_until_when_it_matters(client, service):
    before = time.time()
    await client.predict("echo", b"{}", content_type="application/json", timeout=30, priority=4)
    await client.predict("echo", "x", deadline=before + 500)
    first, second = service.requests
    assert (first.subject, first.content_type, first.priority) == ("echo", "application/json", 4)
    assert before <= first.time <= time.time()
    assert before + 30 <= first.deadline <= time.time() + 30
    assert second.deadline == pytest.approx(before + 500, abs=1e-3)


async def test_a_failure_raises_what_the_worker_said(client):
    with pytest.raises(PredictionError, match="model-error: I do not like this one") as caught:
        await client.predict("fail", "soup")
    assert caught.value.failure.attempts == 2


async def test_a_model_that_nobody_serves_is_named(client, service):
    for call in (client.predict("nobody", 1), client.submit("nobody", 1), client.submit("nobody", 1, keep=True)):
        with pytest.raises(QueueNotFoundError) as caught:
            await call
        assert str(caught.value).startswith(f"no queue named 'nobody' on {service.url}; start a worker for it there, ")


async def test_no_answer_in_time_is_an_error_of_its_own(client):
    with pytest.raises(PredictionTimeoutError, match=r"no answer to .* from 'silent' within"):
        await client.predict("silent", 1, timeout=0.05)


async def test_an_input_that_no_body_can_carry_is_refused_before_anything_is_sent(client, service):
    with pytest.raises(BadInputError, match="this input cannot be sent: "):
        await client.predict("echo", object())
    assert service.requests == []


async def test_a_submitted_request_is_answered_through_its_handle_as_often_as_asked(client, service):
    handle = await client.submit("silent", {"a": 1})
    for timeout in (0, 0.02):
        with pytest.raises(PredictionTimeoutError, match=handle.id):
            await handle.result(timeout)
    assert not await handle.done()
    await asyncio.to_thread(service.answer_silent)
    assert await handle.result(20) == {"a": 1}
    assert await handle.done()
    assert await handle.result(0) == {"a": 1}
    assert (await handle.message()).correlation_id == handle.id


async def test_a_submitted_failure_raises_every_time(client):
    handle = await client.submit("fail", "soup")
    for _ in range(2):
        with pytest.raises(PredictionError, match="I do not like this one"):
            await handle.result(20)


async def test_a_kept_result_is_there_for_every_client(client, service):
    handle = await client.submit("echo", "soup", keep=True)
    assert await handle.result(20) == "soup"
    assert await handle.result(20) == "soup"
    assert await handle.done()
    async with AsyncClient(service.url, blobs=service.blobs) as another:
        assert await another.result(handle.id, 20) == "soup"
        assert timings_of(await another.result_message(handle.id)).batch_size == 4
    assert service.requests[0].reply_to is None


async def test_a_kept_failure_is_a_result_too(client):
    handle = await client.submit("fail", "soup", keep=True)
    with pytest.raises(PredictionError, match="I do not like this one"):
        await handle.result(20)


async def test_a_kept_result_that_is_not_there_yet_can_be_waited_for_again(client, service):
    handle = await client.submit("silent", "soup", keep=True)
    assert not await handle.done()
    with pytest.raises(PredictionTimeoutError, match=f"no result of '{handle.id}' within 0.05 s; it may still be"):
        await handle.result(0.05)
    waiting = asyncio.create_task(handle.result(20))
    await client.predict("echo", 1)
    from dumbwaiter.blobs.results import save_result

    answer = Message(type="dumbwaiter.prediction.succeeded", body=b"late soup", content_type="text/plain")
    await save_result(service.store, handle.id, answer, threshold=1000)
    assert await waiting == "late soup"
    assert await handle.done()


async def test_without_patience_a_kept_result_that_is_there_is_still_read(client):
    handle = await client.submit("echo", "soup", keep=True)
    assert await handle.result(20) == "soup"
    assert await client.result(handle.id, timeout=0) == "soup"
    with pytest.raises(PredictionTimeoutError, match="no result of 'never' within 0 s"):
        await client.result("never", timeout=0)


async def test_reading_a_kept_result_counts_as_waiting(service):
    class Hangs:
        async def get(self, key):
            await asyncio.Event().wait()

    async with AsyncClient(service.url, blobs=Hangs()) as client:
        with pytest.raises(PredictionTimeoutError, match=r"no result of 'slow' within 0\.05 s"):
            await client.result("slow", timeout=0.05)


async def test_kept_results_need_a_blob_store(service):
    async with AsyncClient(service.url) as client:
        for call in (client.submit("echo", 1, keep=True), client.result("x"), client.load_message("x")):
            with pytest.raises(ConfigError, match="give this client one: blobs='file:/path'"):
                await call
    assert service.requests == []


@pytest.mark.parametrize("keep", [False, True])
async def test_large_bodies_leave_no_blob_behind(client, service, keep):
    body = b"\x00" * 200_000
    if keep:
        handle = await client.submit("echo", body, keep=True)
        assert await handle.result(20) == body
        async with AsyncClient(service.url, blobs=service.blobs) as another:
            assert await another.result(handle.id, 20) == body
    else:
        assert await client.predict("echo", body) == body
        assert await (await client.submit("echo", body)).result(20) == body
    assert all(request.data_ref is not None for request in service.requests)

    async def nothing_left():
        return await service.store.list("claims/") == []

    await eventually(nothing_left)


async def test_a_large_answer_without_a_blob_store_says_what_to_give_the_client(service):
    body = b"\x00" * 200_000
    async with AsyncClient(service.url) as client:
        handle = await client.submit("echo", body)
        calls = [
            lambda: client.predict("echo", body),
            lambda: handle.result(20),
            lambda: handle.result(20),
            lambda: anext(client.map("echo", [body])),
        ]
        for call in calls:
            with pytest.raises(BlobError, match=r"lies in the blob store; give this client.* blobs='file:"):
                await call()
        assert await client.predict("echo", b"small") == b"small"


async def test_a_message_made_by_hand_goes_as_it_is(client, service):
    answer = await client.predict_message("echo", Message(id="mine", body=b"raw", content_type="x/y", tenant="acme"))
    assert (answer.correlation_id, answer.body, answer.content_type, answer.tenant) == ("mine", b"raw", "x/y", "acme")
    assert service.requests[0].deadline is None


async def test_an_open_broker_and_store_may_be_given_and_stay_the_callers(service):
    async with open_broker(service.url) as broker:
        async with AsyncClient(broker, blobs=service.store) as client:
            assert await client.predict("echo", 1) == 1
        assert await broker.queues() == ["echo", "fail", "silent"]


async def test_a_client_that_is_not_open_says_how_to_open_it(service):
    client = AsyncClient(service.url)
    with pytest.raises(BrokerClosedError, match="use it inside `async with`"):
        await client.predict("echo", 1)
    async with client:
        assert await client.predict("echo", 1) == 1
    for call in (client.predict("echo", 1), client.submit("echo", 1)):
        with pytest.raises(BrokerClosedError, match="use it inside `async with`"):
            await call


async def test_closing_tells_whoever_waits(service):
    async with AsyncClient(service.url) as client:
        handle = await client.submit("silent", 1)
        predict = asyncio.create_task(client.predict("silent", 2))
        await asyncio.to_thread(service.until_waiting, 2)
    for waiting in (handle.result(10), predict):
        with pytest.raises(BrokerClosedError, match="closed while waiting"):
            await waiting


async def test_a_kept_request_says_where_it_is_and_can_be_cancelled_before_it_runs(client, service):
    handles = [await client.submit("silent", number, keep=True) for number in range(3)]
    assert await handles[2].status() == PredictionStatus(status="starting", queue_position=2)
    assert await client.status(handles[2].id) == PredictionStatus(status="starting")
    assert await handles[2].cancel()
    assert await client.cancel(handles[2].id)
    assert (await handles[2].status()).status == "canceled"
    with pytest.raises(PredictionError, match="canceled: the request was cancelled by its caller"):
        await handles[2].result(5)
    assert (await handles[2].status()).status == "canceled"


async def test_what_has_ended_stays_as_it_is(client, service):
    handle = await client.submit("echo", "soup", keep=True)
    assert await handle.result(20) == "soup"
    assert not await handle.cancel()
    assert not await client.cancel(handle.id)
    assert await handle.status() == await client.status(handle.id) == PredictionStatus(status="succeeded")


async def test_a_request_that_is_not_kept_is_only_given_up(client, service):
    handle = await client.submit("silent", "soup")
    assert (await handle.status()).status == "starting"
    waiting = asyncio.create_task(handle.result())
    await asyncio.sleep(0)
    assert await handle.cancel()
    with pytest.raises(PredictionError, match="canceled"):
        await waiting
    assert (await handle.status()).status == "canceled"
    assert not await handle.cancel()
    answered = await client.submit("echo", "soup")
    assert await answered.result(20) == "soup"
    assert not await answered.cancel()
    assert (await answered.status()).status == "succeeded"


async def test_whoever_cancels_what_nobody_knows_is_told_and_it_never_runs_all_the_same(client, service):
    assert await client.cancel("abc") is Cancellation.UNKNOWN
    assert await client.cancel("abc") is Cancellation.CANCELED
    with pytest.raises(PredictionError, match="canceled"):
        await client.result("abc", 5)


async def test_whoever_cancels_what_waits_runs_or_has_ended_is_told_so(client, service):
    waits = await client.submit("silent", 1, keep=True)
    assert await client.cancel(waits.id) is Cancellation.CANCELED
    begun = Event(id=event_id(new_attempt(1, time.time()), 0), event="start")
    await asyncio.to_thread(service.run, append(service.store, "begun", [begun]))
    assert await client.cancel("begun") is Cancellation.CANCELED
    ended = await client.submit("echo", 1, keep=True)
    await ended.result(20)
    assert await client.cancel(ended.id) is Cancellation.ENDED


@pytest.mark.parametrize("id_", ["", "a\nb", "x" * 1025, "\udc80"])
async def test_what_can_be_no_id_is_refused_before_anything_is_looked_for_or_written(client, service, id_):
    for call in (client.cancel(id_), client.status(id_), client.result(id_), client.load_message(id_)):
        with pytest.raises(BadInputError, match="no request can have this id: "):
            await call
    assert await asyncio.to_thread(service.run, service.store.list("results/")) == []


async def test_the_systems_own_queues_are_no_models(client):
    message = Message(body=b"hi")
    for call in (
        client.predict("dumbwaiter.webhooks", "hi"),
        client.submit_message("dumbwaiter.webhooks", message, keep=True),
        anext(client.stream("dumbwaiter.webhooks", "hi")),
        anext(client.map("dumbwaiter.webhooks", ["hi"])),
    ):
        with pytest.raises(ConfigError, match=r"'dumbwaiter.webhooks' is no model: queues in 'dumbwaiter.' are"):
            await call


async def test_without_a_store_what_is_kept_can_neither_be_cancelled_nor_streamed(service):
    async with AsyncClient(service.url) as client:
        for call in (client.cancel("x"), anext(client.stream("echo", 1))):
            with pytest.raises(ConfigError, match="give this client one: blobs="):
                await call
        handle = await client.submit("silent", 1)
        assert (await handle.status()).queue_position == 0


async def test_the_tenant_of_a_client_is_that_of_its_requests(service):
    async with AsyncClient(service.url, tenant="acme") as client:
        await client.predict("echo", 1)
        assert (await client.predict_message("echo", Message(body=b"x", tenant="other"))).tenant == "other"
    assert [request.tenant for request in service.requests] == ["acme", "other"]
