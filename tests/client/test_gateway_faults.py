"""Clients before a gateway that refuses, hangs up, goes silent, or is none at all; all of them on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from dumbwaiter import AsyncClient
from dumbwaiter.client import gateway_connection
from dumbwaiter.errors import (
    AccessError,
    ConfigError,
    GatewayError,
    GatewayUnavailableError,
    PredictionError,
    PredictionOutOfReachError,
    PredictionTimeoutError,
)
from dumbwaiter.policies import repeating
from http_servers import response, serving

pytestmark = pytest.mark.anyio


def problem(status, code, detail="because", **more):
    headers = {name: more.pop(name) for name in ("retry_after",) if name in more}
    body = json.dumps({"status": status, "code": code, "detail": detail, **more}).encode()
    return response(status, body, content_type="application/problem+json", **headers)


def succeeds(output="ok"):
    return response(200, output.encode(), content_type="text/plain; charset=utf-8", x_prediction_id="1")


def in_turn(*answers):
    """Each request gets the next of *answers*, the last one for ever. None: hang up."""
    left = list(answers)

    async def answer(asked, writer):
        data = left.pop(0) if len(left) > 1 else left[0]
        if data is None:
            writer.close()
            return
        writer.write(data)

    return answer


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that clients made before they asked again; none takes time."""
    made = []

    def pause_before(attempt, *, retry_after, luck):
        made.append((attempt, retry_after))
        return 0.0 if retry_after is None or retry_after < 60 else retry_after

    monkeypatch.setattr(gateway_connection, "pause_before", pause_before)
    return made


async def test_too_many_requests_are_asked_again_when_the_gateway_says(pauses):
    busy = problem(429, "rate-limited", retry_after=7)
    async with serving(in_turn(busy, busy, succeeds())) as server, AsyncClient(server.url("")) as client:
        assert await client.predict("m", "x") == "ok"
    assert pauses == [(1, 7.0), (2, 7.0)]


async def test_whoever_asks_too_much_at_once_is_slowed_down_as_long_as_patience_lasts(pauses):
    busy = problem(429, "too-many-in-flight", retry_after=1)
    async with serving(in_turn(*[busy] * 20, succeeds())) as server, AsyncClient(server.url(""), retries=1) as client:
        assert await client.predict("m", "x") == "ok"
    async with serving(in_turn(busy)) as server, AsyncClient(server.url(""), retries=1) as client:
        with pytest.raises(GatewayError, match="429 too-many-in-flight"):
            await client.submit("m", "x")
        assert len(server.asked) == 2
    async with serving(in_turn(busy)) as server, AsyncClient(server.url(""), retries=0) as client:
        with pytest.raises(GatewayError, match="429 too-many-in-flight"):
            await client.predict("m", "x")
        assert len(server.asked) == 1


@pytest.mark.parametrize("answer", [problem(503, "shutting-down", retry_after=1), problem(502, "bad"), None])
async def test_whoever_cannot_serve_now_is_asked_again_a_few_times(pauses, answer):
    async with serving(in_turn(answer)) as server, AsyncClient(server.url(""), retries=2) as client:
        with pytest.raises(GatewayUnavailableError):
            await client.predict("m", "x")
        assert len(server.asked) == 3
    async with serving(in_turn(answer)) as server, AsyncClient(server.url(""), retries=0) as client:
        with pytest.raises(GatewayUnavailableError):
            await client.predict("m", "x")
        assert len(server.asked) == 1


