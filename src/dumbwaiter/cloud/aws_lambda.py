"""``dumbwaiter.cloud.aws_lambda.handler``: the gateway as a Lambda function, by Mangum.

Lambda freezes the process between two invocations, may thaw it hours later, and ends it without a word. So each
invocation has a gateway of its own, which is closed before its response leaves: nothing that matters goes on in
between, and no inbox is left behind. Only the connections to the broker and the store are kept, and tried after a rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from dumbwaiter.cloud.adapted import refuse, serve
from dumbwaiter.cloud.backend import Backend
from dumbwaiter.cloud.lambda_events import below_its_stage, is_balanced, most_nbytes, nbytes_of, seconds_left
from dumbwaiter.config import load_settings
from dumbwaiter.errors import BrokerUnavailableError, DumbwaiterError, MissingExtraError
from dumbwaiter.gateway.http.problems import Problem, encode
from dumbwaiter.gateway.predictions.sweeping import sweep_once
from dumbwaiter.observe import configure_logging

try:
    from mangum import Mangum
except ModuleNotFoundError as missing:
    raise MissingExtraError("mangum", "aws-lambda") from missing

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from dumbwaiter.config import Settings

_SWEEP = {"aws.events", "aws.scheduler"}
_log = logging.getLogger("dumbwaiter.gateway")


class LambdaHandler:
    """What Lambda calls with an event and a context: one at a time, in one thread.

    Events of API Gateway (HTTP and REST), function URLs and load balancers are requests. One of EventBridge, by a
    schedule, removes what is too old from the blob store, which gateways elsewhere do by themselves.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Of its own, for what it has opened lives on from one invocation to the next.
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._backend = Backend(settings)
        self._mangum = Mangum(self._app, lifespan="off")

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        asyncio.set_event_loop(self._loop)
        if event.get("source") in _SWEEP:
            return {"removed": self._loop.run_until_complete(self._sweep())}
        response: dict[str, Any] = self._mangum(event, context)
        most = most_nbytes(event)
        nbytes = nbytes_of(response, most, runtime=os.environ.get("AWS_EXECUTION_ENV", ""))
        return response if nbytes <= most else self._too_large(nbytes, most, event, context)

    def close(self) -> None:
        """Close what it has opened. Lambda never does, and need not."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._backend.close())
        asyncio.set_event_loop(None)
        self._loop.close()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        event = scope["aws.event"]
        try:
            async with asyncio.timeout(max(1.0, seconds_left(scope["aws.context"], event))):
                opened = await self._backend.opened()
        except TimeoutError:
            await refuse(send, BrokerUnavailableError("neither broker nor blob store answered in time"))
            return
        except DumbwaiterError as error:
            await refuse(send, error)
            return
        left = max(1.0, seconds_left(scope["aws.context"], event))
        gateway = self._backend.gateway(opened, max_patience=left)
        try:
            async with gateway.serving(sweeps=False):
                await serve(gateway.app, below_its_stage(scope, event), receive, send, within=left)
        finally:
            self._backend.note_used()

    async def _sweep(self) -> int:
        options = self._settings.gateway
        if not options.results_kept_for:
            return 0
        store = (await self._backend.opened()).store
        return await sweep_once(store, options.results_kept_for, longest_wait=options.max_patience)

    def _too_large(self, nbytes: int, most: int, event: dict[str, Any], context: Any) -> dict[str, Any]:
        door = "a load balancer before AWS Lambda" if is_balanced(event) else "AWS Lambda"
        detail = (
            f"the answer takes {nbytes} bytes, and {door} lets no more than {most} through; "
            "fetch it from a gateway that runs elsewhere"
        )
        _log.warning("an answer of %d bytes is too large for %s", nbytes, door)
        headers, body = encode(Problem(status=502, code="answer-too-large", detail=detail, members={"limit": most}))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - as ASGI has it
            await send({"type": "http.response.start", "status": 502, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        said: dict[str, Any] = Mangum(app, lifespan="off")(event, context)
        return said


def _handler() -> LambdaHandler:
    settings = load_settings()
    # In place of Lambda's own, which would say everything twice.
    configure_logging(
        level=settings.log_level, log_format="json" if settings.log_format == "auto" else settings.log_format
    )
    logging.getLogger("mangum").setLevel(logging.WARNING)
    return LambdaHandler(settings)


handler = _handler()
