"""Errors as the protocol shows them, ``{"error": ...}``, in place of problem+json, whoever raised them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.gateway.http.problems import CONTENT_TYPE, ProblemError, problem
from dumbwaiter.gateway.http.sending import json_headers
from dumbwaiter.gateway.protocol_paths import told_as_error

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dumbwaiter.gateway.http.problems import Headers

UNPROCESSABLE, BAD_REQUEST = 422, 400

_decode = msgspec.json.Decoder(dict[str, Any]).decode
#: Members of a problem that say nothing more here.
_LEFT_OUT = frozenset({"type", "title", "status", "detail"})


def refused(detail: str, *, status: int = BAD_REQUEST, code: str = "bad-input") -> ProblemError:
    """The error that ends a call with *detail*."""
    return problem(status, code, detail)


def speaking_the_protocol(app: ASGIApp) -> ASGIApp:
    """*app*, whose problems told_as_error() are told as the protocol's clients read them."""

    async def translated(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and told_as_error(scope["path"]):
            send = _Translation(send).send
        await app(scope, receive, send)

    return translated


def error_of(document: dict[str, Any]) -> dict[str, Any]:
    """What the protocol says in place of the problem *document*."""
    facts = {name: value for name, value in document.items() if name not in _LEFT_OUT}
    return {"error": document["detail"], **facts}


def status_of(status: int) -> int:
    """The protocol knows one status for every request that cannot be served as it is: 400."""
    return BAD_REQUEST if status == UNPROCESSABLE else status


class _Translation:
    """One response: a problem is held back until it is whole, and all else goes through as it comes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def send(self, event: Message) -> None:
        if event["type"] == "http.response.start" and (b"content-type", CONTENT_TYPE) in event["headers"]:
            self._start = event
        elif self._start is None or event["type"] != "http.response.body":
            await self._send(event)
        else:
            self._body += event.get("body", b"")
            if not event.get("more_body", False):
                await self._tell(self._start)

    async def _tell(self, start: Message) -> None:
        body = msgspec.json.encode(error_of(_decode(self._body))) + b"\n" if self._body else b""  # none answers HEAD
        headers: Headers = [
            *json_headers(body),
            *((name, value) for name, value in start["headers"] if name not in (b"content-type", b"content-length")),
        ]
        await self._send({**start, "status": status_of(start["status"]), "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
