"""The Open Inference Protocol's routes: the server, its models, and inference."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.blobs.presence import short_reason, why_silent, workers_of
from dumbwaiter.gateway.http.bodies import read_body
from dumbwaiter.gateway.http.endpoint import Exchange, route
from dumbwaiter.gateway.http.heads import read_head
from dumbwaiter.gateway.http.problem_codes import RETRY_LATER
from dumbwaiter.gateway.http.problems import one_line, problem
from dumbwaiter.gateway.oip.infer import Infer
from dumbwaiter.gateway.oip.metadata import EXTENSIONS, describe
from dumbwaiter.gateway.oip.problems import refused
from dumbwaiter.gateway.oip.responses import VERSION, check_version
from dumbwaiter.gateway.signatures import Signatures

if TYPE_CHECKING:
    from starlette.routing import Route

    from dumbwaiter.asking import Asker
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.access.callers import Access
    from dumbwaiter.gateway.catalogue import Catalogue
    from dumbwaiter.gateway.http.budget import Budget

SMALL_BODY = 64 * 1024
_MODEL, _VERSIONED = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"


class Oip:
    """The protocol beside the gateway's own interface: routes(). Health is the gateway's own affair."""

    def __init__(
        self,
        asker: Asker,
        catalogue: Catalogue,
        store: BlobStore,
        options: GatewaySettings,
        *,
        access: Access,
        budget: Budget,
    ) -> None:
        self._version = version("dumbwaiter")
        self._catalogue = catalogue
        self._store = store
        self._options = options
        self._budget = budget
        self._signatures = Signatures(store)
        self._infer = Infer(asker, store, catalogue, self._signatures, options, access=access, budget=budget)

    def routes(self) -> list[Route]:
        """The routes to mount, in an application that speaking_the_protocol() wraps."""
        return [
            route("/v2", GET=self._show_server),
            *(route(path, GET=self._show) for path in (_MODEL, _VERSIONED)),
            *(route(f"{path}/ready", GET=self._show_readiness) for path in (_MODEL, _VERSIONED)),
            *(route(f"{path}/infer", POST=self._infer.infer) for path in (_MODEL, _VERSIONED)),
            route("/v2/repository/index", POST=self._list),
        ]

    async def _show_server(self, exchange: Exchange) -> None:
        await exchange.read_nothing()
        await exchange.respond_json({"name": "dumbwaiter", "version": self._version, "extensions": EXTENSIONS})

    async def _show(self, exchange: Exchange) -> None:
        model = await self._require(exchange)
        await exchange.respond_json(describe(model, await self._signatures.signature_of(model)))

    async def _show_readiness(self, exchange: Exchange) -> None:
        model = await self._require(exchange)
        workers = await workers_of(self._store, model)
        if not any(worker.state == "ready" for worker in workers):
            detail = f"model {model!r} is not ready: {why_silent(workers)}"
            members = {"name": model, "ready": False}
            raise problem(503, "not-ready", detail, retry_after=RETRY_LATER, members=members)
        await exchange.respond_json({"name": model, "ready": True})

    async def _list(self, exchange: Exchange) -> None:
        head = read_head(exchange.scope)
        with self._budget.hold() as hold:
            body = await read_body(exchange.receive, declared=head.declared, limit=SMALL_BODY, hold=hold, setting=None)
        exchange.body_was_read = True
        ready_only = _wants_ready_only(body)
        entries = [_entry(model) for model in await self._catalogue.overview()]
        await exchange.respond_json([entry for entry in entries if not ready_only or entry["state"] == "READY"])

    async def _require(self, exchange: Exchange) -> str:
        await exchange.read_nothing()
        model = exchange.parameters["model"]
        await self._catalogue.require(model)
        check_version(model, exchange.parameters.get("version"))
        return model


class _IndexRequest(msgspec.Struct):
    ready: bool = False


def _wants_ready_only(body: bytes) -> bool:
    if not body.strip():
        return False
    try:
        return msgspec.json.decode(body, type=_IndexRequest).ready
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused(f'the body must be empty or an object like {{"ready": true}}: {one_line(str(error))}') from None


def _entry(model: Mapping[str, Any]) -> dict[str, Any]:
    states = {worker["state"] for worker in model["workers"]}
    entry = {"name": model["name"], "version": VERSION}
    if "ready" in states:
        return {**entry, "state": "READY", "reason": ""}
    if "loading" in states:
        return {**entry, "state": "LOADING", "reason": ""}
    reasons = [worker["reason"] for worker in model["workers"] if worker["reason"]]
    return {**entry, "state": "UNAVAILABLE", "reason": short_reason(reasons[0]) if reasons else "no worker is running"}
