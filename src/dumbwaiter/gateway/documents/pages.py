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

from dumbwaiter.blobs.cards import load_cards
from dumbwaiter.gateway.documents.asyncapi import asyncapi
from dumbwaiter.gateway.documents.openapi import Described, openapi
from dumbwaiter.gateway.documents.schemas import Signature
from dumbwaiter.gateway.http.accept import quality
from dumbwaiter.gateway.http.endpoint import route
from dumbwaiter.gateway.http.problems import problem

if TYPE_CHECKING:
    from starlette.routing import Route

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.catalogue import Catalogue
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.problems import Headers

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
HEADERS: Headers = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
]


class Documents:
    """The routes of the documents, about the models of *catalogue*; *auth* says whether callers need a key."""

    def __init__(self, catalogue: Catalogue, store: BlobStore, options: GatewaySettings, *, auth: bool = False) -> None:
        self._catalogue = catalogue
        self._store = store
        self._with_page = options.docs
        self._gateway = Described(version=version("dumbwaiter"), public_url=options.public_url, auth=auth)

    def routes(self) -> list[Route]:
        """What is served, to be mounted at the root."""
        documents = [route("/openapi.json", GET=self._openapi), route("/asyncapi.json", GET=self._asyncapi)]
        page = [route("/docs", GET=self._page), route("/docs/{file}", GET=self._file)]
        return [*documents, *(page if self._with_page else ())]

    async def _openapi(self, exchange: Exchange) -> None:
        await exchange.read_nothing()
        await exchange.respond_json(openapi(await self._models(), self._gateway))

    async def _asyncapi(self, exchange: Exchange) -> None:
        await exchange.read_nothing()
        await exchange.respond_json(asyncapi(await self._models(), self._gateway))

    async def _models(self) -> list[Signature]:
        names = await self._catalogue.models()
        says = {card.name: card.signature for card in await load_cards(self._store)}
        return [Signature(name, says.get(name, {})) for name in names]

    async def _page(self, exchange: Exchange) -> None:
        await exchange.read_nothing()
        await _send(exchange, "index.html")

    async def _file(self, exchange: Exchange) -> None:
        await exchange.read_nothing()
        name = exchange.parameters["file"]
        if name not in _names() or name.endswith(".html"):
            raise problem(404, "not-found", "nothing is served there; the page is at /docs")
        await _send(exchange, name)


def wants_page(accept: str) -> bool:
    """Whether a person with a browser asks, and no program: programs say ``*/*`` or what they want."""
    return quality(accept, "text/html") > quality(accept, "application/json")


async def _send(exchange: Exchange, name: str) -> None:
    body = _read(name)
    kind, length = _TYPES[name.rpartition(".")[2]].encode(), str(len(body)).encode()
    await exchange.respond(200, [(b"content-type", kind), (b"content-length", length), *HEADERS], body)


def _folder() -> Any:
    return files("dumbwaiter.gateway.documents") / "page"


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(one.name for one in _folder().iterdir() if one.name.rpartition(".")[2] in _TYPES)


@functools.cache
def _read(name: str) -> bytes:
    content: bytes = (_folder() / name).read_bytes()
    return content
