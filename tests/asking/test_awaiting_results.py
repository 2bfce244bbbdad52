"""Waiting for a kept result."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.asking import await_result
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.results import save_result
from dumbwaiter.errors import BlobError, PredictionTimeoutError
from dumbwaiter.message import Message
from dumbwaiter.policies.polling import Pace

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/blobs")


async def save(store, body=b"soup"):
    answer = Message(type="dumbwaiter.prediction.succeeded", body=body, content_type="text/plain")
    await save_result(store, "order", answer, threshold=10)


@pytest.mark.parametrize("timeout", [0, 5, None])
async def test_a_result_that_is_there_is_read_with_its_body_whatever_the_patience(store, timeout):
    await save(store, b"longer than the threshold")
    assert (await await_result(store, "order", timeout)).body == b"longer than the threshold"


@pytest.mark.parametrize("timeout", [20, None])
async def test_a_result_that_comes_later_is_waited_for(store, timeout):
    waiting = asyncio.create_task(await_result(store, "order", timeout))
    await asyncio.sleep(0)
    await save(store)
    assert (await waiting).body == b"soup"


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_the_end_of_patience_is_an_error_of_its_own(store, timeout):
    with pytest.raises(PredictionTimeoutError, match=f"no result of 'order' within {timeout:g} s; it may still be"):
        await await_result(store, "order", timeout)


async def test_a_result_that_comes_shortly_before_the_end_of_patience_is_still_seen(store, monkeypatch):
    monkeypatch.setattr("dumbwaiter.asking.results.QUICK", Pace(0.01, 1000.0, growth=1e6))
    looks = 0

    class SavedBeforeTheThirdLook:
        async def get(self, key):
            nonlocal looks
            looks += 1
            if looks == 3:
                await save(store)
            return await store.get(key)

    async with asyncio.timeout(20):
        assert (await await_result(SavedBeforeTheThirdLook(), "order", 1)).body == b"soup"


async def test_reading_counts_as_waiting():
    class Hangs:
        async def get(self, key):
            await asyncio.Event().wait()

    with pytest.raises(PredictionTimeoutError, match="no result of 'order'"):
        await await_result(Hangs(), "order", 0.05)


async def test_a_store_that_fails_is_no_timeout():
    class Fails:
        async def get(self, key):
            raise BlobError("the disk is gone")

    with pytest.raises(BlobError, match="the disk is gone"):
        await await_result(Fails(), "order", 5)
