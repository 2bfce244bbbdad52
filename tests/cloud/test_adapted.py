"""What an adapter of whole requests and responses needs besides: here with the adapter of azure-functions itself."""

from __future__ import annotations

import asyncio
import logging

import azure.functions as func
import pytest

from dumbwaiter.cloud.adapted import refuse, serve
from dumbwaiter.errors import BrokerUnavailableError, ConfigError
from dumbwaiter.gateway.http.crowd import only_waiting
from dumbwaiter.gateway.http.sending import CallerWatch

pytestmark = pytest.mark.anyio


async def through(app, *, within=5.0):
    """The response to a request, as Azure's adapter makes it."""

    async def adapted(scope, receive, send):
        await serve(app, scope, receive, send, within=within)

    asked = func.HttpRequest("GET", "https://app.azurewebsites.net/", body=b"")
    return await func.AsgiMiddleware(adapted).handle_async(asked)


def start(headers=()):
    return {"type": "http.response.start", "status": 200, "headers": list(headers)}


async def test_a_response_that_breaks_off_is_never_taken_for_whole():
    async def app(scope, receive, send):
        await send(start())
        await send({"type": "http.response.body", "body": b"half of", "more_body": True})

    with pytest.raises(RuntimeError, match="broke off"):
        await through(app)


async def test_what_is_about_the_connection_goes_no_further():
    async def app(scope, receive, send):
        await send(start([(b"connection", b"close"), (b"x-kept", b"1")]))
        await send({"type": "http.response.body", "body": memoryview(b"all"), "more_body": True})
        await send({"type": "http.response.body"})

    answer = await through(app)
    assert answer.get_body() == b"all"
    assert dict(answer.headers) == {"x-kept": "1"}


async def test_nobody_waits_to_hear_that_the_caller_hangs_up():
    before = asyncio.all_tasks()

    async def app(scope, receive, send):
        CallerWatch(scope, receive)
        await send(start())

    with pytest.raises(RuntimeError):
        await through(app)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before, "an adapter that polls would do so for ever, for this response never ends"


async def test_a_request_that_only_waits_is_ended_in_time_and_no_other_is():
    async def follows(scope, receive, send):
        await send(start())
        with only_waiting(scope) as give_way:
            await give_way
        await send({"type": "http.response.body", "body": b"till here"})

    assert (await through(follows, within=0.05)).get_body() == b"till here"

    async def works(scope, receive, send):
        await asyncio.sleep(0.4)
        await send(start())
        await send({"type": "http.response.body", "body": b"done"})

    assert (await through(works, within=0.05)).get_body() == b"done"


async def test_one_that_begins_to_wait_too_late_is_ended_too():
    async def app(scope, receive, send):
        await asyncio.sleep(0.2)
        with only_waiting(scope) as give_way:
            await give_way
        await send(start())
        await send({"type": "http.response.body", "body": b"ended"})

    assert (await through(app, within=0.05)).get_body() == b"ended"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BrokerUnavailableError("amqp://10.1.2.3 refuses"), 503, "broker-unavailable"),
        (ConfigError("gateway.port: /srv/secret/dumbwaiter.toml"), 500, "internal-error"),
    ],
)
async def test_why_it_cannot_be_opened_is_for_the_log_alone(error, status, said, caplog):
    async def app(scope, receive, send):
        await refuse(send, error)

    with caplog.at_level(logging.ERROR):
        answer = await through(app)
    assert answer.status_code == status
    assert said.encode() in answer.get_body()
    assert b"10.1.2.3" not in answer.get_body()
    assert b"secret" not in answer.get_body()
    assert str(error) in caplog.text
