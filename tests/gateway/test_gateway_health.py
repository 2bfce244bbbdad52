"""Health, the index and the list of models; and what callers see while the broker is down."""

from __future__ import annotations

import asyncio

import pytest
from gateway_running import gateway
from msgspec.structs import replace

from dumbwaiter.blobs.cards import ModelCard, save_card
from dumbwaiter.blobs.presence import WorkerStatus, announce, withdraw
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import BrokerUnavailableError, InboxGoneError
from dumbwaiter.testing import eventually
from echo_worker import serving

pytestmark = pytest.mark.anyio


class FragileBroker(MemoryBroker):
    """A broker that can go down, and come back without the inboxes it had."""

    down = full = False

    def require_up(self):
        if self.down:
            raise BrokerUnavailableError("amqp://secret-host refuses connections")

    async def check(self):
        self.require_up()
        if self.full:
            raise BrokerUnavailableError("the disk is full")

    async def queues(self):
        self.require_up()
        return await super().queues()

    async def send(self, queue, messages, *, delay=0.0):
        self.require_up()
        await super().send(queue, messages, delay=delay)

    async def open_inbox(self):
        self.require_up()
        inbox = await super().open_inbox()
        receive = inbox.receive

        async def fragile_receive(*, max_messages, max_wait):
            self.require_up()
            if inbox.address in self.lost:
                raise InboxGoneError(inbox.address)
            return await receive(max_messages=max_messages, max_wait=min(max_wait, 0.05))

        inbox.receive = fragile_receive
        self.opened.append(inbox.address)
        return inbox


@pytest.fixture
async def fragile():
    async with FragileBroker("memory:") as broker:
        broker.lost, broker.opened = set(), []
        yield broker


async def test_live_and_ready_when_all_is_well(broker, store):
    async with gateway(broker, store) as running:
        assert (await running.http.get("/v2/health/live")).json() == {"live": True}
        assert (await running.http.get("/v2/health/ready")).json() == {"ready": True}


async def test_a_broker_that_can_be_read_and_not_written_is_not_ready(fragile, store):
    fragile.full = True
    async with gateway(fragile, store) as running:
        response = await running.http.get("/v2/health/ready")
        assert (response.status_code, response.json()["code"]) == (503, "not-ready")
        assert response.json()["detail"] == "the disk is full"
        assert (await running.http.get("/v1/models")).status_code == 200


async def test_json_ends_with_a_newline_so_that_a_prompt_stays_apart(broker, store):
    async with serving(broker), gateway(broker, store) as running:
        responses = [await running.http.get(path) for path in ("/", "/v1/models", "/v2/health/ready", "/nothing")]
        responses += [await running.predict(json={"input": 1}), await running.predict("unknown", content=b"1")]
    for response in responses:
        assert response.content.endswith(b"}\n"), response.url
        assert int(response.headers["content-length"]) == len(response.content)


async def test_queues_of_the_systems_own_are_no_models(broker, store):
    await broker.create_queue("dumbwaiter.webhooks")
    await broker.create_queue("dumbwaiter")
    async with gateway(broker, store) as running:
        assert (await running.http.get("/")).json()["models"] == ["dumbwaiter"]
        assert [model["name"] for model in (await running.http.get("/v1/models")).json()["models"]] == ["dumbwaiter"]
        response = await running.predict("dumbwaiter.webhooks", content=b"1")
        assert (response.status_code, response.json()["code"]) == (404, "unknown-model")
        assert response.json()["models"] == ["dumbwaiter"]
    assert (await broker.stats("dumbwaiter.webhooks")).ready == 0


async def test_the_index_names_routes_and_models(broker, store):
    await broker.create_queue("cats")
    async with gateway(broker, store) as running:
        index = (await running.http.get("/")).json()
    assert index["models"] == ["cats"]
    assert "POST /v1/models/{model}/predictions" in index["routes"]
    assert "GET /v2/health/ready" in index["routes"]


async def test_the_list_of_models_shows_their_workers(broker, store):
    await broker.create_queue("cats")
    await broker.create_queue("dogs")
    await announce(
        store, WorkerStatus(worker="w", model="cats", state="failing", reason="no weights\n for a\n or b\nTraceback")
    )
    async with gateway(broker, store) as running:
        cats, dogs = (await running.http.get("/v1/models")).json()["models"]
    assert (cats["name"], dogs) == ("cats", {"name": "dogs", "workers": []})
    assert (cats["workers"][0]["state"], cats["workers"][0]["reason"]) == ("failing", "no weights for a or b")