async def test_a_pause_that_outlasts_the_callers_patience_is_not_made(pauses):
    busy = problem(503, "busy", "the wait is long", retry_after=90)
    async with serving(in_turn(busy)) as server, AsyncClient(server.url("")) as client:
        with pytest.raises(GatewayUnavailableError, match="answered 503 busy: the wait is long") as caught:
            await client.predict("m", "x", timeout=30)
    assert caught.value.retry_after == 90
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (problem(401, "no-key", "send an API key"), AccessError, "401 no-key: send an API key"),
        (problem(403, "foreign-tenant"), AccessError, "403 foreign-tenant"),
        (problem(500, "internal-error"), GatewayError, "500 internal-error"),
        (problem(503, "model-failing", "cannot be loaded", retry_after=5), GatewayUnavailableError, "cannot be loaded"),
        (problem(503, "transient", "later", attempts=10, retry_after=1), PredictionError, "transient: later"),
        (problem(504, "no-answer-in-time", "no worker runs"), PredictionTimeoutError, "no worker runs"),
        (response(200, b"<html>hello</html>", content_type="application/json"), GatewayError, "<html>hello</html>; ch"),
        (response(404, b"nothing", content_type="text/plain"), GatewayError, "no gateway answers like this: nothing"),
        (response(301, location="https://elsewhere/"), GatewayError, "it is at https://elsewhere/ now; use that URL"),
    ],
)
async def test_what_another_try_cannot_help_is_raised_at_once(answer, error, words, pauses):
    async with serving(in_turn(answer)) as server, AsyncClient(server.url("")) as client:
        with pytest.raises(error) as caught:
            await client.predict("m", "x")
        assert words in str(caught.value)
        assert len(server.asked) == 1
        if isinstance(caught.value, GatewayError):
            assert server.url("") in str(caught.value)


async def test_a_response_that_breaks_off_in_the_middle_is_asked_for_again(pauses):
    half = response(200, b"half", content_type="text/plain", content_length="100")

    async def answer(asked, writer):
        writer.write(succeeds() if len(server.asked) > 1 else half)
        if len(server.asked) == 1:
            await writer.drain()
            writer.close()

    async with serving(answer) as server, AsyncClient(server.url("")) as client:
        assert await client.predict("m", "x") == "ok"
    assert len(server.asked) == 2


async def test_one_that_always_breaks_off_is_named(pauses):
    half = response(200, b"half", content_type="text/plain", content_length="100")

    async def answer(asked, writer):
        writer.write(half)
        await writer.drain()
        writer.close()

    async with serving(answer) as server, AsyncClient(server.url("")) as client:
        with pytest.raises(GatewayUnavailableError, match="it hung up before its response was complete; ask again; if"):
            await client.predict("m", "x")


async def test_repetitions_carry_the_same_key_and_what_patience_is_left(pauses):
    settings = {"idempotent": True, "api_key": "dw_1_2", "headers": {"x-team": "a"}}
    answers = in_turn(problem(503, "busy"), succeeds())
    async with serving(answers) as server, AsyncClient(server.url(""), **settings) as client:
        await client.predict("m", {"a": 1}, timeout=20)
        await client.predict("m", "x", timeout=0.5, idempotency_key="mine")
    first, again, other = (asked.headers for asked in server.asked)
    assert first["idempotency-key"] == again["idempotency-key"]
    assert other["idempotency-key"] == "mine"
    assert (first["prefer"], other["prefer"]) == ("wait=20", "wait=1")
    assert (first["authorization"], first["x-team"]) == ("Bearer dw_1_2", "a")
    assert server.asked[0].body == b'{"input":{"a":1}}'


async def test_a_plain_prediction_has_no_key_and_a_submitted_one_has(pauses):
    accepted = response(202, b'{"id":"7","status":"starting"}', content_type="application/json")

    async def answer(asked, writer):
        writer.write(accepted if "respond-async" in asked.headers.get("prefer", "") else succeeds())

    async with serving(answer) as server:
        async with AsyncClient(server.url("")) as client:
            await client.predict("m", "x")
            assert (await client.submit("m", "x")).id == "7"
        async with AsyncClient(server.url(""), retries=0) as client:
            await client.submit("m", "x")
    keys = ["idempotency-key" in asked.headers for asked in server.asked]
    assert keys == [False, True, False]


async def test_the_api_key_comes_from_the_environment_where_none_is_given(monkeypatch):
    monkeypatch.setenv("DUMBWAITER_API_KEY", "dw_env_1")
    async with serving(in_turn(succeeds())) as server:
        async with AsyncClient(server.url("")) as client:
            await client.predict("m", "x")
        async with AsyncClient(server.url(""), api_key="dw_given_1") as client:
            await client.predict("m", "x")
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer dw_env_1", "Bearer dw_given_1"]


async def test_proxies_of_the_environment_are_not_asked_for_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with serving(in_turn(succeeds())) as server, AsyncClient(server.url("")) as client:
        assert await client.predict("m", "x") == "ok"


