"""The gateway as an ASGI application: routes, health, and who is opened and closed with it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from dumbwaiter.asking import Asker
from dumbwaiter.errors import BlobError, BrokerError
from dumbwaiter.gateway.catalogue import Catalogue
from dumbwaiter.gateway.predictions import Predictions
from dumbwaiter.gateway.problems import (
    RETRY_SOON,
    ModelFailingError,
    Problem,
    ShuttingDownError,
    encode,
    one_line,
    problem_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import GatewaySettings

READY_WITHIN = 2.0
"""A broker that takes longer than this many seconds to answer is not ready."""

_CODES: Mapping[int, str] = {404: "not-found", 405: "method-not-allowed"}


class Gateway:
    """One gateway over an open *broker* and *store*: ``app`` is its ASGI application, which closes it at shutdown."""

    def __init__(self, broker: Broker, store: BlobStore, options: GatewaySettings) -> None:
        self._broker = broker
        self._asker = Asker(broker, store, claim_threshold=options.claim_threshold)
        self._catalogue = Catalogue(broker, store, waiting=self._asker.waiting, on_failing=self._tell_failing)
        predictions = Predictions(self._asker, self._catalogue, options)
        self._routes = [
            Route("/", self._index),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/v1/models", self._models),
            Route("/v1/models/{model}/predictions", predictions, methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {404: _refused, 405: _refused, Exception: _failed}
        starlette = Starlette(
            routes=self._routes,
            exception_handlers=handlers,
            lifespan=self._lifespan,
        )
        starlette.router.redirect_slashes = False
        self.app: ASGIApp = starlette

    def stop_waiting(self) -> None:
        """Tell all callers who still wait that the gateway goes (503)."""
        self._asker.fail_waiting(ShuttingDownError("the gateway is shutting down; ask again"))

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._asker.close)
            stack.push_async_callback(self._catalogue.close)
            yield

    def _tell_failing(self, model: str, reason: str) -> None:
        self._asker.fail_waiting(ModelFailingError(model, reason), queue=model)

    async def _index(self, _request: Request) -> Response:
        routes = [f"{'POST' if 'POST' in (route.methods or ()) else 'GET'} {route.path}" for route in self._routes]
        try:
            models = await self._catalogue.models()
        except BrokerError as error:
            return _respond(problem_of(error))
        return _json({"name": "dumbwaiter", "routes": routes, "models": models})

    async def _live(self, _request: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, _request: Request) -> Response:
        try:
            async with asyncio.timeout(READY_WITHIN):
                await self._broker.check()
        except TimeoutError:
            reason = f"the broker does not answer within {READY_WITHIN:g} s"
        except BrokerError as error:
            reason = one_line(str(error))
        else:
            return _json({"ready": True})
        return _respond(Problem(status=503, code="not-ready", detail=reason, retry_after=RETRY_SOON))

    async def _models(self, _request: Request) -> Response:
        try:
            return _json({"models": await self._catalogue.overview()})
        except (BrokerError, BlobError) as error:
            return _respond(problem_of(error))


def create_app(broker: Broker, store: BlobStore, options: GatewaySettings) -> ASGIApp:
    """The gateway as an ASGI application, over an open *broker* and *store* that stay the caller's to close."""
    return Gateway(broker, store, options).app


def _json(value: object) -> Response:
    # It ends with a newline, so that a shell's prompt comes on a line of its own.
    return Response(msgspec.json.encode(value) + b"\n", media_type="application/json")


def _respond(problem: Problem, *, close: bool = False) -> Response:
    headers, body = encode(problem, close=close)
    response = Response(body, status_code=problem.status)
    response.raw_headers = headers
    return response


async def _refused(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    error = cast(HTTPException, error)
    code = _CODES.get(error.status_code, "refused")
    detail = {
        "not-found": f"nothing is served at {one_line(request.url.path)}; GET / lists what is",
        "method-not-allowed": f"{request.method} is not allowed here",
    }.get(code, error.detail)
    problem = Problem(status=error.status_code, code=code, detail=detail, headers=dict(error.headers or {}))
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    return _respond(problem, close=has_body)


async def _failed(_request: Request, _error: Exception) -> Response:
    """A fault of the gateway; the server logs its traceback."""
    problem = Problem(status=500, code="internal-error", detail="the gateway failed; its log says why")
    return _respond(problem, close=True)
