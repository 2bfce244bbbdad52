"""HTTP to one gateway: connections, repetitions, and errors that name the reason and the next step."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import math
import random
import socket
import ssl
import urllib.request
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

import httpx

from dumbwaiter.asking import Patience
from dumbwaiter.client.gateway_answers import error_of, tells
from dumbwaiter.errors import (
    BrokerClosedError,
    ConfigError,
    GatewayError,
    GatewayUnavailableError,
)
from dumbwaiter.policies.repeating import is_counted, is_worth_another_try, pause_before
from dumbwaiter.tasks import end

T = TypeVar("T")

CONNECT_WITHIN = 10.0
QUIET_FOR = 60.0
"""A gateway from which nothing comes for so many seconds longer than it was asked to take is taken for dead."""
LARGE_NBYTES = 1024 * 1024
"""Whoever refuses so large a body may hang up before the client has read why."""
KEEP_IDLE = 4.0
"""Shorter than gateways keep an idle connection, so that a request rarely meets one that is being closed."""
_LIMITS = httpx.Limits(max_connections=512, max_keepalive_connections=128, keepalive_expiry=KEEP_IDLE)
#: A gateway's machine that has vanished is noticed while a caller waits, and firewalls between see a live connection.
_SOCKET_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in (
        ("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 3)
    ) if hasattr(socket, name)),
]  # fmt: skip


class GatewayConnection:
    """Sends requests to the gateway at *url*, each at most *retries* times more than once."""

    def __init__(self, url: str, *, headers: Mapping[str, str], retries: int) -> None:
        parsed = _parse(url)
        self.shown = str(parsed.copy_with(username=None, password=None)).rstrip("/")
        """The gateway's URL for people to see."""
        self._url = parsed
        self._headers = dict(headers)
        self._retries = retries
        self._http: httpx.AsyncClient | None = None
        self._running: set[asyncio.Task[Any]] = set()

    def open(self) -> None:
        """Ready to send; nothing is connected yet."""
        self._http = httpx.AsyncClient(
            base_url=self._url,
            headers={"user-agent": "dumbwaiter", **self._headers},
            limits=_LIMITS,
            transport=transport_to(self._url),
        )

    async def close(self) -> None:
        """Hang up; whoever still waits gets BrokerClosedError. Closing twice is no error."""
        http, self._http = self._http, None
        await end(self._running)
        if http is not None:
            await http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        patience: Patience | None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        waits: float | None = None,
        model: str | None = None,
        id_: str | None = None,
        insists: bool = False,
    ) -> httpx.Response:
        """The response that tells of a prediction; anything else is raised, after repetitions while *patience* lasts.

        *waits*: ask the gateway to wait so many seconds for the answer; never longer than *patience*. *insists*:
        repetitions are not counted, so that nothing but *patience* ends them.
        """
        counted = 0
        for attempt in itertools.count(1):
            try:
                return await self._once(
                    method, path, _prefer(headers, waits, patience), content, waits=waits, model=model, id_=id_
                )
            except GatewayError as error:
                counted += not insists and is_counted(error.status, has_patience=patience is not None)
                if counted > self._retries or not self._retries or not may_pass(error):
                    raise
                await self.pause(attempt, error, patience)
        raise AssertionError  # itertools.count() does not end

    async def pause(self, attempt: int, error: GatewayError, patience: Patience | None = None) -> None:
        """Wait before the repetition *attempt* (1 is the first). Raises *error* when *patience* would not last."""
        pause = pause_before(attempt, retry_after=error.retry_after, luck=random.random())  # noqa: S311
        if patience is not None and pause >= patience.left:
            raise error
        await self.guarded(asyncio.sleep(pause))

    @contextlib.asynccontextmanager
    async def lines(self, path: str, headers: Mapping[str, str], *, id_: str) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a response without end, as they come; without repetitions."""
        timeout = httpx.Timeout(CONNECT_WITHIN, read=QUIET_FOR)
        request = self._open_http().build_request("GET", path, headers=headers, timeout=timeout)
        with self._naming():
            response = await self.guarded(self._open_http().send(request, stream=True))
        try:
            if response.status_code != 200:
                with self._naming():
                    await response.aread()
                raise error_of(self.shown, response, id_=id_)
            yield self._each_line(response)
        finally:
            await response.aclose()

    async def _each_line(self, response: httpx.Response) -> AsyncIterator[str]:
        lines = response.aiter_lines()
        while True:
            with self._naming():
                line = await self.guarded(_next(lines))
            if line is None:
                return
            yield line

    async def put(self, path: str, pieces: AsyncIterator[bytes], nbytes: int) -> None:
        """Put *pieces*, *nbytes* bytes in all, to a route of the gateway; once."""
        headers = {"content-type": "application/octet-stream", "content-length": str(nbytes)}
        timeout = httpx.Timeout(CONNECT_WITHIN, read=QUIET_FOR, write=QUIET_FOR, pool=None)
        with self._naming(nbytes):
            response = await self.guarded(self._open_http().put(path, headers=headers, content=pieces, timeout=timeout))
        if not response.is_success:
            raise error_of(self.shown, response)

    async def _once(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: bytes | None,
        *,
        waits: float | None,
        model: str | None,
        id_: str | None,
    ) -> httpx.Response:
        http = self._open_http()
        timeout = httpx.Timeout(CONNECT_WITHIN, read=(waits or 0.0) + QUIET_FOR, write=QUIET_FOR, pool=None)
        with self._naming(len(content or b"")):
            response = await self.guarded(http.request(method, path, headers=headers, content=content, timeout=timeout))
        if tells(response):
            return response
        raise error_of(self.shown, response, model=model, id_=id_)

    async def guarded(self, work: Coroutine[Any, Any, T]) -> T:
        """*work*, ended with BrokerClosedError when this is closed meanwhile."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._http is None and not (current and current.cancelling()):
                raise BrokerClosedError("this client was closed while the call waited") from None
            raise

    def _open_http(self) -> httpx.AsyncClient:
        if self._http is None:
            raise BrokerClosedError("this client is not open; use it inside `async with`")
        return self._http

    @contextlib.contextmanager
    def _naming(self, sent_nbytes: int = 0) -> Iterator[None]:
        try:
            yield
        except httpx.InvalidURL as error:
            raise ConfigError(f"{self.shown!r} is no URL of a gateway: {error}") from None
        except httpx.HTTPError as error:
            raise _named(self.shown, self._url, error, sent_nbytes) from error
        except AttributeError as error:
            if "getpeername" not in str(error):
                raise
            # anyio asks a socket for its peer that was lost while it was being opened.
            lost = httpx.ConnectError("the connection was lost while it was made")
            raise _named(self.shown, self._url, lost, sent_nbytes) from error


