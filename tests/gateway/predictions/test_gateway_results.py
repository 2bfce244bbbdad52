"""Waiting for stored results: what sharers of one look-out share, and what not."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.answers import succeeded
from dumbwaiter.asking import Asker, Patience
from dumbwaiter.blobs.results import save_result
from dumbwaiter.errors import BlobError, BrokerUnavailableError
from dumbwaiter.gateway.http.stopping import Stopping
from dumbwaiter.gateway.predictions.results import Results
from dumbwaiter.message import Message
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
