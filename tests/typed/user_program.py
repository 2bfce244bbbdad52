"""A program as users write it. Nothing runs it: the type checkers read it, and see what a user's editor sees."""

from __future__ import annotations

from typing import assert_type

from dumbwaiter import AsyncClient, Client, PredictionError
from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.contract import Broker, Capabilities
from dumbwaiter.client import PredictionStatus
from dumbwaiter.dead_letters import find, purge, redrive
from dumbwaiter.errors import GatewayError, LockLostError
from dumbwaiter.message import DeadLetter, Delivery, Failure, Message


def ask(picture: bytes) -> str:
    with Client("sqlite:queue.db") as client:
        try:
            client.predict("infer", picture)
        except PredictionError as error:
            assert_type(error.failure, Failure)
            return error.failure.code
    return ""


async def ask_without_blocking(picture: bytes) -> None:
    async with AsyncClient("sqlite:queue.db") as client:
        await client.predict("infer", picture)


def ask_a_gateway(picture: bytes) -> int | None:
    with Client("https://models.example.com", api_key="dw_1_2", tenant="acme", idempotent=True) as client:
        handle = client.submit("infer", picture)
        assert_type(handle.status(), PredictionStatus)
        assert_type(handle.cancel(), bool)
        for _ in client.stream("writer", "Once upon a time"):
            break
        try:
            client.predict("infer", picture, idempotency_key="order-17")
        except GatewayError as error:
            assert_type(error.retry_after, float | None)
            return error.status
    return None


async def consume() -> float:
    async with open_broker("sqlite:queue.db", lock_duration=5.0) as broker:
        assert_type(broker, Broker)
        assert_type(broker.capabilities, Capabilities)
        await broker.check()
        await broker.create_queue("infer")
        await broker.send("infer", [Message(body=b"question")])
        deliveries = await broker.receive("infer", max_messages=8, max_wait=1.0)
        try:
            deliveries = await broker.renew_lock(deliveries)
        except LockLostError as error:
            assert_type(error.deliveries, list[Delivery])
            deliveries = error.renewed
        await broker.complete(deliveries)
        age = (await broker.stats("infer")).oldest_age
        return 0.0 if age is None else age


async def clean_up(broker: Broker) -> int:
    store = open_store("file:blobs")
    letters = await find(broker, "infer", ["17"])
    assert_type(letters, list[DeadLetter])
    return await redrive(broker, store, "infer", ["17"]) + await purge(broker, store, "infer")
