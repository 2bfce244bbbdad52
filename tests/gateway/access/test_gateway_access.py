"""Who may ask: API keys, tenants, and what a gateway without keys refuses all the same."""

from __future__ import annotations

import asyncio
import time

import pytest
from gateway_running import gateway, raw_connection

from dumbwaiter.blobs.keyring import expire_key, mint, revoke_key, save_key
from dumbwaiter.blobs.presence import WorkerStatus, announce
from dumbwaiter.config import GatewaySettings, is_loopback
from dumbwaiter.errors import BlobError, ConfigError
from dumbwaiter.gateway import run_gateway
from dumbwaiter.gateway.access import callers as access_module
from dumbwaiter.gateway.access.callers import Access, Caller
from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.testing import eventually
from echo_worker import serving

pytestmark = pytest.mark.anyio

BODY = {"content": b"1", "headers": {"content-type": "a/b"}}


async def new_key(store, **facts):
    key, token = mint(**{"tenant": None, "name": "", "now": time.time(), **facts})
    await save_key(store, key)
    return key, token


def scope_of(*headers, method="POST", path="/v1/models/echo/predictions"):
    pairs = [(b"host", b"127.0.0.1"), *((name.encode(), value.encode("latin-1")) for name, value in headers)]
    return {"type": "http", "method": method, "path": path, "headers": pairs}


def bearer(token):
    return ("authorization", f"Bearer {token}")


async def refusal(access, scope):
    with pytest.raises(ProblemError) as caught:
        await access.admit(scope)
    return caught.value.problem


@pytest.fixture
async def locked(store):
    access = Access(store, GatewaySettings(auth="on"))
    yield access
    await access.close()


@pytest.fixture
def unlocked(store):
    return Access(store, GatewaySettings())


# --- with keys ---


@pytest.mark.parametrize(
    "header",
    [
        lambda token: {"Authorization": f"Bearer {token}"},
        lambda token: {"authorization": f"bearer   {token}"},
        lambda token: {"Authorization": f"Token {token}"},
        lambda token: {"X-API-Key": token},
        lambda token: {"Authorization": "Basic dTpw", "X-API-Key": token},
    ],
)
async def test_a_key_opens_the_door_however_it_is_sent(broker, store, header):
    _, token = await new_key(store)
    async with serving(broker), gateway(broker, store, auth="on") as running:
        headers = {"content-type": "a/b", **header(token)}
        assert (await running.predict(content=b"1", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("authorization", "Bearer {}"), ("authorization", "Bearer {}")),
        (("x-api-key", "{}"), ("x-api-key", "{}")),
        (("authorization", "Token {}"), ("x-api-key", "{}")),
    ],
)
async def test_two_keys_in_one_request_are_refused_unless_they_are_the_same(broker, store, one, other):
    tokens = [(await new_key(store, tenant=tenant))[1] for tenant in ("a", "b")]

    def said(first, second):
        return [("content-type", "a/b"), (one[0], one[1].format(first)), (other[0], other[1].format(second))]

    async with serving(broker) as worker, gateway(broker, store, auth="on") as running:
        for two in (tokens, tokens[::-1]):
            refused = await running.predict(content=b"1", headers=said(*two))
            assert (refused.status_code, refused.json()["code"]) == (400, "conflicting-api-key")
            assert not any(token in refused.text for token in tokens)
        assert not worker.requests
        assert (await running.predict(content=b"1", headers=said(tokens[0], tokens[0]))).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/models/echo/predictions", "/nothing", "/v2/models/echo"])
async def test_without_a_key_nothing_but_health_and_the_page_is_open(broker, store, path):
    await new_key(store)
    async with serving(broker) as worker, gateway(broker, store, auth="on") as running:
        for request in (running.http.get(path), running.http.post(path, content=b"1")):
            response = await request
            assert (response.status_code, response.json()["code"]) == (401, "no-api-key")
            assert response.headers["www-authenticate"] == 'Bearer realm="dumbwaiter"'
        for health in ("live", "ready"):
            assert (await running.http.get(f"/v2/health/{health}")).status_code == 200
        assert (await running.http.get("/docs")).status_code in (200, 404)
    assert not worker.requests


