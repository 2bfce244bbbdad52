"""One route: what its handler raises becomes a problem, and outages fill no log."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.routing import Route

from dumbwaiter.errors import BlobError, BrokerError, DumbwaiterError
from dumbwaiter.gateway.http.bodies import CallerGoneError, has_body
from dumbwaiter.gateway.http.problems import FAULT, Headers, encode, problem_of
from dumbwaiter.gateway.http.sending import CallerWatch, json_headers, send_whole

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

COMPLAIN_EVERY = 5.0
"""An outage fills the log with one line in so many seconds, not one a request."""

_log = logging.getLogger("dumbwaiter.gateway")


class Exchange:
    """One request and its response. *body_was_read*: whether the connection can go on after the response.

    *prediction_id*, once known, is told with every problem too.
    """

    __slots__ = ("_watch", "body_was_read", "prediction_id", "receive", "scope", "send")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.body_was_read = False
        self.prediction_id: str | None = None
        self._watch: CallerWatch | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """What stands in the path, by name."""
        parameters: dict[str, str] = self.scope["path_params"]
        return parameters

    async def read_nothing(self) -> None:
        """The body of this request, if it has any, is of no interest; a short one is read, so as to go on after it."""
        self.body_was_read = not has_body(self.scope)
        if not self.body_was_read:
            event: Any = await self.receive()
            self.body_was_read = not event.get("more_body", False)

    def watch(self, on_gone: Callable[[], object] | None = None) -> CallerWatch:
        """From now on, whether the caller is still there. The first call alone may say what happens *on_gone*."""
        if self._watch is None:
            self._watch = CallerWatch(self.scope, self.receive, on_gone)
        return self._watch

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole response."""
        if not self.body_was_read:
            headers = [*headers, (b"connection", b"close")]
        await send_whole(self.send, status, headers, body)

    async def respond_json(self, value: object) -> None:
        """200 with *value*. It ends with a newline, so that a shell's prompt comes on a line of its own."""
        body = msgspec.json.encode(value) + b"\n"
        await self.respond(200, json_headers(body), body)


class Endpoint:
    """The ASGI application of one route, with a handler for each method; that of GET answers HEAD too."""

    def __init__(self, **handlers: Callable[[Exchange], Awaitable[None]]) -> None:
        self.methods = list(handlers)
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._complained_at = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            await self._handlers[scope["method"]](exchange)
        except CallerGoneError as error:
            _let_frames_go(error)
        except DumbwaiterError as error:
            self._complain(error)
            problem = problem_of(error)
            headers, content = encode(problem, close=not exchange.body_was_read)
            if exchange.prediction_id is not None:
                headers.append((b"x-prediction-id", exchange.prediction_id.encode()))
            _let_frames_go(error)
            await send_whole(send, problem.status, headers, content)
        except Exception:
            # A fault of ours, whose traceback the server logs. When the response has begun, nothing can be told.
            with contextlib.suppress(RuntimeError):
                await send_whole(send, FAULT.status, *encode(FAULT, close=True))
            raise

    def _complain(self, error: DumbwaiterError) -> None:
        now = time.monotonic()
        if isinstance(error, (BrokerError, BlobError)) and now - self._complained_at > COMPLAIN_EVERY:
            self._complained_at = now
            _log.warning("requests fail: %s: %s", type(error).__name__, error)


def route(path: str, **handlers: Callable[[Exchange], Awaitable[None]]) -> Route:
    """The route at *path*, with a handler for each method."""
    endpoint = Endpoint(**handlers)
    return Route(path, endpoint, methods=endpoint.methods)


def _let_frames_go(error: BaseException | None) -> None:
    """What *error* passed through has the request's body, and the future that it came from has *error*: a cycle that
    would stay until the garbage collector comes, which is seldom here.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