async def test_while_the_broker_is_down_callers_get_503_and_afterwards_all_is_well(fragile, store):
    async with serving(fragile), gateway(fragile, store) as running:
        assert (await running.predict(json={"input": 1})).status_code == 200
        fragile.down = True
        response = await running.predict(json={"input": 2})
        assert (response.status_code, response.json()["code"]) == (503, "broker-unavailable")
        assert response.headers["retry-after"]
        assert "secret-host" not in response.text
        assert (await running.http.get("/v2/health/live")).status_code == 200
        ready = await running.http.get("/v2/health/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "not-ready")
        assert (await running.http.get("/v1/models")).status_code == 503
        assert (await running.predict("unknown", json={"input": 2})).status_code == 503
        fragile.down = False
        assert (await running.predict(json={"input": 3})).json()["output"] == 3
    assert len(fragile.opened) == 1


async def test_whoever_waits_through_an_outage_still_gets_the_answer(fragile, store):
    await fragile.create_queue("echo")
    async with gateway(fragile, store) as running:
        waiting = asyncio.create_task(running.predict(json={"input": 1}))

        async def has_arrived():
            return (await fragile.stats("echo")).ready == 1

        await eventually(has_arrived)
        fragile.down = True
        await asyncio.sleep(0.2)  # the reader meets the outage
        async with serving(fragile):
            fragile.down = False
            assert (await waiting).json()["output"] == 1


async def test_when_the_broker_loses_the_inbox_those_who_wait_are_told_and_another_is_opened(fragile, store):
    await fragile.create_queue("echo")
    async with gateway(fragile, store) as running:
        waiting = asyncio.create_task(running.predict(json={"input": 1}))

        async def has_arrived():
            return (await fragile.stats("echo")).ready == 1

        await eventually(has_arrived)
        fragile.lost.update(fragile.opened)
        assert (await waiting).status_code == 503
        async with serving(fragile):
            assert (await running.predict(json={"input": 2})).json()["output"] == 2
    assert len(fragile.opened) == 2


async def test_a_broker_that_is_down_from_the_start_is_not_ready_and_is_found_later(fragile, store):
    fragile.down = True
    async with gateway(fragile, store) as running:
        assert (await running.http.get("/v2/health/ready")).status_code == 503
        fragile.down = False
        assert (await running.http.get("/v2/health/ready")).status_code == 200


class ListsNothing(MemoryBroker):
    """As a product whose protocol cannot list its queues."""

    capabilities = replace(MemoryBroker.capabilities, lists_queues=False)

    async def queues(self):
        raise AssertionError("nobody asks")

    async def has_queue(self, queue):
        return queue in self._server.queues


async def test_where_a_broker_lists_no_queues_models_are_known_by_their_cards_and_by_asking(store):
    async with ListsNothing("memory:") as broker, serving(broker), gateway(broker, store) as running:
        assert (await running.http.get("/v1/models")).json()["models"] == []
        assert (await running.predict(content=b"x", headers={"content-type": "a/b"})).status_code == 200
        await broker.create_queue("carded")
        for name in ("carded", "gone"):
            await save_card(store, ModelCard(name=name))
        names = [model["name"] for model in (await running.http.get("/v1/models")).json()["models"]]
        assert names == ["carded"]
        unknown = await running.predict("nobody", content=b"x")
        assert (unknown.status_code, unknown.json()["models"]) == (404, ["carded"])
        assert (await running.predict("dumbwaiter.webhooks", content=b"x")).status_code == 404


async def test_a_model_whose_queue_was_lost_is_no_unknown_one_while_its_workers_live(store):
    async with MemoryBroker("memory:") as broker, gateway(broker, store) as running:
        await broker.create_queue("echo")
        await announce(store, WorkerStatus(worker="w", model="echo", state="ready", seconds_each=0.1))
        headers = {"prefer": "wait=1"}
        assert (await running.predict(content=b"1", headers=headers)).status_code == 504
        del broker._server.queues["echo"]
        for _ in range(2):  # the first one finds it out
            lost = await running.predict(content=b"1", headers=headers)
            assert (lost.status_code, lost.json()["code"]) == (503, "broker-unavailable")
            assert lost.headers["retry-after"] == "1"
        await broker.create_queue("echo")
        assert (await running.predict(content=b"1", headers=headers)).status_code == 504
        del broker._server.queues["echo"]
        await withdraw(store, "echo", "w")
        assert (await running.predict(content=b"1", headers=headers)).status_code == 404