async def test_a_browser_without_a_key_is_sent_to_the_page_where_it_can_be_typed_in(broker, store):
    await new_key(store)
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    async with gateway(broker, store, auth="on") as running:
        response = await running.http.get("/", headers=browser)
        assert (response.status_code, response.headers["location"], response.content) == (303, "docs", b"")
        assert (await running.http.get("/", headers=browser, follow_redirects=True)).status_code == 200
    async with gateway(broker, store, auth="on", docs=False) as running:
        assert (await running.http.get("/", headers=browser)).status_code == 401


async def test_a_body_is_not_read_for_whoever_may_not_ask(broker, store):
    await new_key(store)
    async with gateway(broker, store, auth="on") as running, raw_connection(running.port) as (reader, writer):
        writer.write(b"POST /v1/models/echo/predictions HTTP/1.1\r\nHost: localhost\r\n")
        writer.write(b"Content-Length: 30000000\r\n\r\nabc")
        answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    "wrong",
    [
        lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"),
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: token.upper(),
        lambda token: token.replace("dw_", "dx_"),
        lambda token: "dw_" + "0" * 12 + token[15:],
        lambda token: "",
        lambda token: "x" * 20_000,
        lambda token: "\xe9",
    ],
)
async def test_anything_but_the_whole_key_is_refused(locked, store, wrong):
    _, token = await new_key(store)
    problem = await refusal(locked, scope_of(bearer(wrong(token))))
    assert problem.status == 401
    assert problem.code in ("unknown-api-key", "no-api-key")
    assert token[16:] not in problem.detail


async def test_an_expired_key_is_told_so_and_a_stranger_with_its_id_is_not(locked, store):
    key, token = await new_key(store, expires_at=time.time() - 1)
    problem = await refusal(locked, scope_of(bearer(token)))
    assert (problem.code, problem.headers["WWW-Authenticate"]) == (
        "expired-api-key",
        'Bearer realm="dumbwaiter", error="invalid_token"',
    )
    assert key.id in problem.detail
    assert (await refusal(locked, scope_of(bearer(token[:-2] + "00")))).code == "unknown-api-key"


async def test_a_key_made_while_the_gateway_runs_is_found_at_once(locked, store, monkeypatch):
    monkeypatch.setattr(access_module, "READ_AGAIN_AFTER", 0.0)
    _, first = await new_key(store)
    await locked.admit(scope_of(bearer(first)))
    _, second = await new_key(store)
    assert (await locked.admit(scope_of(bearer(second)))).key is not None


async def test_unknown_keys_look_into_the_store_at_most_once_a_second(locked, store):
    await new_key(store)
    looks, list_ = [], store.list

    async def counting(prefix):
        looks.append(prefix)
        return await list_(prefix)

    store.list = counting
    for _ in range(100):
        _, token = mint(tenant=None, name="", now=0.0)
        assert (await refusal(locked, scope_of(bearer(token)))).code == "unknown-api-key"
    assert len(looks) <= 2


async def test_a_revoked_key_is_refused_within_seconds(broker, store, monkeypatch):
    monkeypatch.setattr(access_module, "READ_EVERY", 0.05)
    monkeypatch.setattr(access_module, "READ_AGAIN_AFTER", 0.0)
    key, token = await new_key(store)
    _, other = await new_key(store)
    async with gateway(broker, store, auth="on") as running:

        async def status(token):
            return (await running.http.get("/v1/models", headers={"x-api-key": token})).status_code

        assert await status(token) == 200
        await revoke_key(store, key.id)

        async def is_refused():
            return await status(token) == 401

        await eventually(is_refused)
        assert await status(other) == 200


async def test_both_keys_are_good_while_a_rotation_overlaps(locked, store):
    old, old_token = await new_key(store, tenant="acme")
    _, token = await new_key(store, tenant="acme")
    await expire_key(store, old.id, at=time.time() + 3600)
    for each in (old_token, token):
        assert (await locked.admit(scope_of(bearer(each)))).tenant == "acme"