async def test_a_silent_gateway_does_not_outlast_the_callers_patience():
    async def answer(asked, writer):
        await asyncio.Event().wait()

    async with serving(answer) as server, AsyncClient(server.url("")) as client:
        with pytest.raises(PredictionTimeoutError, match=r"no answer from 'm' within 0\.2 s"):
            await client.predict("m", "x", timeout=0.2)
        with pytest.raises(PredictionTimeoutError, match=r"no result of '7' within 0\.2 s"):
            await client.result("7", 0.2)


async def test_nobody_listens(unused_port, pauses):
    url = f"http://127.0.0.1:{unused_port}"
    async with AsyncClient(url) as client:
        with pytest.raises(GatewayUnavailableError) as caught:
            await client.predict("m", "x")
    assert str(caught.value) == f"gateway {url}: nothing listens there; check host and port, and that it runs"
    assert len(pauses) == 3


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_a_name_that_does_not_resolve_is_told_at_once(pauses, monkeypatch):
    async def getaddrinfo(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with AsyncClient("http://nowhere.invalid:8080") as client:
        with pytest.raises(GatewayError) as caught:
            await client.predict("m", "x")
    said = "gateway http://nowhere.invalid:8080: the name 'nowhere.invalid' cannot be resolved; check the URL"
    assert str(caught.value) == said
    assert pauses == []


async def test_tls_to_a_plain_port_says_so(pauses):
    async with serving(in_turn(succeeds())) as server, AsyncClient(server.url("", scheme="https")) as client:
        with pytest.raises(GatewayError, match="it does not speak TLS as https needs it; if it speaks plain HTTP, say"):
            await client.predict("m", "x")
    assert pauses == []


async def test_plain_http_to_a_tls_port_says_so(pauses):
    alert = b"\x15\x03\x01\x00\x02\x02\x46"  # what a TLS server says to anything else
    async with serving(in_turn(alert)) as server, AsyncClient(server.url("")) as client:
        with pytest.raises(GatewayUnavailableError, match="if it speaks TLS, say https://"):
            await client.predict("m", "x")


@pytest.mark.parametrize(
    "url", ["http://", "http://host:port", "http://host/?key=1", "https://host/#there", "http://[::1"]
)
async def test_what_is_no_url_of_a_gateway_is_named(url):
    with pytest.raises(ConfigError, match="is no URL of a gateway") as caught:
        AsyncClient(url)
    assert url in str(caught.value)


async def test_settings_that_are_of_no_use_with_a_broker_are_refused(service):
    for setting in ({"api_key": "k"}, {"headers": {"a": "b"}}, {"idempotent": True}):
        with pytest.raises(ConfigError, match=f"{next(iter(setting))} is for a gateway, and .* is a broker"):
            AsyncClient(service.url, **setting)
    async with AsyncClient(service.url) as client:
        with pytest.raises(ConfigError, match="idempotency keys are kept by gateways"):
            await client.predict("echo", 1, idempotency_key="k")


async def test_a_password_in_the_url_is_not_shown(unused_port):
    async with AsyncClient(f"http://me:secret@127.0.0.1:{unused_port}", retries=0) as client:
        with pytest.raises(GatewayUnavailableError) as caught:
            await client.predict("m", "x")
    assert "secret" not in str(caught.value)


# --- kept results ---


async def test_a_kept_result_is_looked_for_however_often_its_gateway_is_away_meanwhile(pauses):
    away = [problem(503, "shutting-down", retry_after=1), None] * 8
    for timeout in (30, None):
        async with serving(in_turn(*away, succeeds())) as server, AsyncClient(server.url(""), retries=1) as client:
            assert await client.result("7", timeout) == "ok"
        assert len(server.asked) == 17


async def test_whoever_wants_no_repetition_gets_none_for_kept_results_either(pauses):
    async with serving(in_turn(None, succeeds())) as server, AsyncClient(server.url(""), retries=0) as client:
        with pytest.raises(GatewayUnavailableError):
            await client.result("7", 30)


async def test_a_gateway_that_stays_away_until_patience_ends_is_told_with_the_id():
    async with serving(in_turn(None)) as server, AsyncClient(server.url("")) as client:
        with pytest.raises(
            PredictionOutOfReachError, match=r"it hung up .*; it was asked about the kept request 7"
        ) as caught:
            await client.result("7", 0.8)
        assert (caught.value.id, len(server.asked) > 2) == ("7", True)


# --- streams ---


def stream_of(*events, ends=True):
    text = "".join(f"id: {id_}\nevent: {name}\ndata: {data}\n\n" for id_, name, data in events)
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    body = f"{len(text):x}\r\n{text}\r\n" + ("0\r\n\r\n" if ends else "")
    return (head + body).encode()


async def test_a_stream_that_is_cut_goes_on_where_it_was_cut(pauses):
    accepted = response(202, b'{"id":"7","status":"starting"}', content_type="application/json")
    streams = [
        stream_of(("1-1", "start", "{}"), ("1-2", "output", '"a"'), ends=False),
        None,
        stream_of(("1-3", "output", '"b"')),
        stream_of(("completed", "completed", '{"id":"7","status":"succeeded"}')),
    ]

    async def answer(asked, writer):
        if asked.path.endswith("/events"):
            data = streams.pop(0)
            if data is not None:
                writer.write(data)
                await writer.drain()
            if data is None or not data.endswith(b"0\r\n\r\n"):
                writer.close()
        else:
            writer.write(accepted if asked.method == "POST" else response(200, b'["a","b"]', content_type="a/json"))

    async with serving(answer) as server, AsyncClient(server.url("")) as client:
        assert [output async for output in client.stream("m", "x")] == ["a", "b"]
    looked = [asked.headers.get("last-event-id") for asked in server.asked if asked.path.endswith("/events")]
    assert looked == [None, "1-2", "1-2", "1-3"]


async def test_a_stream_that_breaks_after_a_long_silence_was_alive_and_is_opened_again_soon(pauses, monkeypatch):
    monkeypatch.setattr(repeating, "STEADY_AFTER", -1.0)
    accepted = response(202, b'{"id":"7","status":"starting"}', content_type="application/json")
    quiet = stream_of(("", "message", ""))
    streams = [*[quiet] * 5, stream_of(("completed", "completed", '{"id":"7","status":"succeeded"}'))]

    async def answer(asked, writer):
        if asked.path.endswith("/events"):
            writer.write(streams.pop(0))
        else:
            writer.write(accepted if asked.method == "POST" else response(200, b"soup", content_type="text/plain"))

    async with serving(answer) as server, AsyncClient(server.url(""), retries=1) as client:
        assert [output async for output in client.stream("m", "x")] == ["soup"]
    assert streams == []
    assert [attempt for attempt, _ in pauses] == [1] * 5


async def test_a_stream_goes_on_through_an_outage_that_is_longer_than_its_repetitions(pauses):
    accepted = response(202, b'{"id":"7","status":"starting"}', content_type="application/json")
    away = [None, problem(503, "shutting-down", retry_after=1)] * 8
    streams = [stream_of(("1-1", "output", '"a"')), *away, stream_of(("1-2", "output", '"b"')), *away]
    streams.append(stream_of(("completed", "completed", '{"id":"7","status":"succeeded"}')))

    async def answer(asked, writer):
        if not asked.path.endswith("/events"):
            writer.write(accepted if asked.method == "POST" else response(200, b'["a","b"]', content_type="a/json"))
        elif (data := streams.pop(0)) is None:
            writer.close()
        else:
            writer.write(data)

    async with serving(answer) as server, AsyncClient(server.url(""), retries=1) as client:
        assert [output async for output in client.stream("m", "x", timeout=30)] == ["a", "b"]
    assert streams == []


async def test_a_stream_that_is_cut_until_patience_ends_is_an_error_with_its_id_and_the_request_is_cancelled():
    accepted = response(202, b'{"id":"7","status":"starting"}', content_type="application/json")

    async def answer(asked, writer):
        if asked.path.endswith("/events"):
            writer.write(stream_of(("", "message", "")))
        else:
            writer.write(accepted)

    async with serving(answer) as server, AsyncClient(server.url(""), retries=1) as client:
        with pytest.raises(
            PredictionOutOfReachError, match=r"the events of 7 ended early; .* about the kept request 7"
        ) as caught:
            await anext(client.stream("m", "x", timeout=1.0))
        assert caught.value.id == "7"
    assert [asked.path for asked in server.asked].count("/v1/predictions/7/events") > 2
    assert server.asked[-1].path == "/v1/predictions/7/cancel"
