"""Large bodies are read a few at a time, however many are to be posted."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from dumbwaiter import notification
from dumbwaiter.answers import succeeded
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.results import save_result
from dumbwaiter.courier.posts import _LARGE_AT_ONCE, _LARGE_NBYTES, Composer
from dumbwaiter.message import Message, Timings
from dumbwaiter.signing import SigningKey
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

KEY = SigningKey(b"k" * 32)


class Counting:
    """A store that counts the results whose size it has told, and the bodies that it was asked for."""

    def __init__(self, store):
        self._store = store
        self.sized, self.asked_for = 0, 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def size(self, key):
        nbytes = await self._store.size(key)
        self.sized += 1
        return nbytes

    async def get(self, key):
        self.asked_for += key.startswith("result-bodies/")
        return await self._store.get(key)


async def a_reply(store, nbytes):
    """The notification of an answer of so many bytes."""
    request = Message(id=secrets.token_hex(8), reply_to="https://example.com/")
    answer = succeeded(request, body=b"x" * nbytes, content_type="text/plain", timings=Timings())
    await save_result(store, request.id, answer, threshold=1024)
    (message,) = notification.completed(request, answer, model="echo")
    return notification.read(message)


async def a_few_turns():
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("nbytes", "at_once"), [(_LARGE_NBYTES + 1, _LARGE_AT_ONCE), (2048, 2 * _LARGE_AT_ONCE)])
async def test_only_few_large_bodies_are_in_memory_at_once(tmp_path, nbytes, at_once):
    store = Counting(open_store(f"file://{tmp_path}/blobs"))
    composer = Composer(store, KEY, public_url=None)
    told = [await a_reply(store, nbytes) for _ in range(2 * _LARGE_AT_ONCE)]
    posting, leave = [], asyncio.Event()

    async def post(one):
        async with composer.composed(one, None) as made:
            posting.append(len(made.body))
            await leave.wait()

    tasks = [asyncio.create_task(post(one)) for one in told]
    await eventually(lambda: store.sized == len(told))
    await a_few_turns()
    assert store.asked_for == at_once
    await eventually(lambda: len(posting) == at_once)
    await a_few_turns()
    assert store.asked_for == at_once, "one that is being posted keeps its place"
    leave.set()
    await asyncio.gather(*tasks)
    assert posting == [nbytes] * len(told)