class Outage:
    """A store that can be down, or hang."""

    def __init__(self, store):
        self._list = store.list
        self.how = None
        store.list = self.list

    async def list(self, prefix):
        if self.how == "down":
            raise BlobError("s3://secret-bucket is down")
        if self.how == "hangs":
            await asyncio.Event().wait()
        return await self._list(prefix)


@pytest.mark.parametrize("how", ["down", "hangs"])
async def test_while_the_store_is_out_the_known_keys_stay_good_and_no_other_becomes_so(locked, store, monkeypatch, how):
    monkeypatch.setattr(access_module, "READ_AGAIN_AFTER", 0.0)
    monkeypatch.setattr(access_module, "READ_WITHIN", 0.2)
    monkeypatch.setattr(access_module, "TRUSTED_FOR", 0.0)
    _, token = await new_key(store)
    await locked.admit(scope_of(bearer(token)))
    outage = Outage(store)
    outage.how = how
    for _ in range(5):
        assert (await locked.admit(scope_of(bearer(token)))).key is not None
    _, stranger = await new_key(store)
    assert (await refusal(locked, scope_of(bearer(stranger)))).code == "unknown-api-key"
    outage.how = None
    if how == "down":
        assert (await locked.admit(scope_of(bearer(stranger)))).key is not None


@pytest.mark.parametrize("how", ["down", "hangs"])
async def test_keys_that_could_never_be_read_open_no_door(locked, store, monkeypatch, how):
    monkeypatch.setattr(access_module, "READ_WITHIN", 0.2)
    _, token = await new_key(store)
    Outage(store).how = how
    for _ in range(3):
        problem = await refusal(locked, scope_of(bearer(token)))
        assert (problem.status, problem.code, problem.retry_after) == (503, "keys-unavailable", 1)
        assert "secret-bucket" not in problem.detail


async def test_the_second_look_at_a_request_costs_no_second_token(locked, store):
    _, token = await new_key(store, rate=0.001, burst=1.0)
    scope = scope_of(bearer(token))
    caller = await locked.admit(scope)
    assert await locked.admit(scope) is caller


# --- tenants ---


async def test_the_tenant_is_that_of_the_key(locked, store):
    _, token = await new_key(store, tenant="acme")
    caller = await locked.admit(scope_of(bearer(token)))
    assert caller.tenant == "acme"
    assert caller.as_tenant(None) is caller.as_tenant("acme") is caller
    named = scope_of(bearer(token), ("dumbwaiter-tenant", "acme"))
    assert (await locked.admit(named)).tenant == "acme"


@pytest.mark.parametrize("tenant", ["acme", None])
async def test_a_key_speaks_for_no_other_tenant(locked, store, tenant):
    _, token = await new_key(store, tenant=tenant)
    problem = await refusal(locked, scope_of(bearer(token), ("dumbwaiter-tenant", "other")))
    assert (problem.status, problem.code) == (403, "foreign-tenant")
    assert "names the tenant 'other', and its API key " in problem.detail
    assert (f"is of the tenant {tenant!r}" if tenant else "is of no tenant") in problem.detail
    caller = await locked.admit(scope_of(bearer(token)))
    with pytest.raises(ProblemError) as caught:
        caller.as_tenant("other")
    assert caught.value.problem.status == 403


async def test_without_keys_the_request_names_its_tenant_in_one_place_or_the_same_in_both(unlocked):
    assert (await unlocked.admit(scope_of())) == Caller()
    caller = await unlocked.admit(scope_of(("dumbwaiter-tenant", "acme")))
    assert (caller.tenant, caller.key_id) == ("acme", None)
    assert caller.as_tenant("acme") is caller
    assert (await unlocked.admit(scope_of())).as_tenant("acme").tenant == "acme"
    with pytest.raises(ProblemError):
        caller.as_tenant("other")


