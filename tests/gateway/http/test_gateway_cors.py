"""Pages of other origins: none unless allowed, and then with the headers that they need."""

from __future__ import annotations

import time

import pytest
from gateway_running import gateway

from dumbwaiter.blobs.keyring import mint, save_key
from dumbwaiter.gateway.http.cors import with_cors
from echo_worker import serving

pytestmark = pytest.mark.anyio

APP = "https://app.example.com"
PREFLIGHT = {
    "origin": APP,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type, prefer, idempotency-key, dumbwaiter-deadline",
}


async def test_without_origins_no_page_is_let_in(broker, store):
    async with serving(broker), gateway(broker, store) as running:
        preflight = await running.http.options("/v1/models/echo/predictions", headers=PREFLIGHT)
        assert preflight.status_code == 403
        assert "access-control-allow-origin" not in preflight.headers


async def test_an_allowed_page_may_call_and_read_what_it_needs(broker, store):
    key, token = mint(tenant=None, name="", now=time.time())
    await save_key(store, key)
    async with serving(broker), gateway(broker, store, cors_origins=[APP], auth="on") as running:
        preflight = await running.http.options("/v1/models/echo/predictions", headers=PREFLIGHT)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == APP
        headers = {"origin": APP, "content-type": "a/b", "authorization": f"Bearer {token}"}
        response = await running.predict(content=b"1", headers=headers)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == APP
        exposed = response.headers["access-control-expose-headers"]
        for name in ("Location", "Retry-After", "X-Prediction-Id"):
            assert name in exposed
        assert "access-control-allow-credentials" not in response.headers
        refused = await running.predict(content=b"1", headers={"origin": APP})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, APP)


async def test_another_page_may_not(broker, store):
    async with serving(broker), gateway(broker, store, cors_origins=[APP]) as running:
        other = {**PREFLIGHT, "origin": "https://evil.com"}
        assert (await running.http.options("/v1/models/echo/predictions", headers=other)).status_code == 400
        response = await running.predict(content=b"1", headers={"origin": "https://evil.com"})
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers


async def test_an_allowed_page_may_call_where_no_key_is_asked_for(broker, store):
    async with serving(broker), gateway(broker, store, cors_origins=[APP]) as running:
        response = await running.predict(content=b"1", headers={"origin": APP, "content-type": "a/b"})
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, APP)


def test_without_origins_there_is_nothing_in_between():
    async def app(scope, receive, send):
        pass

    assert with_cors(app, []) is app
