"""kill -9 of the gateway while 500 callers wait: who asks again is answered, and nothing is left behind."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from node import LOCK, Node

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.testing import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.trial, pytest.mark.timeout(120)]

REQUESTS = 500
AT_ONCE = 64


async def is_empty(broker: Broker) -> bool:
    stats = await broker.stats("model")
    return stats.ready + stats.locked + stats.delayed == 0


async def test_kill_9_of_the_gateway_costs_its_callers_one_more_try_and_leaves_nothing_behind(node: Node) -> None:
    node.worker()
    gateway, port = await asyncio.to_thread(node.gateway)
    url = f"http://127.0.0.1:{port}/v1/models/model/predictions"
    answers: dict[int, list[str]] = {number: [] for number in range(REQUESTS)}
    broken = 0
    half_way = asyncio.Event()
    limit = asyncio.Semaphore(AT_ONCE)

    async def ask(http: httpx.AsyncClient, number: int) -> None:
        nonlocal broken
        async with limit:
            while not answers[number]:
                try:
                    response = await http.post(url, content=f"request {number}", headers={"content-type": "text/plain"})
                except (httpx.TransportError, AttributeError):  # anyio's, of a connection lost while it was made
                    broken += 1
                    await asyncio.sleep(0.1)
                    continue
                if response.status_code == 404:  # the worker has not made its queue yet
                    await asyncio.sleep(0.1)
                    continue
                assert response.status_code == 200, response.text
                answers[number].append(response.json()["output"])
            if sum(map(len, answers.values())) > REQUESTS / 4:
                half_way.set()

    async with httpx.AsyncClient(timeout=60) as http, asyncio.TaskGroup() as group:
        for number in range(REQUESTS):
            group.create_task(ask(http, number))
        await half_way.wait()
        gateway.kill()
        gateway.wait()
        await asyncio.to_thread(node.gateway, port)

    assert answers == {number: [f"REQUEST {number}"] for number in range(REQUESTS)}
    assert broken, "nobody was waiting when the gateway died"
    async with open_broker(node.broker_url, lock_duration=LOCK) as broker:
        await eventually(lambda: is_empty(broker), within=20.0)
        assert (await broker.stats("model")).dead == 0
