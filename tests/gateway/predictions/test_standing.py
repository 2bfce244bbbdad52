"""Where a kept prediction without a result stands."""

from __future__ import annotations

import time

import pytest
from gateway_running import gateway

from dumbwaiter.blobs.events import Event, append, event_id, new_attempt
from dumbwaiter.errors import BrokerUnavailableError, QueueNotFoundError
from dumbwaiter.gateway.predictions.lookup import Known
from dumbwaiter.gateway.predictions.outputs import kept_of
from dumbwaiter.gateway.predictions.standing import Standing
from dumbwaiter.message import Message

pytestmark = pytest.mark.anyio


def known(id_):
    return Known(id_, "echo", None, kept_of(id_, None))


async def test_what_waits_has_its_place_and_what_began_has_none(broker, store):
    await broker.create_queue("echo")
    await broker.send("echo", [Message(id="first"), Message(id="second")])
    standing = Standing(store, broker)
    assert await standing.of(known("second")) == (False, 1)
    start = Event(id=event_id(new_attempt(1, time.time()), 0), event="start", data=b"null")
    await append(store, "second", [start])
    assert await standing.of(known("second")) == (True, None)


@pytest.mark.parametrize("error", [BrokerUnavailableError("down"), QueueNotFoundError("echo")])
async def test_a_broker_that_cannot_tell_the_place_costs_the_place_alone(broker, store, monkeypatch, error):
    await broker.create_queue("echo")
    async with gateway(broker, store) as running:
        deferred = await running.predict(json={"input": 1}, headers={"prefer": "respond-async"})

        async def cannot_tell(queue, id_):
            raise error

        monkeypatch.setattr(broker, "position", cannot_tell)
        seen = await running.http.get(deferred.headers["location"])
    assert (seen.status_code, seen.json()["status"]) == (200, "starting")
    assert "queue_position" not in seen.json()
