"""The gateway as an ASGI application: routes, health, and who is opened and closed with it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dumbwaiter.asking import Asker
from dumbwaiter.blobs.claimcheck import claim_threshold_for
from dumbwaiter.config import OutboundSettings
from dumbwaiter.errors import BlobError, BrokerError
from dumbwaiter.gateway.access.callers import Access
from dumbwaiter.gateway.catalogue import Catalogue
from dumbwaiter.gateway.documents import Documents, wants_page
from dumbwaiter.gateway.http.budget import Budget
from dumbwaiter.gateway.http.cors import with_cors
from dumbwaiter.gateway.http.endpoint import Endpoint
from dumbwaiter.gateway.http.problems import (
    RETRY_SOON,
    ModelFailingError,
    Problem,
    ShuttingDownError,
    encode,
    one_line,
    problem_of,
)
from dumbwaiter.gateway.http.stopping import Stopping
from dumbwaiter.gateway.oip import Oip, speaking_the_protocol
from dumbwaiter.gateway.predictions.accepting import Acceptor
from dumbwaiter.gateway.predictions.creating import Predictions
from dumbwaiter.gateway.predictions.events import EventStreams
from dumbwaiter.gateway.predictions.kept import KeptPredictions
from dumbwaiter.gateway.predictions.results import Results
from dumbwaiter.gateway.predictions.sweeping import sweep_for_ever
from dumbwaiter.gateway.predictions.uploads import Uploads
from dumbwaiter.gateway.predictions.waiting import Waiting
from dumbwaiter.outbound import AddressPolicy
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.signing import SigningKey

READY_WITHIN = 2.0
"""A broker that takes longer than this many seconds to answer is not ready."""

_CODES: Mapping[int, str] = {404: "not-found", 405: "method-not-allowed"}


class Gateway:
    """One gateway over an open *broker* and *store*: ``app`` is its ASGI application, which closes it at shutdown.

    *signing* is the key that all gateways and couriers of *store* share; *outbound* says which webhooks are allowed.
    """

    def __init__(
        self,
        broker: Broker,
        store: BlobStore,
        options: GatewaySettings,
        *,
        signing: SigningKey,
        outbound: OutboundSettings,
    ) -> None:
        self._broker = broker
        self._store = store
        self._options = options
        self.access = Access(store, options)
        self._asker = Asker(broker, store, claim_threshold=options.claim_threshold)
        self._catalogue = Catalogue(broker, store, waiting=self._asker.waiting, on_failing=self._tell_failing)
        self._budget = Budget(options.memory_limit)
        self._results = Results(self._asker, store)
        self._stopping = Stopping()
        self._routes = [*self._predicting(signing, outbound), *self._describing()]
        handlers: dict[Any, Any] = {404: _refused, 405: _refused, Exception: _failed}
        starlette = Starlette(
            routes=self._routes,
            exception_handlers=handlers,
            lifespan=self._lifespan,
        )
        starlette.router.redirect_slashes = False
        app = _hot_path_first(starlette, self._routes[0])
        self.app: ASGIApp = with_cors(speaking_the_protocol(self.access.guard(app)), options.cors_origins)

    def _predicting(self, signing: SigningKey, outbound: OutboundSettings) -> list[Route]:
        store, options = self._store, self._options
        threshold = claim_threshold_for(self._broker.capabilities.max_message_nbytes, options.claim_threshold)
        acceptor = Acceptor(store, signing, AddressPolicy(outbound), options, threshold=threshold)
        streams = EventStreams(store, self._results, self._stopping)
        predictions = Predictions(
            store,
            access=self.access,
            catalogue=self._catalogue,
            budget=self._budget,
            uploads=Uploads(store, threshold=threshold, limit=options.body_limit),
            waiting=Waiting(self._asker, store, self._catalogue),
            acceptor=acceptor,
            results=self._results,
            streams=streams,
            options=options,
        )
        kept = KeptPredictions(
            self._broker,
            store,
            access=self.access,
            signing=signing,
            acceptor=acceptor,
            results=self._results,
            streams=streams,
            stopping=self._stopping,
            options=options,
        )
        return [
            _route("/v1/models/{model}/predictions", Endpoint(POST=predictions.create)),
            _route("/v1/models/{model}/predictions/{key}", Endpoint(GET=kept.show_by_key, PUT=predictions.create_once)),
            _route("/v1/predictions/{id}", Endpoint(GET=kept.show)),
            _route("/v1/predictions/{id}/cancel", Endpoint(POST=kept.cancel)),
            _route("/v1/predictions/{id}/events", Endpoint(GET=kept.events)),
            _route("/v1/predictions/{id}/output", Endpoint(GET=kept.output)),
            _route("/v1/webhooks/default/secret", Endpoint(GET=kept.secret)),
        ]

    def _describing(self) -> list[Route]:
        oip = Oip(self._asker, self._catalogue, self._store, self._options, access=self.access, budget=self._budget)
        documents = Documents(self._catalogue, self._store, self._options, auth=self.access.needs_keys)
        return [
            Route("/", self._index),
            Route("/v1/models", self._models),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            *documents.routes(),
            *oip.routes(),
        ]

    def stop_following(self) -> None:
        """The gateway goes: callers who follow a prediction, or wait for a kept one to end, are let go at once."""
        self._stopping.come()

    def stop_waiting(self) -> None:
        """Tell all callers who still wait that the gateway goes (503)."""
        error = ShuttingDownError("the gateway is shutting down; ask again")
        self._asker.fail_waiting(error)
        self._results.fail(error)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._asker.close)
            stack.push_async_callback(self._catalogue.close)
            stack.push_async_callback(self.access.close)
            if self._options.results_kept_for:
                sweeping = asyncio.create_task(sweep_for_ever(self._store, self._options.results_kept_for))
                stack.push_async_callback(end, [sweeping])
            yield

    def _tell_failing(self, model: str, reason: str) -> None:
        self._asker.fail_waiting(ModelFailingError(model, reason), queue=model)

    async def _index(self, request: Request) -> Response:
        if self._options.docs and wants_page(request):
            return RedirectResponse("docs", status_code=303)
        routes = [
            f"{method} {route.path}" for route in self._routes for method in sorted((route.methods or set()) - {"HEAD"})
        ]
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


def create_app(
    broker: Broker,
    store: BlobStore,
    options: GatewaySettings,
    *,
    signing: SigningKey,
    outbound: OutboundSettings | None = None,
) -> ASGIApp:
    """The gateway as an ASGI application, over an open *broker* and *store* that stay the caller's to close.

    *signing* comes from blobs.signing_key.load_signing_key(); *outbound* says which webhooks are allowed.
    """
    return Gateway(broker, store, options, signing=signing, outbound=outbound or OutboundSettings()).app


def _hot_path_first(starlette: ASGIApp, hot: Route) -> ASGIApp:
    """*starlette*, past whose layers the requests of the route *hot* go: they cost each of them a fifth of its time."""
    match, methods, endpoint = hot.path_regex.match, hot.methods or set(), hot.app

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["method"] in methods and (found := match(scope["path"])) is not None:
            scope["path_params"] = found.groupdict()
            return endpoint(scope, receive, send)
        return starlette(scope, receive, send)

    return app


def _route(path: str, endpoint: Endpoint) -> Route:
    return Route(path, endpoint, methods=endpoint.methods)


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
