"""Large answers of kept predictions: a few at a time, beside the event loop, and counted."""

from __future__ import annotations

import asyncio
import threading

import pytest
from gateway_running import gateway
from problems_seen import problem

from dumbwaiter.answers import succeeded
from dumbwaiter.blobs.results import save_result
from dumbwaiter.gateway.http.budget import Budget
from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.gateway.predictions.results import stored_answer
from dumbwaiter.gateway.predictions.telling import AT_ONCE, COPIES, Telling
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from echo_worker import TIMINGS, output, serving

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


class Slow:
    """The *inner* store, whose bodies wait for *gate*; *most* is how many were asked for at once."""

    def __init__(self, inner):
        self._inner = inner
        self.gate = asyncio.Event()
        self.now = self.most = 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def get(self, key):
        if not key.startswith("result-bodies/"):
            return await self._inner.get(key)
        self.now += 1
        self.most = max(self.most, self.now)
        await self.gate.wait()
        self.now -= 1
        return await self._inner.get(key)


async def saved(store, id_="a", nbytes=MIB):
    answer = succeeded(Message(id=id_), body=bytes(nbytes), content_type="a/b", timings=TIMINGS)
    await save_result(store, id_, answer, threshold=64 * 1024)
    return await stored_answer(store, id_)


def counted(answer):
    return [], b"%d" % len(answer.body)


async def test_few_large_answers_are_read_at_once_and_the_others_take_nothing_yet(store):
    answer = await saved(store)
    slow, budget = Slow(store), Budget(1000 * MIB)
    telling = Telling(slow, budget)

    async def tell():
        with telling.hold() as hold:
            return await telling.written(hold, "a", answer, counted)

    asking = [asyncio.create_task(tell()) for _ in range(5 * AT_ONCE)]
    await eventually(lambda: slow.now == AT_ONCE)
    assert budget.taken == AT_ONCE * COPIES * MIB
    slow.gate.set()
    assert await asyncio.gather(*asking) == [([], b"%d" % MIB)] * len(asking)
    assert (slow.most, budget.taken) == (AT_ONCE, 0)


@pytest.mark.parametrize(("nbytes", "is_beside"), [(MIB, True), (200_000, True), (1000, False)])
async def test_what_is_large_is_written_beside_the_event_loop(store, nbytes, is_beside):
    answer, threads = await saved(store, nbytes=nbytes), []
    telling = Telling(store, Budget(100 * MIB))

    def noting(whole):
        threads.append(threading.current_thread())
        return counted(whole)

    with telling.hold() as hold:
        assert await telling.written(hold, "a", answer, noting) == ([], b"%d" % nbytes)
    assert (threads[0] is not threading.main_thread()) is is_beside


async def test_what_is_written_is_counted_until_it_is_sent(store):
    answer, budget = await saved(store), Budget(100 * MIB)
    telling = Telling(store, budget)
    with telling.hold() as hold:
        _, body = await telling.written(hold, "a", answer, lambda whole: ([], whole.body + whole.body))
        assert budget.taken == len(body) == 2 * MIB
    assert budget.taken == 0


async def test_without_room_an_answer_is_not_even_read(store):
    answer, slow = await saved(store), Slow(store)
    telling = Telling(slow, Budget(COPIES * MIB))
    with telling.hold() as others, telling.hold() as hold:
        others.take(MIB)
        with pytest.raises(ProblemError) as caught:
            await telling.written(hold, "a", answer, counted)
        assert (caught.value.problem.status, caught.value.problem.retry_after) == (503, 1)
    assert slow.most == 0


async def test_what_is_too_long_for_an_object_stays_in_the_store(store):
    answer, slow = await saved(store, nbytes=MIB + 1), Slow(store)
    telling = Telling(slow, Budget(MIB))
    with telling.hold() as hold:
        assert await telling.written(hold, "a", answer, counted) == ([], b"0")
    assert slow.most == 0


@pytest.mark.parametrize("how", ["by id", "by key", "cancel", "again"])
async def test_each_way_to_a_large_answer_is_told_when_there_is_no_room(broker, store, how):
    large = output(b'"' + b"x" * (MIB // 2) + b'"', "application/json")
    headers = {"content-type": "a/b", "idempotency-key": "k", "accept": "application/json"}
    async with serving(broker, respond=large, store=store), gateway(broker, store) as running:
        first = await running.predict(content=b"1", headers=headers)
        assert first.status_code == 200
        path = f"/v1/predictions/{first.headers['x-prediction-id']}"
    async with gateway(broker, store, memory_limit=2 * MIB) as running:
        if how == "by id":
            response = await running.http.get(path)
        elif how == "by key":
            response = await running.http.get("/v1/models/echo/predictions/k")
        elif how == "cancel":
            response = await running.http.post(f"{path}/cancel")
        else:
            response = await running.predict(content=b"1", headers=headers)
        problem(response, 503, "overloaded")
        assert len((await running.http.get(f"{path}/output")).content) == MIB // 2 + 2
