"""HTTP to URLs that callers name: each connection goes to an address that was checked, and everything is bounded.

No proxies, no cookies, no redirects but those that are followed here by hand, each checked anew. Nothing is
decompressed. A time limit bounds the whole exchange, names and redirects included, so a server that drips cannot hold
it. Messages of errors tell no more of this network than the caller has named.

Each exchange has a connection of its own, which is closed with it whatever happens. (The pool of httpcore loses
connections when asyncio cancels a task while it closes one: a courier would run out of sockets by and by.)
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import httpcore
import httpx
import msgspec

from dumbwaiter.config import OutboundSettings
from dumbwaiter.errors import ForbiddenUrlError, OutboundError
from dumbwaiter.outbound.connecting import GuardedBackend, why_no_answer
from dumbwaiter.outbound.guard import AddressPolicy, Target
from dumbwaiter.outbound.resolving import Resolve, Resolver

POST_REDIRECTS, GET_REDIRECTS = 3, 5
PIECE_NBYTES = 256 * 1024
ANSWER_NBYTES, ANSWER_WITHIN = 64 * 1024, 2.0
"""So much of the body of an answer to a POST is read, for so many seconds. Its status is what counts, but some servers
take it amiss when nobody listens to the end."""

_REPEATED = frozenset({301, 302, 307, 308})
_FOLLOWED = _REPEATED | {303}
_MAY_PASS = frozenset({408, 425, 429})
_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


class Response(msgspec.Struct, frozen=True):
    """The answer to a POST: its *status*, its *headers* by lower-case name, and the *url* that gave it."""

    status: int
    headers: Mapping[str, str]
    url: str


class _Way:
    """How far a request has come, and until when it may go on, by the clock of the loop."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.redirected = False


