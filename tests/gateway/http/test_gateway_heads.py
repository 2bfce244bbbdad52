"""What the gateway reads from heads, and how it tells what is wrong with them."""

from __future__ import annotations

import time

import pytest
from gateway_running import gateway
from problems_seen import problem

from dumbwaiter.blobs.keyring import mint, save_key
from dumbwaiter.gateway.http.heads import one_of, read_head
from dumbwaiter.gateway.http.problems import ProblemError
from echo_worker import serving

pytestmark = pytest.mark.anyio


def scope(*headers):
    return {"headers": [(name.encode(), value.encode()) for name, value in headers]}


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "GZIP", "x" * 500])
def test_a_packed_body_is_refused_naming_its_encoding(coding):
    with pytest.raises(ProblemError) as caught:
        read_head(scope(("content-encoding", coding)))
    found = caught.value.problem
    assert (found.status, found.code) == (415, "unsupported-encoding")
    assert coding.lower().removeprefix("identity, ")[:40] in found.detail
    assert len(found.detail) < 150


@pytest.mark.parametrize("coding", ["identity", "Identity", "", "identity, identity"])
def test_a_body_that_is_not_packed_may_say_so(coding):
    assert read_head(scope(("content-encoding", coding), ("content-type", "a/b"))).content_type == "a/b"


def test_a_route_that_unpacks_bodies_reads_their_heads():
    assert read_head(scope(("content-encoding", "gzip")), inflates=True).declared is None


def test_what_is_said_twice_names_both_places():
    assert one_of("a", None, "priority") == one_of(None, "a", "priority") == one_of("a", "a", "priority") == "a"
    with pytest.raises(ProblemError, match="said twice, by a header and by a field, and"):
        one_of("a", "b", "priority")


@pytest.mark.parametrize(
    ("header", "values", "code"),
    [
        ("idempotency-key", ("a", "b"), "conflicting-idempotency-key"),
        ("dumbwaiter-priority", ("1", "2"), "conflicting-priority"),
        ("dumbwaiter-deadline", ("4102444800", "4102444801"), "conflicting-deadline"),
    ],
)
def test_a_header_that_is_said_twice_and_not_the_same_is_refused(header, values, code):
    with pytest.raises(ProblemError) as caught:
        read_head(scope(*((header, value) for value in values)))
    found = caught.value.problem
    assert (found.status, found.code) == (400, code)
    assert found.detail == f"{header.title()} is said twice, and not the same; send it once"
    assert read_head(scope((header, values[0]), (header, f" {values[0]} "))) == read_head(scope((header, values[0])))


@pytest.mark.parametrize("auth", ["on", "off"])
async def test_a_request_for_two_tenants_is_for_neither(broker, store, auth):
    key, token = mint(tenant="a", name="", now=time.time())
    await save_key(store, key)
    headers = [("dumbwaiter-tenant", "a"), ("authorization", f"Bearer {token}"), ("content-type", "text/plain")]
    async with serving(broker, store=store) as worker, gateway(broker, store, auth=auth) as running:
        for other in ("b", "a"):
            response = await running.predict(content=b"x", headers=[("dumbwaiter-tenant", other), *headers])
            if other == "b":
                problem(response, 400, "conflicting-tenant")
        assert response.status_code == 200
    assert [request.tenant for request in worker.requests] == ["a"]


async def test_no_model_is_handed_a_packed_body(broker, store):
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        response = await running.predict(content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
        problem(response, 415, "unsupported-encoding")
        assert "'gzip'" in response.json()["detail"]
    assert worker.requests == []


async def test_a_key_in_the_path_and_another_in_a_header_are_named_as_such(broker, store):
    async with serving(broker, store=store), gateway(broker, store) as running:
        headers = {"idempotency-key": "other", "content-type": "text/plain"}
        response = await running.http.put("/v1/models/echo/predictions/one", content=b"x", headers=headers)
        problem(response, 400, "conflicting-idempotency-key")
        assert "by the path and by a header" in response.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "use"),
    [
        ("GET", "/v1/models/echo/predictions", "use POST"),
        ("POST", "/v1/models/echo/predictions/key", "use GET or PUT"),
        ("DELETE", "/v1/models", "use GET"),
    ],
)
async def test_a_wrong_method_names_the_right_ones(broker, store, method, path, use):
    async with gateway(broker, store) as running:
        response = await running.http.request(method, path)
        problem(response, 405, "method-not-allowed")
        assert response.json()["detail"] == f"{method} is not allowed here; {use}"


async def test_a_body_over_the_limit_names_the_setting(broker, store):
    async with serving(broker, store=store), gateway(broker, store, body_limit=1000) as running:
        for content_type in ("a/b", "application/json"):
            response = await running.predict(content=bytes(2000), headers={"content-type": content_type})
            problem(response, 413, "body-too-large")
            assert "exceeds the limit of 1000 bytes (gateway.body_limit)" in response.json()["detail"]
