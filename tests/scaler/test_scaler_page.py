"""The scaler by HTTP, as KEDA's metrics-api trigger and people ask it."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from scaler_running import cooking, measured, working

from dumbwaiter.errors import BrokerError, ConfigError
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(kitchen):
    async with httpx.AsyncClient(base_url=kitchen.url(""), trust_env=False, timeout=20.0) as client:
        yield client


async def test_it_tells_what_is_wanted_and_why(kitchen, client):
    await measured(kitchen.store, "cats", 2.0)
    await working(kitchen.store, "cats")
    await working(kitchen.store, "cats", name="apprentice", state="loading")
    await kitchen.send("cats", 20)
    await kitchen.take("cats")
    answer = await client.get("/v1/scale/cats")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    told = answer.json()
    assert 0.0 <= told.pop("oldest_age") < 20.0
    assert told == {
        "model": "cats",
        "active": True,
        "desired": 8,
        "raw": 8,
        "why": "backlog",
        "work": 39.0,
        "offered": 0.0,
        "waiting": 19,
        "in_flight": 1,
        "ready": 1,
        "starting": 1,
        "alarm": "",
    }


async def test_a_pool_at_rest_wants_nobody(client):
    told = (await client.get("/v1/scale/cats")).json()
    assert (told["desired"], told["active"]) == (0, False)


async def test_the_query_says_how_to_scale(kitchen, client):
    await kitchen.send("cats", 20)
    query = {"signal": "messages", "messages_each": "4"}
    assert (await client.get("/v1/scale/cats", params=query)).json()["desired"] == 5
    answer = await client.get("/v1/scale/cats", params={"signl": "messages"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json() == {
        "title": "Bad Request",
        "status": 400,
        "code": "invalid-parameter",
        "detail": "/v1/scale/cats: unknown name 'signl'; did you mean 'signal'?",
    }


async def test_all_models_are_listed_those_without_a_queue_too(tmp_path):
    url = f"sqlite:{tmp_path}/queue.db"
    async with cooking(url, tmp_path, models=("cats", "owls"), queues=("cats", "dogs")) as kitchen:
        await kitchen.broker.create_queue("dumbwaiter.webhooks")
        async with httpx.AsyncClient(trust_env=False) as client:
            told = (await client.get(kitchen.url("/v1/scale"))).json()["models"]
    assert [(one["model"], one["desired"], one["why"]) for one in told] == [
        ("cats", 0, "nothing waits"),
        ("dogs", 0, "nothing waits"),
        ("owls", 1, "no queue yet"),
    ]


async def test_what_cannot_be_told_of_some_models_is_their_problem_and_the_others_are_told(tmp_path, caplog):
    models = ("a b", "_system", "cats", "dogs", "owls")
    async with cooking(f"sqlite:{tmp_path}/queue.db", tmp_path, models=models, queues=models[2:]) as kitchen:
        ask = kitchen.ask

        async def strange(queue):
            if queue == "dogs":
                raise BrokerError("the dogs are gone")
            if queue == "owls":
                raise ZeroDivisionError("secret of the house")
            return await ask(queue)

        kitchen.ask = strange
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(kitchen.url("/v1/scale"))
    assert answer.status_code == 200
    told = {one["model"]: one for one in answer.json()["models"]}
    assert told.keys() == {*models}
    assert told["cats"]["desired"] == 0
    problems = {
        name: (one["problem"]["status"], one["problem"]["code"]) for name, one in told.items() if name != "cats"
    }
    assert problems == {
        "a b": (400, "invalid-parameter"),
        "_system": (400, "invalid-parameter"),
        "dogs": (503, "broker-unavailable"),
        "owls": (500, "internal-error"),
    }
    assert "secret" not in answer.text
    assert "secret of the house" in caplog.text


async def test_a_scaler_that_stops_while_it_lists_all_models_says_so(kitchen, client):
    async def hanging(_):
        await asyncio.Event().wait()

    kitchen.ask = hanging
    listing = asyncio.create_task(client.get("/v1/scale"))
    await eventually(lambda: kitchen.asked)
    kitchen.stop.set()
    answer = await listing
    assert (answer.status_code, answer.json()["code"]) == (503, "shutting-down")


async def test_a_model_that_nobody_knows_is_not_found(client):
    answer = await client.get("/v1/scale/cat")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown-model")
    assert "did you mean 'cats'?" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/scale/%2e%2e%2fcats", "/v1/scale/cats%00", "/v1/scale/dumbwaiter.webhooks"])
async def test_what_can_name_no_model_is_refused(client, path):
    answer = await client.get(path)
    assert answer.status_code in {400, 404}
    assert "desired" not in answer.text


async def test_other_paths_and_methods_are_refused_with_those_that_there_are(client):
    answer = await client.get(f"/{'x' * 5000}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert len(answer.json()["detail"]) == 1000
    answer = await client.post("/v1/scale/cats")
    assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed")
    assert sorted(answer.headers["allow"].split(", ")) == ["GET", "HEAD"]
    assert "there are GET /v1/scale, /v1/scale/MODEL and /healthz" in answer.json()["detail"]


async def test_the_process_says_that_it_lives(client):
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_whoever_asks_for_ever_more_different_things_fills_no_memory(kitchen, client, monkeypatch):
    monkeypatch.setattr("dumbwaiter.scaler.pools.MOST_POOLS", 5)
    made = []
    monkeypatch.setattr("dumbwaiter.scaler.pools.PoolWatcher", counting(made))
    for _ in range(2):
        for seconds in range(1, 9):
            await client.get("/v1/scale/cats", params={"drain_target": str(seconds)})
    assert len(made) == 16  # each was forgotten before it was asked for again
    await client.get("/v1/scale/cats", params={"drain_target": "8"})
    assert len(made) == 16


def counting(made):
    from dumbwaiter.demand import PoolWatcher

    def make(*arguments, **named):
        made.append(arguments)
        return PoolWatcher(*arguments, **named)

    return make


async def test_two_scalers_cannot_have_one_port(kitchen, tmp_path):
    for port in ("grpc_port", "http_port"):
        taken = getattr(kitchen.doors, port)
        with pytest.raises(ConfigError, match=rf"^cannot listen on 127\.0\.0\.1 port {taken} for "):
            async with cooking(kitchen.settings.broker, tmp_path, **{port: taken}):
                pass
    assert not [task for task in asyncio.all_tasks() if "HttpServer" in repr(task.get_coro())]
