"""How the documents and the page are served."""

from __future__ import annotations

import json

import pytest
from gateway_running import gateway

from dumbwaiter.blobs.cards import ModelCard, save_card
from dumbwaiter.errors import BrokerError
from echo_worker import serving

pytestmark = pytest.mark.anyio
FILES = ("main.js", "form.js", "asking.js", "answer.js", "run.js", "curl.js", "elements.js", "page.css", "icon.svg")


@pytest.mark.parametrize("file", ["", *(f"/{name}" for name in FILES)])
async def test_the_page_and_its_files_come_with_a_policy_that_allows_nothing_else(broker, store, file):
    async with gateway(broker, store) as running:
        response = await running.http.get(f"/docs{file}")
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("file", ["index.html", "pages.py", "..%2fpages.py", "%2e%2e/openapi.py", "nothing.js", ""])
async def test_nothing_but_the_files_of_the_page_is_served(broker, store, file):
    async with gateway(broker, store) as running:
        response = await running.http.get(f"/docs/{file}")
    assert response.status_code == 404
    assert response.json()["code"] == "not-found"


async def test_the_page_can_be_switched_off_and_the_documents_stay(broker, store):
    async with gateway(broker, store, docs=False) as running:
        assert (await running.http.get("/docs")).status_code == 404
        assert (await running.http.get("/", headers={"accept": "text/html"})).status_code == 200
        assert (await running.http.get("/openapi.json")).status_code == 200


async def test_the_documents_tell_of_each_model_what_its_card_says(broker, store):
    says = {"input": {"kind": "text", "schema": {"type": "string"}}, "output": {"kind": "text"}}
    await save_card(store, ModelCard(name="echo", signature=says))
    await save_card(store, ModelCard(name="gone", signature=says))
    async with serving(broker), serving(broker, "silent"), gateway(broker, store) as running:
        openapi = (await running.http.get("/openapi.json")).json()
        asyncapi = (await running.http.get("/asyncapi.json")).json()
    assert openapi["paths"]["/v1/models/echo/predictions"]["x-dumbwaiter-model"]["input"] == {"kind": "text"}
    assert openapi["paths"]["/v1/models/silent/predictions"]["x-dumbwaiter-model"] == {"name": "silent"}
    assert "/v1/models/gone/predictions" not in openapi["paths"]
    assert set(asyncapi["channels"]) == {"model:echo", "model:silent", "inbox", "webhook"}


async def test_a_damaged_card_is_an_error_of_the_store_or_passed_over_and_never_a_fault(broker, store):
    await store.put("models/echo.json", b"{")
    async with serving(broker), gateway(broker, store) as running:
        response = await running.http.get("/openapi.json")
    assert response.status_code in (200, 503)
    assert json.loads(response.content)


@pytest.mark.parametrize("document", ["openapi.json", "asyncapi.json"])
async def test_while_the_broker_is_away_there_is_no_document(broker, store, document, monkeypatch):
    async def away():
        raise BrokerError("the broker is away")

    async with gateway(broker, store) as running:
        monkeypatch.setattr(broker, "queues", away)
        response = await running.http.get(f"/{document}")
    assert (response.status_code, response.json()["code"]) == (503, "broker-unavailable")
    assert "retry-after" in response.headers
