"""AsyncClient and Client through a real gateway: what comes back is what comes back over a broker."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from PIL import Image
from service import Service, gateway_before

from dumbwaiter import AsyncClient, Client
from dumbwaiter.answers import timings_of
from dumbwaiter.blobs import events
from dumbwaiter.blobs.keyring import mint, save_key
from dumbwaiter.blobs.results import save_result
from dumbwaiter.errors import (
    AccessError,
    BadInputError,
    BlobNotFoundError,
    BrokerClosedError,
    GatewayError,
    InputRefusedError,
    PredictionError,
    PredictionNotFoundError,
    PredictionTimeoutError,
    QueueNotFoundError,
    UnknownModelError,
)
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def service(tmp_path):
    with Service(f"sqlite://{tmp_path}/queue.db", f"file://{tmp_path}/blobs") as service:
        yield service


@pytest.fixture
async def client(gateway):
    async with AsyncClient(gateway) as client:
        yield client


@pytest.mark.parametrize(
    "value", ["soup", "", "ä\n", "data:,no", b"\x00\xff", {"a": [1, 2.5, None]}, [], 7, True, None]
)
async def test_a_value_goes_to_the_model_and_its_output_comes_back(client, value):
    output = await client.predict("echo", value)
    assert output == value
    assert type(output) is type(value)


@pytest.mark.parametrize("value", ["soup", "data:,no", "x" * 3_000_000, b"\x00\xff", {"a": [1]}, list(range(400_000))])
async def test_a_submitted_value_comes_back_the_same_however_its_result_is_kept(client, gateway, value):
    handle = await client.submit("echo", value)
    assert await handle.result(20) == value
    assert await handle.done()
    async with AsyncClient(gateway) as another:
        assert await another.result(handle.id, 20) == value
        assert timings_of(await another.result_message(handle.id)).batch_size == 4


@pytest.mark.parametrize("value", ["soup", b"\x00\xff", {"a": [1]}, "x" * 3_000_000, list(range(400_000))])
async def test_with_a_key_the_same_request_runs_once_and_is_answered_each_time(client, service, value):
    for _ in range(2):
        assert await client.predict("echo", value, idempotency_key="order-17") == value
    assert len(service.requests) == 1
    with pytest.raises(GatewayError, match="409 idempotency-conflict") as caught:
        await client.predict("echo", "something else", idempotency_key="order-17")
    assert (caught.value.status, caught.value.code) == (409, "idempotency-conflict")


async def test_arrays_and_images_keep_their_shape(client):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    output = await client.predict("echo", array)
    assert (output.dtype, output.tolist()) == (array.dtype, array.tolist())
    output = await client.predict("echo", Image.new("RGB", (40, 30), (200, 100, 50)))
    assert (output.size, output.getpixel((1, 1))) == ((40, 30), (200, 100, 50))


async def test_a_request_says_what_it_is_but_the_gateway_says_until_when_it_matters(client, service):
    await client.predict("echo", b"{}", content_type="application/json", timeout=30, priority=4)
    await client.predict("echo", "x", deadline=time.time() + 5)
    first, second = service.requests
    assert (first.subject, first.content_type, first.priority) == ("echo", "application/json", 4)
    assert first.deadline == pytest.approx(first.time + 30, abs=1.5)
    assert second.deadline == pytest.approx(second.time + 5, abs=1.5)


async def test_the_answer_of_a_prediction_is_a_message_as_it_is_over_a_broker(client):
    answer = await client.predict_message("echo", Message(body=b"raw", content_type="x/y"))
    assert (answer.body, answer.content_type, answer.subject) == (b"raw", "x/y", "echo")
    timings = timings_of(answer)
    assert (timings.queued, timings.batched, timings.device, timings.batch_size) == (0.001, 0.002, 0.003, 4)
    answer = await client.predict_message("echo", Message(body=b"[1]", content_type="application/json"))
    assert (answer.body, answer.content_type) == (b"[1]", "application/json")
    assert timings_of(answer) == timings


@pytest.mark.parametrize("key", [None, "a key"])
async def test_a_failure_raises_what_the_worker_said(client, key):
    with pytest.raises(PredictionError, match="model-error: I do not like this one") as caught:
        await client.predict("fail", "soup", idempotency_key=key)
    assert caught.value.failure.attempts == 2
    handle = await client.submit("fail", "soup")
    for _ in range(2):
        with pytest.raises(PredictionError, match="model-error: I do not like this one"):
            await handle.result(20)


async def test_a_model_that_nobody_serves_is_named_with_those_that_there_are(client):
    for call in (client.predict("ecko", 1), client.submit("ecko", 1)):
        with pytest.raises(UnknownModelError, match="did you mean 'echo'") as caught:
            await call
        assert isinstance(caught.value, QueueNotFoundError)
        assert (caught.value.model, caught.value.models) == ("ecko", ["echo", "fail", "silent"])


async def test_no_answer_in_time_is_an_error_of_its_own(client):
    with pytest.raises(PredictionTimeoutError, match=r"no answer from 'silent' within 0\.05 s"):
        await client.predict("silent", 1, timeout=0.05)
    with pytest.raises(PredictionTimeoutError, match=r"no answer to .* within 1 s; "):
        await client.predict("silent", 1, timeout=1)
    handle = await client.submit("silent", 1)
    for timeout in (0, 0.05, 1):
        with pytest.raises(PredictionTimeoutError, match=f"no result of '{handle.id}' within {timeout:g} s"):
            await handle.result(timeout)
    assert not await handle.done()


async def test_inputs_that_cannot_travel_are_refused_before_they_are_sent(client, service):
    with pytest.raises(BadInputError, match="it says application/json, and is none"):
        await client.predict("echo", b'1, "webhook": 2', content_type="application/json")
    with pytest.raises(BadInputError, match="characters that no header takes"):
        await client.predict("echo", b"x", content_type="text/plain\r\nX-Evil: 1")
    with pytest.raises(InputRefusedError, match="400 empty-body: the body is empty"):
        await client.predict("echo", b"")
    assert service.requests == []


async def test_a_body_that_the_gateway_does_not_take_is_refused(service):
    with gateway_before(service, body_limit=1000) as url:
        async with AsyncClient(url, retries=0) as client:
            with pytest.raises(InputRefusedError, match="413 body-too-large"):
                await client.predict("echo", b"x" * 2000)
            # It may not listen to the end, and then the client may not get to hear why.
            with pytest.raises(GatewayError, match=r"413 body-too-large|40000000 bytes may be more than it takes"):
                await client.predict("echo", b"x" * 40_000_000)


async def test_an_id_that_was_never_given_out_is_named(client):
    for call in (client.result("never", 1), client.status("never"), client.cancel("never"), client.load_message("x")):
        with pytest.raises(PredictionNotFoundError, match="404 unknown-prediction") as caught:
            await call
        assert caught.value.id in {"never", "x"}


async def test_a_kept_request_says_where_it_is_and_can_be_cancelled(client, service):
    handles = [await client.submit("silent", number) for number in range(3)]
    status = await handles[2].status()
    assert (status.status, status.queue_position) == ("starting", 2)
    with pytest.raises(BlobNotFoundError):
        await client.load_message(handles[2].id)
    assert await handles[2].cancel()
    assert await client.cancel(handles[2].id)
    assert (await handles[2].status()).status == "canceled"
    with pytest.raises(PredictionError, match="canceled") as caught:
        await handles[2].result(5)
    assert caught.value.failure.code == "canceled"


async def test_what_has_ended_cannot_be_cancelled_any_more(client):
    handle = await client.submit("echo", "soup")
    assert await handle.result(20) == "soup"
    assert not await handle.cancel()
    assert (await handle.status()).status == "succeeded"
    assert await handle.result() == "soup"


async def test_a_hundred_predictions_at_once(client, service):
    outputs = await asyncio.gather(*(client.predict("echo", number) for number in range(100)))
    assert outputs == list(range(100))
    assert [output async for output in client.map("echo", range(100), in_flight=64)] == list(range(100))


async def test_giving_up_a_prediction_gives_it_up_at_the_gateway(client, service):
    task = asyncio.create_task(client.predict("silent", 1))
    await asyncio.to_thread(service.until_waiting, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.predict("echo", 1) == 1


async def test_closing_while_calls_wait_tells_them(gateway, service):
    async with AsyncClient(gateway) as client:
        handle = await client.submit("silent", 1)
        calls = [
            asyncio.create_task(client.predict("silent", 1)),
            asyncio.create_task(handle.result()),
            asyncio.create_task(anext(client.stream("silent", 1))),
        ]
        await asyncio.to_thread(service.until_waiting, 3)
    for call in calls:
        with pytest.raises(BrokerClosedError, match=r"closed|not open"):  # one of them may just have begun
            await call
    with pytest.raises(BrokerClosedError, match="use it inside `async with`"):
        await client.predict("echo", 1)


async def test_the_tenant_of_a_client_is_that_of_its_requests(gateway, service):
    async with AsyncClient(gateway, tenant="acme") as acme, AsyncClient(gateway) as nobody:
        await acme.predict("echo", 1)
        handle = await acme.submit("echo", 1)
        assert await handle.result(20) == 1
        assert [request.tenant for request in service.requests] == ["acme", "acme"]
        with pytest.raises(PredictionNotFoundError):
            await nobody.result(handle.id, 1)


async def test_a_key_lets_in_and_its_limits_slow_down_but_fail_nothing(service):
    key, token = mint(tenant="acme", name="", now=time.time(), in_flight=4)
    service.run(save_key(service.store, key))
    with gateway_before(service, auth="on") as url:
        async with AsyncClient(url, api_key=token) as client:
            assert [output async for output in client.map("echo", range(30), in_flight=30)] == list(range(30))
            assert service.requests[0].tenant == "acme"
        async with AsyncClient(url) as client:
            with pytest.raises(AccessError, match="answered 401"):
                await client.predict("echo", 1)
        async with AsyncClient(url, api_key=token, tenant="other") as client:
            with pytest.raises(AccessError, match="answered 403"):
                await client.submit("echo", 1)


# --- streams ---


def tell(service, id_, *outputs, attempt=1):
    """Write events as a worker would: a start and *outputs*."""
    name = events.new_attempt(attempt, time.time())
    happened = [events.Event(id=events.event_id(name, 0), event="start", data=b"{}")]
    happened += [
        events.Event(id=events.event_id(name, n), event="output", data=output, content_type="text/plain; charset=utf-8")
        for n, output in enumerate(outputs, 1)
    ]
    service.run(events.append(service.store, id_, happened))


def answer(service, id_, body):
    kept = Message(type="dumbwaiter.prediction.succeeded", body=body, content_type="application/json")
    service.run(save_result(service.store, id_, kept, threshold=1000))


async def waiting_id(service, count=1):
    """The id of the newest of *count* requests that wait in ``silent``."""
    await asyncio.to_thread(service.until_waiting, count)
    return await asyncio.to_thread(service.newest_silent)


@pytest.fixture(params=["gateway", "broker"])
async def streaming(request, service, gateway):
    """The same client through a gateway and over the broker."""
    is_through_gateway = request.param == "gateway"
    url, blobs = (gateway, None) if is_through_gateway else (service.url, service.blobs)
    async with AsyncClient(url, blobs=blobs) as client:
        yield client


async def test_outputs_of_a_stream_come_while_the_model_runs(streaming, service):
    stream = streaming.stream("silent", "x", timeout=20)
    first = asyncio.create_task(anext(stream))
    id_ = await waiting_id(service)
    await asyncio.to_thread(tell, service, id_, b"two", b" eggs")
    assert await first == "two"
    assert await anext(stream) == " eggs"
    await asyncio.to_thread(answer, service, id_, b'["two"," eggs"]')
    assert await anext(stream, "the end") == "the end"


async def test_a_worker_that_begins_anew_tells_nothing_twice(streaming, service):
    stream = streaming.stream("silent", "x", timeout=20)
    first = asyncio.create_task(anext(stream))
    id_ = await waiting_id(service)
    await asyncio.to_thread(tell, service, id_, b"a", b"b")
    assert [await first, await anext(stream)] == ["a", "b"]
    await asyncio.to_thread(tell, service, id_, b"a", b"b", b"c", attempt=2)
    await asyncio.to_thread(answer, service, id_, b'["a","b","c"]')
    assert [output async for output in stream] == ["c"]


async def test_outputs_whose_events_were_not_written_in_time_come_from_the_answer(streaming, service):
    stream = streaming.stream("silent", "x", timeout=20)
    first = asyncio.create_task(anext(stream))
    id_ = await waiting_id(service)
    await asyncio.to_thread(tell, service, id_, b"a")
    assert await first == "a"
    await asyncio.to_thread(answer, service, id_, b'["a","b",{"c":1}]')
    assert [output async for output in stream] == ["b", {"c": 1}]


@pytest.mark.parametrize("value", ["soup", b"\x00\xff", {"a": 1}])
async def test_a_model_that_is_no_generator_streams_its_one_output(streaming, value):
    assert [output async for output in streaming.stream("echo", value, timeout=20)] == [value]


async def test_a_stream_that_fails_raises_what_the_worker_said(streaming):
    with pytest.raises(PredictionError, match="I do not like this one"):
        await anext(streaming.stream("fail", "x", timeout=20))


async def test_leaving_a_stream_early_cancels_the_request(streaming, service):
    async for _ in _first_of(streaming, service):
        break

    async def is_canceled():
        return (await streaming.status(id_)).status == "canceled"

    id_ = await waiting_id(service)
    await eventually(is_canceled)


async def _first_of(client, service):
    stream = client.stream("silent", "x", timeout=20)
    first = asyncio.create_task(anext(stream))
    id_ = await waiting_id(service)
    await asyncio.to_thread(tell, service, id_, b"a")
    yield await first
    async for output in stream:
        yield output


async def test_leaving_the_client_in_the_middle_of_a_stream_cancels_the_request(gateway, service):
    async with AsyncClient(gateway) as client:
        task = asyncio.create_task(anext(client.stream("silent", "x", timeout=20)))
        id_ = await waiting_id(service)
    with pytest.raises(BrokerClosedError):
        await task
    async with AsyncClient(gateway) as another:
        assert (await another.status(id_)).status == "canceled"


async def test_a_stream_from_which_nothing_comes_is_cancelled_when_patience_ends(streaming, service):
    with pytest.raises(PredictionTimeoutError, match=r"no further output of .* within 0\.3 s; it was canceled"):
        await anext(streaming.stream("silent", "x", timeout=0.3))
    id_ = await waiting_id(service)
    assert (await streaming.status(id_)).status == "canceled"


# --- ordinary code ---


def test_the_ordinary_client_does_the_same(gateway, service):
    with Client(gateway) as client:
        assert client.predict("echo", "soup") == "soup"
        assert list(client.map("echo", range(10))) == list(range(10))
        handle = client.submit("silent", 1)
        assert handle.status().status == "starting"
        assert handle.cancel()
        assert client.status(handle.id).status == "canceled"
        assert client.cancel(handle.id)
        assert list(client.stream("echo", "soup")) == ["soup"]
        with pytest.raises(UnknownModelError):
            client.predict("nobody", 1)


def test_leaving_the_stream_of_the_ordinary_client_cancels_the_request(gateway, service):
    import threading

    with Client(gateway) as client:

        def work():
            service.until_waiting(1)
            tell(service, service.newest_silent(), b"a")

        worker = threading.Thread(target=work)
        worker.start()
        for output in client.stream("silent", "x"):
            assert output == "a"
            break
        worker.join()
        assert client.status(service.newest_silent()).status == "canceled"
