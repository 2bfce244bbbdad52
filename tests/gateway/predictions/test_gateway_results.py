"""Waiting for stored results: what sharers of one look-out share, and what not."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.answers import succeeded
from dumbwaiter.asking import Asker, Patience
from dumbwaiter.blobs.results import save_result
from dumbwaiter.errors import BlobError, BrokerUnavailableError
from dumbwaiter.gateway.http.problems import ModelFailingError, ShuttingDownError
from dumbwaiter.gateway.http.stopping import Stopping
from dumbwaiter.gateway.predictions.results import Results
from dumbwaiter.message import Message
from dumbwaiter.policies.polling import Pace
from dumbwaiter.testing import eventually
from echo_worker import TIMINGS

pytestmark = pytest.mark.anyio

NO_PATIENCE = Patience(0.0)


@pytest.fixture
async def asker(broker, store):
    async with Asker(broker, store) as asker:
        yield asker


async def answer(store, id_):
    answered = succeeded(Message(id=id_), body=b"7", content_type="application/json", timings=TIMINGS)
    await save_result(store, id_, answered, threshold=64 * 1024)


async def test_a_look_out_that_failed_looks_again_for_whoever_shares_it_still(asker, store, monkeypatch):
    results = Results(asker, store, Stopping())
    await answer(store, "r")
    async with results.look_out("r", "echo") as one:
        with monkeypatch.context() as outage:

            async def down(key):
                raise BlobError("the store is down")

            outage.setattr(store, "get", down)
            with pytest.raises(BlobError):
                await one.answer(Patience(5.0))
        async with results.look_out("r", "echo") as other:
            assert other is one
            assert (await other.answer(Patience(5.0))).body == b"7"
        assert (await one.answer(Patience(5.0))).body == b"7"


async def test_a_request_that_could_not_be_sent_is_sent_by_the_next_of_its_sharers(asker, broker, store, monkeypatch):
    await broker.create_queue("echo")
    results = Results(asker, store, Stopping())
    async with results.look_out("r", "echo") as one:
        with monkeypatch.context() as outage:

            async def down(queue, messages, **options):
                raise BrokerUnavailableError("down")

            outage.setattr(broker, "send", down)
            with pytest.raises(BrokerUnavailableError):
                await one.send(Message(id="r", body=b"1"), NO_PATIENCE, listen=False)
        async with results.look_out("r", "echo") as other:
            await asyncio.gather(*(other.send(Message(id="r", body=b"1"), NO_PATIENCE, listen=False) for _ in range(3)))
    assert (await broker.stats("echo")).ready == 1


async def test_a_broker_that_does_not_confirm_keeps_nobody_for_longer_than_the_caller_waits(
    asker, broker, store, monkeypatch
):
    monkeypatch.setattr("dumbwaiter.gateway.predictions.results.SEND_AT_LEAST", 0.05)
    await broker.create_queue("echo")
    results = Results(asker, store, Stopping())
    send, mended = broker.send, asyncio.Event()

    async def hangs(queue, messages, **options):
        await mended.wait()
        await send(queue, messages, **options)

    monkeypatch.setattr(broker, "send", hangs)
    async with results.look_out("r", "echo") as one:
        for patience in (Patience(0.1), Patience(0.01)):
            with pytest.raises(BrokerUnavailableError, match=r"it has not confirmed the request within 0\.1 s"):
                await one.send(Message(id="r", body=b"1"), patience, listen=True)
    mended.set()
    async with results.look_out("r", "echo") as other:
        await other.send(Message(id="r", body=b"1"), Patience(5.0), listen=True)
    assert (await broker.stats("echo")).ready == 1


async def test_an_error_is_for_those_who_wait_and_not_for_those_who_come_later(asker, store):
    results = Results(asker, store, Stopping())
    async with results.look_out("r", "echo") as one:
        waiting = [asyncio.create_task(one.answer(Patience(20.0))) for _ in range(2)]
        await eventually(lambda: one._looking is not None)
        one.fail(ModelFailingError("echo", "no weights"))
        for each in waiting:
            with pytest.raises(ModelFailingError):
                await each
        later = asyncio.create_task(one.answer(Patience(20.0)))
        await answer(store, "r")
        assert (await later).body == b"7"


async def test_a_result_that_is_there_goes_before_an_error(asker, store, monkeypatch):
    monkeypatch.setattr("dumbwaiter.gateway.predictions.results.QUICK", Pace(60.0, 60.0))
    results = Results(asker, store, Stopping())
    async with results.look_out("r", "echo") as one:
        get, looked = store.get, []

        async def witnessed(key):
            looked.append(key)
            return await get(key)

        monkeypatch.setattr(store, "get", witnessed)
        waiting = asyncio.create_task(one.answer(Patience(20.0)))
        await eventually(lambda: looked)
        await answer(store, "r")
        one.fail(ModelFailingError("echo", "no weights"))
        assert (await waiting).body == b"7"


@pytest.mark.parametrize("listen", [True, False])
async def test_whoever_waits_for_a_broker_to_confirm_is_told_that_the_gateway_goes(
    asker, broker, store, monkeypatch, listen
):
    await broker.create_queue("echo")
    results = Results(asker, store, Stopping())
    begun = asyncio.Event()

    async def hangs(queue, messages, **options):
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(broker, "send", hangs)
    results.require_open()
    async with results.look_out("r", "echo") as one:
        sending = asyncio.create_task(one.send(Message(id="r", body=b"1"), Patience(20.0), listen=listen))
        await begun.wait()
        results.close(ShuttingDownError("the gateway goes"))
        with pytest.raises(ShuttingDownError):
            await sending
    with pytest.raises(ShuttingDownError):
        results.require_open()


async def test_a_body_of_its_own_goes_where_another_has_sent_the_request_already(asker, broker, store):
    await broker.create_queue("echo")
    await store.put("claims/mine", b"1")
    await store.put("claims/first", b"1")
    results = Results(asker, store, Stopping())
    async with results.look_out("r", "echo") as one:
        await one.send(Message(id="r", data_ref="blob:claims/first"), NO_PATIENCE, listen=False, owns_body=False)
        await one.send(Message(id="r", data_ref="blob:claims/mine"), NO_PATIENCE, listen=False)
        await eventually(lambda: not asker._background)
    assert await store.list("claims/") == ["claims/first"]
