"""Reading the body of a request: whole and bounded, or chunk by chunk for whatever does not fit into memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from dumbwaiter.errors import DumbwaiterError
from dumbwaiter.gateway.http.problems import ProblemError, problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from dumbwaiter.gateway.http.budget import Hold


class CallerGoneError(DumbwaiterError):
    """The caller hung up: nobody is left to answer."""


LIMIT_SETTING = "gateway.body_limit"


def has_body(scope: Scope) -> bool:
    """Whether a body comes with the request of *scope*."""
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


async def read_body(
    receive: Receive, *, declared: int | None, limit: int, hold: Hold, setting: str | None = LIMIT_SETTING
) -> bytes:
    """The whole body; its bytes are taken through *hold* as they come, and released by whoever made that. *setting* is
    the one that says *limit*, if any does.

    Raises ProblemError (413) as soon as it is, or says that it will be, above *limit* bytes; ProblemError (503) when
    there is no room for it; CallerGoneError when the caller hangs up meanwhile.
    """
    if declared is not None:
        if declared > limit:
            raise too_large(f"the body of {declared} bytes", limit, setting)
        hold.check(declared)
    chunks: list[bytes] = []
    nbytes = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise CallerGoneError
        chunk: bytes = event.get("body", b"")
        nbytes += len(chunk)
        if nbytes > limit:
            raise too_large("the body", limit, setting)
        hold.ensure(nbytes)
        chunks.append(chunk)
        if not event.get("more_body", False):
            return chunk if len(chunks) == 1 else b"".join(chunks)


async def body_chunks(receive: Receive, *, declared: int | None, limit: int) -> AsyncIterator[bytes]:
    """The body as it comes; none of the chunks is empty. Raises as read_body() does, memory apart."""
    if declared is not None and declared > limit:
        raise too_large(f"the body of {declared} bytes", limit, LIMIT_SETTING)
    nbytes = 0
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise CallerGoneError
        chunk: bytes = event.get("body", b"")
        nbytes += len(chunk)
        if nbytes > limit:
            raise too_large("the body", limit, LIMIT_SETTING)
        more = event.get("more_body", False)
        if chunk:
            yield chunk


def too_large(what: str, limit: int, setting: str | None) -> ProblemError:
    """The error for *what* is larger than *limit* bytes, which *setting* says, if it can be set."""
    detail = f"{what} exceeds the limit of {limit} bytes{f' ({setting})' if setting else ''}"
    return problem(413, "body-too-large", detail, members={"limit": limit})
