"""The same by HTTP: for KEDA's metrics-api trigger, for other autoscalers, and for people with curl."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dumbwaiter.scaler.following import is_active
from dumbwaiter.scaler.refusing import Refusal, StoppingError, TooManyError, refusal_of, shortened

if TYPE_CHECKING:
    from dumbwaiter.demand import PoolView
    from dumbwaiter.scaler.pools import Pools

LOOKS_AT_ONCE = 16
_Answer = Callable[[Request], Awaitable[Response]]
_log = logging.getLogger("dumbwaiter.scaler")


def page_of(pools: Pools, *, most: int) -> Starlette:
    """The application that tells what is wanted of *pools*, to *most* who ask at once; of its health, to all."""
    page = _Page(pools)
    crowd = _Crowd(most)
    routes = [
        Route("/healthz", _refusing(page.healthz)),
        Route("/v1/scale", _refusing(crowd.bounded(page.all))),
        Route("/v1/scale/{model}", _refusing(crowd.bounded(page.one))),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_route})


class _Page:
    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._places = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def healthz(self, _: Request) -> Response:
        # The broker is not looked at: restarting a scaler does not mend one.
        return _json({"status": "ok"})

    async def one(self, request: Request) -> Response:
        asked = {**request.query_params, "model": request.path_params["model"]}
        pool = self._pools.of(asked, where=request.url.path)
        return _json(_facts(pool.model, await pool.view()))

    async def all(self, request: Request) -> Response:
        models = await self._pools.models()
        return _json({"models": await asyncio.gather(*(self._told(model, request.url.path) for model in models))})

    async def _told(self, model: str, where: str) -> dict[str, Any]:
        async with self._places:
            try:
                return _facts(model, await self._pools.of({"model": model}, where=where).view())
            except StoppingError:
                raise
            except Exception as error:  # that of one model is no reason to say nothing of the others
                return {"model": model, "problem": _problem(_refusal(error))}


class _Crowd:
    """All who are being answered, *most* at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0

    def bounded(self, answer: _Answer) -> _Answer:
        async def call(request: Request) -> Response:
            if self._count >= self._most:
                raise TooManyError(self._most)
            self._count += 1
            try:
                return await answer(request)
            finally:
                self._count -= 1

        return call


def _facts(model: str, view: PoolView) -> dict[str, Any]:
    look, decision = view.look, view.decision
    return {
        "model": model,
        "active": is_active(view),
        "desired": decision.desired,
        "raw": decision.raw,
        "why": decision.why,
        "work": decision.work,
        "offered": decision.offered,
        "oldest_age": look.oldest_age,
        "waiting": look.waiting,
        "in_flight": look.in_flight,
        "ready": look.ready,
        "starting": look.starting,
        "alarm": decision.alarm,
    }


def _refusing(answer: _Answer) -> _Answer:
    async def call(request: Request) -> Response:
        try:
            return await answer(request)
        except Exception as error:  # also one that is our own fault: who asks is told that there is no telling
            refusal = _refusal(error)
            return _json(_problem(refusal), refusal.status, "application/problem+json")

    return call


def _refusal(error: Exception) -> Refusal:
    refusal = refusal_of(error)
    if refusal.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("a request failed", exc_info=error)
    return refusal


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    code = "method-not-allowed" if status == HTTPStatus.METHOD_NOT_ALLOWED else "not-found"
    detail = f"no {request.method} {request.url.path}; there are GET /v1/scale, /v1/scale/MODEL and /healthz"
    refusal = Refusal("NOT_FOUND", status, code, shortened(detail))
    headers = getattr(error, "headers", None)
    return _json(_problem(refusal), status, "application/problem+json", headers)


def _problem(refusal: Refusal) -> dict[str, Any]:
    title = HTTPStatus(refusal.status).phrase
    return {"title": title, "status": refusal.status, "code": refusal.code, "detail": refusal.detail}


def _json(
    value: Any,
    status: int = HTTPStatus.OK,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type)
