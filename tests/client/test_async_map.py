"""AsyncClient.map: many inputs, bounded in flight, in order or as they come."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter import AsyncClient
from dumbwaiter.errors import BadInputError, PredictionError, PredictionTimeoutError, QueueNotFoundError
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(service):
    async with AsyncClient(service.url) as client:
        yield client


class Taken:
    """Inputs that count how many of them were taken."""

    def __init__(self, count: int) -> None:
        self.count = 0
        self._total = count

    def __iter__(self):
        for number in range(self._total):
            self.count += 1
            yield number


async def collect(outputs):
    return [output async for output in outputs]


@pytest.mark.parametrize("in_flight", [0, 1, 3, 1000])
async def test_outputs_come_in_the_order_of_their_inputs(client, in_flight):
    assert await collect(client.map("echo", range(50), in_flight=in_flight)) == list(range(50))
    assert await collect(client.map("echo", [])) == []


async def test_unordered_outputs_all_come_once(client):
    outputs = await collect(client.map("echo", range(50), in_flight=7, ordered=False))
    assert sorted(outputs) == list(range(50))


async def test_inputs_may_come_from_an_asynchronous_source(client):
    async def source():
        for number in range(5):
            await asyncio.sleep(0)
            yield number

    assert await collect(client.map("echo", source())) == list(range(5))


async def test_inputs_are_taken_no_faster_than_outputs(client, service):
    inputs = Taken(100)
    outputs = client.map("silent", inputs, in_flight=4)
    first = asyncio.ensure_future(anext(outputs))
    await asyncio.to_thread(service.until_waiting, 4)
    assert inputs.count == 4
    await asyncio.to_thread(service.answer_silent, 4)
    assert await first == 0
    assert inputs.count == 4
    assert await anext(outputs) == 1
    assert inputs.count == 5
    await outputs.aclose()


@pytest.mark.parametrize("ordered", [True, False])
async def test_an_output_that_overtakes_waits_only_where_order_is_asked_for(client, service, ordered):
    outputs = client.map("silent", range(3), in_flight=3, ordered=ordered)
    first = asyncio.ensure_future(anext(outputs))
    await asyncio.to_thread(service.until_waiting, 3)
    await asyncio.to_thread(service.answer_silent, 3, backwards=True)
    assert sorted([await first, await anext(outputs), await anext(outputs)]) == [0, 1, 2]
    if ordered:
        assert await first == 0
    with pytest.raises(StopAsyncIteration):
        await anext(outputs)


async def test_the_first_error_ends_it_and_gives_up_the_rest(client, service):
    with pytest.raises(PredictionError, match="I do not like this one"):
        await collect(client.map("fail", range(50), in_flight=4))
    with pytest.raises(QueueNotFoundError, match="nobody"):
        await collect(client.map("nobody", range(50), in_flight=4))
    assert client._door._asker.waiting() == set()


@pytest.mark.parametrize("ordered", [True, False])
async def test_errors_come_in_their_places_where_they_are_asked_for(client, ordered):
    inputs = [1, object(), 3]
    outputs = await collect(client.map("echo", inputs, return_exceptions=True, ordered=ordered))
    assert sum(isinstance(output, BadInputError) for output in outputs) == 1
    assert {output for output in outputs if isinstance(output, int)} == {1, 3}
    if ordered:
        assert isinstance(outputs[1], BadInputError)
    failures = await collect(client.map("fail", range(3), return_exceptions=True, ordered=ordered))
    assert [type(failure) for failure in failures] == [PredictionError] * 3


async def test_the_timeout_holds_for_each(client):
    outputs = await collect(client.map("silent", range(3), timeout=0.05, return_exceptions=True))
    assert [type(output) for output in outputs] == [PredictionTimeoutError] * 3


async def test_leaving_the_loop_early_gives_up_what_is_under_way(client, service):
    async for output in client.map("echo", range(100), in_flight=5):
        assert output == 0
        break
    await eventually(lambda: client._door._asker.waiting() == set(), what="the requests being given up")
    taken = len(service.requests)
    assert taken <= 6


async def test_a_loop_that_is_cancelled_gives_up_what_is_under_way(client, service):
    loop = asyncio.create_task(collect(client.map("silent", range(10), in_flight=10)))
    await asyncio.to_thread(service.until_waiting, 10)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    assert client._door._asker.waiting() == set()


async def test_an_error_of_the_source_gives_up_what_is_under_way(client):
    def source():
        yield from range(3)
        raise OSError("the film tore")

    with pytest.raises(OSError, match="the film tore"):
        await collect(client.map("silent", source()))
    assert client._door._asker.waiting() == set()