def may_pass(error: GatewayError) -> bool:
    """Whether the same request may fare better later."""
    is_unavailable = isinstance(error, GatewayUnavailableError)
    return is_worth_another_try(error.status, error.code, is_unavailable=is_unavailable)


async def _next(lines: AsyncIterator[str]) -> str | None:
    return await anext(lines, None)


def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url.rstrip("/") + "/")
    except httpx.InvalidURL as error:
        raise ConfigError(f"{url!r} is no URL of a gateway: {error}") from None
    if not parsed.host or parsed.query or parsed.fragment:
        raise ConfigError(f"{url!r} is no URL of a gateway; write it like http://127.0.0.1:8080")
    return parsed


def _prefer(headers: Mapping[str, str] | None, waits: float | None, patience: Patience | None) -> dict[str, str]:
    headers = dict(headers or {})
    if waits is not None:
        left = waits if patience is None else min(waits, patience.left)
        headers["prefer"] = f"wait={max(1, math.ceil(left - 0.05))}"
    return headers


def transport_to(url: httpx.URL) -> httpx.AsyncHTTPTransport | None:
    """What connects to *url*; None where a proxy of the environment stands between; there is none for loopback."""
    proxies = urllib.request.getproxies()
    is_proxied = not _is_loopback(url.host) and not urllib.request.proxy_bypass(url.host)
    if is_proxied and (url.scheme in proxies or "all" in proxies):
        return None
    return httpx.AsyncHTTPTransport(verify=url.scheme == "https", limits=_LIMITS, socket_options=_SOCKET_OPTIONS)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _named(shown: str, url: httpx.URL, error: httpx.HTTPError, sent_nbytes: int) -> GatewayError:
    """*error* with the reason in words, and what to do about it."""
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        return GatewayError(shown, f"the request cannot be sent: {error}")
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return GatewayError(shown, f"the name {url.host!r} cannot be resolved; check the URL")
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = cause.verify_message or "unknown"
            return GatewayError(
                shown, f"its certificate is not trusted ({reason}); SSL_CERT_FILE names authorities to trust"
            )
        if isinstance(cause, ssl.SSLError):
            return GatewayError(shown, "it does not speak TLS as https needs it; if it speaks plain HTTP, say http://")
        if isinstance(cause, ConnectionRefusedError):
            return GatewayUnavailableError(shown, "nothing listens there; check host and port, and that it runs")
    return GatewayUnavailableError(shown, _reason(url, error, sent_nbytes))


def _reason(url: httpx.URL, error: httpx.HTTPError, sent_nbytes: int) -> str:
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return f"it takes no connection within {CONNECT_WITHIN:g} s; check host and port"
    if isinstance(error, httpx.TimeoutException):
        return "it has gone silent; ask again"
    if isinstance(error, httpx.ConnectError):
        return f"it cannot be connected to ({error}); check host and port"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError | httpx.CloseError):
        if sent_nbytes > LARGE_NBYTES:
            return f"it hung up; {sent_nbytes} bytes may be more than it takes (see its body_limit), else ask again"
        hint = "" if url.scheme == "https" else "; if it speaks TLS, say https://"
        return f"it hung up before its response was complete; ask again{hint}"
    return f"{type(error).__name__}: {error}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        if isinstance(seen, BaseExceptionGroup):
            for one in seen.exceptions:
                yield from _causes(one)
        seen = seen.__cause__ or seen.__context__
