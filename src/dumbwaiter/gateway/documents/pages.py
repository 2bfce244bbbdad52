"""Serving the documents and the page to try models from a browser.

The page is static and the same for all; what it shows, it asks of the gateway as any caller does, with the caller's
key. Its content security policy allows nothing but its own files and this gateway, so that no text of a model or
another caller can become a script.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from dumbwaiter.blobs.cards import load_cards
from dumbwaiter.errors import BlobError, BrokerError
from dumbwaiter.gateway.documents.asyncapi import asyncapi
from dumbwaiter.gateway.documents.openapi import Described, openapi
from dumbwaiter.gateway.documents.schemas import Signature
from dumbwaiter.gateway.http.accept import quality
from dumbwaiter.gateway.http.problems import Problem, encode, problem_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.catalogue import Catalogue

_TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Documents:
    """The routes of the documents, about the models of *catalogue*; *auth* says whether callers need a key."""

    def __init__(self, catalogue: Catalogue, store: BlobStore, options: GatewaySettings, *, auth: bool = False) -> None:
        self._catalogue = catalogue
        self._store = store
        self._with_page = options.docs
        self._gateway = Described(version=version("dumbwaiter"), public_url=options.public_url, auth=auth)

    def routes(self) -> list[Route]:
        """What is served, to be mounted at the root."""
        documents = [Route("/openapi.json", self._openapi), Route("/asyncapi.json", self._asyncapi)]
        page = [Route("/docs", self._page), Route("/docs/{file}", self._file)]
        return [*documents, *(page if self._with_page else ())]

    async def _openapi(self, _request: Request) -> Response:
        return await self._document(openapi)

    async def _asyncapi(self, _request: Request) -> Response:
        return await self._document(asyncapi)

    async def _document(self, write: Any) -> Response:
        try:
            document = write(await self._models(), self._gateway)
        except (BrokerError, BlobError) as error:
            return _respond(problem_of(error))
        return Response(msgspec.json.encode(document) + b"\n", media_type="application/json")

    async def _models(self) -> list[Signature]:
        names = await self._catalogue.models()
        says = {card.name: card.signature for card in await load_cards(self._store)}
        return [Signature(name, says.get(name, {})) for name in names]

    async def _page(self, _request: Request) -> Response:
        return Response(_read("index.html"), headers={**HEADERS, "Content-Type": _TYPES["html"]})

    async def _file(self, request: Request) -> Response:
        name = request.path_params["file"]
        if name not in _names() or name.endswith(".html"):
            detail = "nothing is served there; the page is at /docs"
            return _respond(Problem(status=404, code="not-found", detail=detail))
        return Response(_read(name), headers={**HEADERS, "Content-Type": _TYPES[name.rpartition(".")[2]]})


def wants_page(request: Request) -> bool:
    """Whether a person with a browser asks, and no program: programs say ``*/*`` or what they want."""
    accept = request.headers.get("accept", "")
    return quality(accept, "text/html") > quality(accept, "application/json")


def _folder() -> Any:
    return files("dumbwaiter.gateway.documents") / "page"


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(one.name for one in _folder().iterdir() if one.name.rpartition(".")[2] in _TYPES)


@functools.cache
def _read(name: str) -> bytes:
    content: bytes = (_folder() / name).read_bytes()
    return content


def _respond(problem: Problem) -> Response:
    headers, body = encode(problem)
    response = Response(body, status_code=problem.status)
    response.raw_headers = headers
    return response