@pytest.mark.parametrize("name", ["", " ", "x" * 129, "a\x00b", "a\tb"])
async def test_a_name_that_no_tenant_can_have_is_400(unlocked, name):
    problem = await refusal(unlocked, scope_of(("dumbwaiter-tenant", name)))
    assert (problem.status, problem.code) == (400, "invalid-tenant")


# --- without keys ---


async def test_a_host_that_is_not_ours_is_421_so_that_no_name_can_be_rebound_to_us(broker, store):
    async with serving(broker) as worker, gateway(broker, store) as running:
        response = await running.predict(content=b"1", headers={"content-type": "a/b", "host": "evil.com:8080"})
        assert (response.status_code, response.json()["code"]) == (421, "unknown-host")
        assert "gateway.public_url" in response.json()["detail"]
        assert (await running.http.get("/v1/models", headers={"host": "evil.com"})).status_code == 421
        assert (await running.http.get("/v2/health/live", headers={"host": "evil.com"})).status_code == 200
        assert (await running.http.get("/v1/models", headers={"host": "localhost:1"})).status_code == 200
    assert not worker.requests


@pytest.mark.parametrize("origin", ["https://evil.com", "null", "http://127.0.0.1:1"])
async def test_a_foreign_page_cannot_send_a_form(broker, store, origin):
    """Such a request needs no preflight, so CORS alone would not stop it from running."""
    async with serving(broker) as worker, gateway(broker, store) as running:
        response = await running.predict(content=b"1", headers={"content-type": "text/plain", "origin": origin})
        assert (response.status_code, response.json()["code"]) == (403, "foreign-origin")
        own = {"content-type": "text/plain", "origin": f"http://127.0.0.1:{running.port}"}
        assert (await running.predict(content=b"1", headers=own)).status_code == 200
    assert len(worker.requests) == 1


async def test_many_host_names_fill_no_memory(unlocked, monkeypatch):
    monkeypatch.setattr(access_module, "MOST_HOSTS", 10)
    for number in range(100):
        scope = scope_of()
        scope["headers"] = [(b"host", b"h%d.internal" % number)]
        await unlocked.admit(scope)
    assert len(unlocked._good_hosts) == 10


# --- where keys are needed ---


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LocalHost"])
def test_loopback_is_for_this_machine(host):
    assert is_loopback(host)
    assert not GatewaySettings(host=host).needs_keys
    assert GatewaySettings(host=host, auth="on").needs_keys


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.1", "gateway", "::ffff:10.0.0.1", "localhost.evil.com"]
)
def test_anything_else_is_not(host):
    assert not is_loopback(host)
    assert GatewaySettings(host=host).needs_keys
    assert not GatewaySettings(host=host, auth="off").needs_keys


async def test_it_refuses_to_listen_elsewhere_while_nobody_has_a_key_and_names_both_ways_out(broker, store):
    await new_key(store, expires_at=time.time() - 1)
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0.*dumbwaiter keys create.*gateway\.auth = \"off\""):
        await run_gateway(broker, store, GatewaySettings(host="0.0.0.0", port=0))


@pytest.mark.parametrize("with_key", [True, False])
async def test_it_listens_elsewhere_with_a_key_or_when_told_to(broker, store, with_key, caplog):
    await announce(store, WorkerStatus(worker="w", model="echo", state="ready"))
    headers = {}
    if with_key:
        _, token = await new_key(store)
        headers = {"x-api-key": token}
    options = {"host": "0.0.0.0", "auth": "auto" if with_key else "off"}
    async with gateway(broker, store, **options) as running:
        assert (await running.http.get("/v1/models", headers=headers)).status_code == 200
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ([] if with_key else ['everybody who reaches 0.0.0.0 may ask: gateway.auth is "off"'])


async def test_on_loopback_it_starts_without_keys_and_says_so(broker, store, caplog):
    async with gateway(broker, store, auth="on") as running:
        assert (await running.http.get("/v1/models")).status_code == 401
    assert "nobody has one: make one with `dumbwaiter keys create`" in caplog.text
