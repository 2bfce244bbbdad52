"""A gateway behind an adapter that hands over whole requests and takes whole responses, and knows no connections."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dumbwaiter.errors import ConfigError, DumbwaiterError
from dumbwaiter.gateway.http.crowd import wait_of
from dumbwaiter.gateway.http.problems import FAULT, encode, problem_of
from dumbwaiter.gateway.http.sending import HANG_UPS, send_whole
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOK_EVERY = 0.25
_OF_THE_CONNECTION = b"connection"
_log = logging.getLogger("dumbwaiter.gateway")


async def serve(app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, within: float) -> None:
    """Have *app* answer the request of *scope*. A response that follows a prediction ends after *within* seconds, so
    that the caller gets what has come by then, and goes on from there.

    Raises RuntimeError when the response is not whole: an adapter would send the half for the whole.
    """
    # None of the adapters tells when a caller hangs up, so nobody need wait to hear it.
    scope = {**scope, HANG_UPS: []}
    is_whole = False

    async def sent(message: Message) -> None:
        nonlocal is_whole
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"] if name.lower() != _OF_THE_CONNECTION]
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            message = {**message, "body": bytes(message.get("body", b""))}
            is_whole = not message.get("more_body", False)
        await send(message)

    ending = asyncio.create_task(_end_the_wait(scope, within))
    try:
        await app(scope, receive, sent)
    finally:
        await end([ending])
    if not is_whole:
        raise RuntimeError("the response broke off in the middle; the log says why")


async def refuse(send: Send, error: Exception) -> None:
    """The gateway cannot be opened because of *error*: the log says why, and the caller hears what it may."""
    problem = FAULT
    if isinstance(error, DumbwaiterError) and not isinstance(error, ConfigError):
        problem = problem_of(error)
    _log.error("the gateway cannot serve: %s", error or type(error).__name__)
    await send_whole(send, problem.status, *encode(problem))


async def _end_the_wait(scope: Scope, within: float) -> None:
    """Let the request of *scope* end, after *within* seconds, as soon as it only waits."""
    await asyncio.sleep(within)
    while True:
        wait = wait_of(scope)
        if wait is not None and not wait.give_way.done():
            wait.give_way.set_result(None)
        await asyncio.sleep(_LOOK_EVERY)
