"""What is in memory at once is bounded, however many large bodies are to be posted."""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter import notification
from dumbwaiter.answers import succeeded
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.results import save_result
from dumbwaiter.courier import posts
from dumbwaiter.courier.memory import Memory
from dumbwaiter.courier.posts import COPIES, Composer
from dumbwaiter.message import WEBHOOK, Message, Timings
from dumbwaiter.signing import SigningKey
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

KEY = SigningKey(b"k" * 32)
NBYTES = 10_000


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


async def told_of(store, style, nbytes):
    """The notification of an answer of so many bytes."""
    about = (
        {"reply_to": "https://example.com/"} if style == "reply" else {"extensions": {WEBHOOK: "https://a.example/"}}
    )
    request = Message(id=secrets.token_hex(8), **about)
    answer = succeeded(request, body=b"x" * nbytes, content_type="text/plain", timings=Timings())
    await save_result(store, request.id, answer, threshold=1024)
    (message,) = notification.completed(request, answer, model="echo")
    return notification.read(message)


async def a_few_turns():
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("style", "limit", "at_once"),
    [("reply", 3 * NBYTES, 3), ("webhook", 3 * COPIES * NBYTES, 3), ("reply", 100, 1), ("webhook", 100, 1)],
)
async def test_only_so_many_bytes_are_in_memory_at_once(tmp_path, monkeypatch, style, limit, at_once):
    monkeypatch.setattr(posts, "MEMORY_NBYTES", limit)
    store = Counting(open_store(f"file://{tmp_path}/blobs"))
    composer = Composer(store, KEY, public_url=None)
    told = [await told_of(store, style, NBYTES) for _ in range(5)]
    posting, leave = [], asyncio.Event()

    async def post(one):
        async with composer.composed(one, None) as made:
            posting.append(made.body.count(b"x"))
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
    assert posting == [NBYTES] * len(told)


@given(
    limit=st.integers(1, 10),
    asked=st.lists(st.tuples(st.integers(0, 15), st.booleans()), max_size=12),
)
def test_whoever_asks_gets_room_in_turn_and_no_more_is_taken_than_there_is(limit, asked):
    async def all_of_them():
        memory, taken, order, wanted = Memory(limit), 0, [], []

        async def take(number, nbytes):
            nonlocal taken
            async with memory.room_for(nbytes):
                order.append(number)
                taken += min(nbytes, limit)
                assert taken <= limit
                await asyncio.sleep(0)
                taken -= min(nbytes, limit)

        tasks = [asyncio.create_task(take(number, nbytes)) for number, (nbytes, _) in enumerate(asked)]
        await asyncio.sleep(0)
        for number, (task, (_, gives_up)) in enumerate(zip(tasks, asked, strict=True)):
            if gives_up and number not in order:
                task.cancel()
            else:
                wanted.append(number)
        async with asyncio.timeout(10):
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            assert order == sorted(order)
            assert set(wanted) == set(order)
            async with memory.room_for(limit):
                pass

    asyncio.run(all_of_them())
