"""A real broker that is away for a while, under a client that asks straight over it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from dumbwaiter import AsyncClient, Message
from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import BrokerError, BrokerUnavailableError
from dumbwaiter.testing import eventually
from dumbwaiter.testing.servers import SERVERS
from echo_worker import EchoWorker, echo

pytestmark = pytest.mark.anyio

IN_FLIGHT = 8
COUNT = 40


@pytest.fixture(params=["nats", "redis"])
def server(request, tmp_path):
    server = SERVERS[request.param](tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def worker(server):
    """An echo that survives outages."""
    async with open_broker(server.url) as broker:
        await broker.create_queue("echo")
        worker = EchoWorker(broker, "echo", echo, None)

        async def serve():
            while True:
                with contextlib.suppress(BrokerError):
                    await worker.serve()
                await asyncio.sleep(0.05)

        task = asyncio.create_task(serve())
        yield worker
        task.cancel()
        await asyncio.wait([task])


async def collected(outputs):
    return [output async for output in outputs]


async def test_requests_wait_for_a_broker_that_is_away_and_no_further_inputs_are_taken(server, worker):
    taken = []

    def inputs():
        for number in range(COUNT):
            taken.append(f"text {number}")
            yield taken[-1]

    async with AsyncClient(server.url) as client:
        assert await client.predict("echo", "before") == "before"
        await asyncio.to_thread(server.stop)
        mapping = asyncio.create_task(collected(client.map("echo", inputs(), in_flight=IN_FLIGHT, timeout=50.0)))
        await eventually(lambda: len(taken) == IN_FLIGHT)
        # Another one, whose patience is over sooner, has met the outage meanwhile.
        with pytest.raises(BrokerUnavailableError, match=r"which was tried .* within 0\.5 s; whether a worker has"):
            await client.predict("echo", "in vain", timeout=0.5)
        assert (len(taken), mapping.done()) == (IN_FLIGHT, False)
        await asyncio.to_thread(server.start)
        assert await mapping == taken
        assert len(taken) == COUNT


async def test_a_request_keeps_its_id_however_often_it_is_sent(server, worker):
    async with AsyncClient(server.url) as client:
        assert await client.predict("echo", "before") == "before"
        await asyncio.to_thread(server.stop)
        message = Message(id="order-17", body=b"eggs")
        asking = asyncio.create_task(client.predict_message("echo", message, timeout=50.0))
        with pytest.raises(BrokerUnavailableError):
            await client.predict("echo", "in vain", timeout=0.3)
        await asyncio.to_thread(server.start)
        answer = await asking
    assert (answer.correlation_id, answer.body) == ("order-17", b"eggs")
    assert {request.id for request in worker.requests if request.body == b"eggs"} == {"order-17"}
