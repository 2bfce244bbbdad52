"""The gateway as an ASGI application: routes, health, and who is opened and closed with it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response

from dumbwaiter.asking import Asker, Standing, standing_of
from dumbwaiter.blobs.claimcheck import claim_threshold_for
from dumbwaiter.config import OutboundSettings
from dumbwaiter.errors import BrokerError
from dumbwaiter.gateway.access.callers import Access
from dumbwaiter.gateway.access.webhook_secret import WebhookSecret
from dumbwaiter.gateway.catalogue import Catalogue
from dumbwaiter.gateway.documents import Documents, wants_page
from dumbwaiter.gateway.http.bodies import has_body
from dumbwaiter.gateway.http.budget import Budget
from dumbwaiter.gateway.http.cors import with_cors
from dumbwaiter.gateway.http.endpoint import route
from dumbwaiter.gateway.http.heads import read_head
from dumbwaiter.gateway.http.problem_codes import RETRY_SOON
from dumbwaiter.gateway.http.problems import (
    ModelFailingError,
    Problem,
    ShuttingDownError,
    encode,
    one_line,
    problem,
)
from dumbwaiter.gateway.http.stopping import Stopping
from dumbwaiter.gateway.oip import Oip, speaking_the_protocol
from dumbwaiter.gateway.predictions.accepting import Acceptor
from dumbwaiter.gateway.predictions.claiming import UploadClaims
from dumbwaiter.gateway.predictions.creating import Predictions
from dumbwaiter.gateway.predictions.events import EventStreams
from dumbwaiter.gateway.predictions.expiry import Expiry
from dumbwaiter.gateway.predictions.keeping import Keeping
from dumbwaiter.gateway.predictions.kept import KeptPredictions
from dumbwaiter.gateway.predictions.lookup import Known, Lookup
from dumbwaiter.gateway.predictions.presigned import PresignedUploads
from dumbwaiter.gateway.predictions.results import Results
from dumbwaiter.gateway.predictions.segments import Segments
from dumbwaiter.gateway.predictions.sweeping import sweep_for_ever
from dumbwaiter.gateway.predictions.telling import Telling
from dumbwaiter.gateway.predictions.uploads import Uploads
from dumbwaiter.gateway.predictions.waiting import Waiting
from dumbwaiter.outbound import AddressPolicy
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping

    from starlette.requests import Request
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.http.endpoint import Exchange
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
        self._stopping = Stopping()
        self._results = Results(self._asker, store, self._stopping)
        self._routes = [*self._predicting(signing, outbound), *self._describing()]
        handlers: dict[Any, Any] = {404: _refused, 405: _refused}
        starlette = Starlette(
            routes=self._routes,
            exception_handlers=handlers,
            lifespan=lambda _: self.serving(),
        )
        starlette.router.redirect_slashes = False
        app = _hot_path_first(starlette, self._routes[0])
        self.app: ASGIApp = with_cors(speaking_the_protocol(self.access.guard(app)), options.cors_origins)

    def _predicting(self, signing: SigningKey, outbound: OutboundSettings) -> list[Route]:
        store, options, results = self._store, self._options, self._results
        threshold = claim_threshold_for(self._broker.capabilities.max_message_nbytes, options.claim_threshold)
        acceptor = Acceptor(store, signing, AddressPolicy(outbound), options, threshold=threshold)
        expiry = Expiry(store, options.results_kept_for)
        telling = Telling(store, self._budget)
        streams = EventStreams(Segments(store, self._budget), results, expiry, self._stopping, telling)
        keeping = Keeping(
            catalogue=self._catalogue, acceptor=acceptor, results=results, streams=streams, telling=telling
        )
        uploads = Uploads(store, threshold=threshold, limit=options.body_limit)
        presigned = self._presigned(signing, uploads)
        predictions = Predictions(
            access=self.access,
            catalogue=self._catalogue,
            budget=self._budget,
            uploads=uploads,
            claims=UploadClaims(store, presigned, uploads),
            waiting=Waiting(self._asker, store, self._catalogue),
            keeping=keeping,
            options=options,
        )
        kept = self._kept(signing, expiry, streams, telling)
        return [
            route("/v1/models/{model}/predictions", POST=predictions.create),
            route("/v1/models/{model}/predictions/{key}", GET=kept.show_by_key, PUT=predictions.create_once),
            route("/v1/predictions/{id}", GET=kept.show),
            route("/v1/uploads", POST=presigned.create),
            route("/v1/uploads/{id}", PUT=presigned.receive),
            route("/v1/predictions/{id}/cancel", POST=kept.cancel),
            route("/v1/predictions/{id}/events", GET=kept.events),
            route("/v1/predictions/{id}/output", GET=kept.output),
            route("/v1/webhooks/default/secret", GET=WebhookSecret(self.access, signing).show),
        ]

    def _kept(self, signing: SigningKey, expiry: Expiry, streams: EventStreams, telling: Telling) -> KeptPredictions:
        return KeptPredictions(
            Lookup(self.access, signing, self._store, public_url=self._options.public_url),
            self._results,
            expiry,
            self._standing_of,
            streams,
            telling,
            max_patience=self._options.max_patience,
        )

    def _presigned(self, signing: SigningKey, uploads: Uploads) -> PresignedUploads:
        return PresignedUploads(
            self._store,
            signing,
            access=self.access,
            budget=self._budget,
            uploads=uploads,
            limit=self._options.body_limit,
            public_url=self._options.public_url,
        )

    def _describing(self) -> list[Route]:
        oip = Oip(self._asker, self._catalogue, self._store, self._options, access=self.access, budget=self._budget)
        documents = Documents(self._catalogue, self._store, self._options, auth=self.access.needs_keys)
        return [
            route("/", GET=self._index),
            route("/v1/models", GET=self._models),
            route("/v2/health/live", GET=self._live),
            route("/v2/health/ready", GET=self._ready),
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
        self._results.close(error)

    @contextlib.asynccontextmanager
    async def serving(self, *, sweeps: bool = True) -> AsyncIterator[None]:
        """What its *app* needs is there within, and closed at the end. *sweeps*: it removes what is too old, too."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._asker.close)
            stack.push_async_callback(self._catalogue.close)
            stack.push_async_callback(self.access.close)
            if sweeps and self._options.results_kept_for:
                kept_for, longest_wait = self._options.results_kept_for, self._options.max_patience
                sweeping = asyncio.create_task(sweep_for_ever(self._store, kept_for, longest_wait=longest_wait))
                stack.push_async_callback(end, [sweeping])
            yield

    def _tell_failing(self, model: str, reason: str) -> None:
        self._asker.fail_waiting(ModelFailingError(model, reason), queue=model)

    def _standing_of(self, known: Known) -> Awaitable[Standing]:
        return standing_of(self._broker, self._store, known.id, known.model)

    async def _index(self, exchange: Exchange) -> None:
        await exchange.read_nothing()
        if self._options.docs and wants_page(read_head(exchange.scope).accept):
            await exchange.respond(303, [(b"location", b"docs"), (b"content-length", b"0")], b"")
            return
        await self.access.admit(exchange.scope)
        routes = [
            f"{method} {served.path}"
            for served in self._routes
            for method in sorted((served.methods or set()) - {"HEAD"})
        ]
        models = await self._catalogue.models()
        await exchange.respond_json({"name": "dumbwaiter", "routes": routes, "models": models})

    async def _live(self, exchange: Exchange) -> None:
        await exchange.read_nothing()
        await exchange.respond_json({"live": True})

    async def _ready(self, exchange: Exchange) -> None:
        await exchange.read_nothing()
        try:
            async with asyncio.timeout(READY_WITHIN):
                await self._broker.check()
        except TimeoutError:
            reason = f"the broker does not answer within {READY_WITHIN:g} s"
        except BrokerError as error:
            reason = one_line(str(error))
        else:
            await exchange.respond_json({"ready": True})
            return
        raise problem(503, "not-ready", reason, retry_after=RETRY_SOON)

    async def _models(self, exchange: Exchange) -> None:
        await exchange.read_nothing()
        await exchange.respond_json({"models": await self._catalogue.overview()})


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


async def _refused(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    error = cast(HTTPException, error)
    code = _CODES.get(error.status_code, "refused")
    detail = {
        "not-found": f"nothing is served at {one_line(request.url.path)}; GET / lists what is",
        "method-not-allowed": f"{request.method} is not allowed here; use {_allowed(error)}",
    }.get(code, error.detail)
    told = Problem(status=error.status_code, code=code, detail=detail, headers=dict(error.headers or {}))
    headers, body = encode(told, close=has_body(request.scope))
    response = Response(body, status_code=told.status)
    response.raw_headers = headers
    return response


def _allowed(error: HTTPException) -> str:
    methods = {method.strip() for method in (error.headers or {}).get("Allow", "").split(",")}
    return " or ".join(sorted(methods - {"", "HEAD"})) or "another method"