class OutboundClient:
    """Reaches what *settings* allow; a context manager. Use one for many requests, also at the same time.

    *resolve* and *ssl_context* replace the system's names and trust (None: those of httpx, SSL_CERT_FILE included).
    Raises ConfigError when the settings name a network or host that is none.
    """

    def __init__(
        self,
        settings: OutboundSettings,
        *,
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.policy = AddressPolicy(settings)
        self._settings = settings
        self._resolve = resolve
        self._ssl_context = ssl_context

    async def __aenter__(self) -> Self:
        self._resolve = self._resolve or Resolver()
        self._ssl_context = self._ssl_context or httpx.create_ssl_context()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open between two requests."""

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], timeout: float) -> Response:
        """Send *body* and return the answer, whatever its status, within *timeout* seconds in all.

        301, 302, 307 and 308 are followed, POST again, at most 3 of them; 303 is returned. Raises ForbiddenUrlError,
        and OutboundError when no answer came.
        """
        async with self._bounded(url, timeout) as way:
            target = self.policy.check_url(url)
            for _ in range(POST_REDIRECTS + 1):
                async with self._exchange("POST", target, headers, body) as response:
                    said = _headers(response)
                    await _hear_out(response, way)
                if response.status not in _REPEATED or "location" not in said:
                    return Response(response.status, said, target.url)
                target = self._follow(way, target, said["location"])
        raise OutboundError(f"more than {POST_REDIRECTS} redirects", transient=True)

    async def fetch(self, url: str) -> tuple[str | None, bytes]:
        """The content type and the bytes at *url*, within the settings' fetch_timeout and fetch_limit.

        At most 5 redirects are followed. Raises ForbiddenUrlError, and OutboundError when they cannot be had.
        """
        async with self._bounded(url, self._settings.fetch_timeout) as way:
            target = self.policy.check_url(url)
            for _ in range(GET_REDIRECTS + 1):
                async with self._exchange("GET", target, {}, None) as response:
                    said = _headers(response)
                    if response.status not in _FOLLOWED or "location" not in said:
                        return said.get("content-type"), await self._content(response, said)
                target = self._follow(way, target, said["location"])
        raise OutboundError(f"more than {GET_REDIRECTS} redirects", transient=False)

    def _follow(self, way: _Way, target: Target, location: str) -> Target:
        """Where a redirect leads. Raises ForbiddenUrlError."""
        way.redirected = True
        # A Location that is odd by itself must not be tidied up by the joining.
        if not location.isascii() or not location.isprintable() or " " in location:
            raise ForbiddenUrlError(location, "its text has a wrong form")
        try:
            following = self.policy.check_url(urljoin(target.url, location))
        except ValueError:
            raise ForbiddenUrlError(location, "its text has a wrong form") from None
        if target.scheme == "https" and following.scheme != "https":
            raise ForbiddenUrlError(location, "it would go on without encryption")
        return following

    async def _content(self, response: httpcore.Response, said: Mapping[str, str]) -> bytes:
        if not 200 <= response.status < 300:
            may_pass = response.status >= 500 or response.status in _MAY_PASS
            raise OutboundError(f"it answered {response.status}", transient=may_pass, status=response.status)
        if said.get("content-encoding", "identity").strip().lower() not in {"identity", ""}:
            raise OutboundError("it answered with a compressed body, unasked", transient=False)
        limit = self._settings.fetch_limit
        length = said.get("content-length", "")
        body = None if length.isdecimal() and int(length) > limit else await _read_at_most(response, limit)
        if body is None:
            raise OutboundError(f"it is larger than {limit} bytes (outbound.fetch_limit)", transient=False)
        return body

    @asynccontextmanager
    async def _exchange(
        self, method: str, target: Target, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[httpcore.Response]:
        if self._resolve is None:
            raise RuntimeError("this client is not open; use it inside `async with`")
        backend = GuardedBackend(self.policy, self._resolve)
        request = _request(method, target, headers, body)
        connection = httpcore.AsyncHTTPConnection(
            request.url.origin, ssl_context=self._ssl_context, network_backend=backend
        )
        try:
            yield await connection.handle_async_request(request)
        finally:
            await backend.close()

    @asynccontextmanager
    async def _bounded(self, url: str, timeout: float) -> AsyncIterator[_Way]:
        """Errors of the network as our own, and an end to it all after *timeout* seconds."""
        way = _Way(asyncio.get_running_loop().time() + timeout)
        try:
            async with asyncio.timeout_at(way.deadline):
                yield way
        except ForbiddenUrlError as error:
            # The caller is told of the URL that it knows; where others redirect to is no news for it.
            where = "it redirects to a place that is not allowed: " if way.redirected else ""
            raise ForbiddenUrlError(url, f"{where}{error.reason}") from None
        except TimeoutError:
            raise OutboundError(f"no complete answer within {timeout:g} s", transient=True) from None
        except _NETWORK_ERRORS as error:
            transient = not isinstance(error, httpcore.LocalProtocolError)
            raise OutboundError(why_no_answer(error), transient=transient) from None


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


def _request(method: str, target: Target, headers: Mapping[str, str], body: bytes | None) -> httpcore.Request:
    url = httpcore.URL(
        scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.target.encode()
    )
    ours = {"host": _host_header(target), "accept": "*/*", "accept-encoding": "identity", "connection": "close"}
    length = {} if body is None else {"content-length": str(len(body))}
    sent = [(name.encode(), value.encode(errors="replace")) for name, value in {**ours, **headers, **length}.items()]
    return httpcore.Request(method, url, headers=sent, content=None if body is None else _pieces(body))


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """*body* bit by bit: what a slow receiver does not take at once is copied by those who send it."""
    for start in range(0, len(body), PIECE_NBYTES):
        yield body[start : start + PIECE_NBYTES]


async def _hear_out(response: httpcore.Response, way: _Way) -> None:
    loop = asyncio.get_running_loop()
    # Before the end of it all, which would count as no answer.
    until = min(loop.time() + ANSWER_WITHIN, way.deadline - 0.05)
    with contextlib.suppress(TimeoutError, *_NETWORK_ERRORS):
        async with asyncio.timeout_at(until):
            await _read_at_most(response, ANSWER_NBYTES)


async def _read_at_most(response: httpcore.Response, limit: int) -> bytes | None:
    """The whole body, or None when it is longer than *limit* bytes; the rest is not read then."""
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _host_header(target: Target) -> str:
    return target.url.partition("://")[2].removesuffix(target.target)
