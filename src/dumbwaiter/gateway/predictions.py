"""``POST /v1/models/{model}/predictions``, the hot endpoint: an ASGI class, without request and response objects."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.answers import raise_for_failure
from dumbwaiter.asking import Patience
from dumbwaiter.errors import BlobError, BrokerError, DumbwaiterError, PredictionTimeoutError, QueueNotFoundError
from dumbwaiter.gateway.inputs import read_input
from dumbwaiter.gateway.outputs import write_answer
from dumbwaiter.gateway.patience import patience_of
from dumbwaiter.gateway.problems import ModelFailingError, NoAnswerError, Problem, ProblemError, encode, problem_of
from dumbwaiter.message import Message, new_id

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from dumbwaiter.asking import Asker, Pending
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.catalogue import Catalogue
    from dumbwaiter.gateway.problems import Headers

SOURCE = "/dumbwaiter/gateway"
COMPLAIN_EVERY = 5.0
"""An outage fills the log with one line in so many seconds, not one a request."""

_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_log = logging.getLogger("dumbwaiter.gateway")


class CallerGoneError(DumbwaiterError):
    """The caller hung up: nobody is left to answer."""


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the head of a request says. *declared* is its Content-Length, None when it is sent in chunks."""

    model: str
    patience: float
    content_type: str | None
    declared: int | None
    accept: str
    trace_parent: str | None


class Predictions:
    """Sends each request to its model's queue and answers with what comes back in time."""

    def __init__(self, asker: Asker, catalogue: Catalogue, options: GatewaySettings) -> None:
        self._asker = asker
        self._catalogue = catalogue
        self._options = options
        self._complained_at = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body_was_read = False
        status = 200
        try:
            call = read_head(scope, self._options)
            await self._admit(call.model)
            body = await read_body(receive, declared=call.declared, limit=self._options.body_limit)
            body_was_read = True
            headers, content = await self._predict(call, body, receive)
        except CallerGoneError:
            return
        except DumbwaiterError as error:
            self._complain(error)
            problem = problem_of(error)
            status, (headers, content) = problem.status, encode(problem, close=not body_was_read)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _admit(self, model: str) -> None:
        await self._catalogue.require(model)
        reason = self._catalogue.failing_reason(model)
        if reason is not None:
            raise ModelFailingError(model, reason)

    async def _predict(self, call: Call, body: bytes, receive: Receive) -> tuple[Headers, bytes]:
        patience = Patience(call.patience)
        content_type, body = read_input(call.content_type, body)
        now = time.time()
        message = Message(
            id=new_id(),
            body=body,
            content_type=content_type,
            source=SOURCE,
            subject=call.model,
            time=now,
            deadline=now + patience,
            trace_parent=call.trace_parent,
        )
        answer = await self._ask(call.model, message, patience, receive)
        return write_answer(raise_for_failure(answer), id_=message.id, model=call.model, accept=call.accept)

    async def _ask(self, model: str, message: Message, patience: Patience, receive: Receive) -> Message:
        try:
            pending = await self._asker.begin(model, message, timeout=patience)
            # It ends by itself: after the response receive() says that the exchange is over.
            watch = asyncio.get_running_loop().create_task(_watch_caller(receive, pending))
            answer = await pending.answer(patience)
        except QueueNotFoundError:
            self._catalogue.forget(model)
            await self._catalogue.require(model)
            raise
        except PredictionTimeoutError as error:
            reason = self._catalogue.silent_reason(model)
            if reason is None:
                raise
            raise NoAnswerError(error, reason) from None
        del watch
        return answer

    def _complain(self, error: DumbwaiterError) -> None:
        now = time.monotonic()
        if isinstance(error, (BrokerError, BlobError)) and now - self._complained_at > COMPLAIN_EVERY:
            self._complained_at = now
            _log.warning("requests fail: %s: %s", type(error).__name__, error)


def read_head(scope: Scope, options: GatewaySettings) -> Call:
    """What the gateway needs of the request's head. Raises ProblemError (400) for a length that is not a number."""
    content_type = trace_parent = None
    declared: int | None = None
    accept: list[str] = []
    prefer: list[str] = []
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == b"content-length":
            declared = _length(value)
        elif name == b"accept":
            accept.append(value.decode("latin-1"))
        elif name == b"prefer":
            prefer.append(value.decode("latin-1"))
        elif name == b"traceparent" and _TRACE_PARENT.fullmatch(text := value.decode("latin-1")):
            trace_parent = text
    return Call(
        model=scope["path_params"]["model"],
        patience=patience_of(prefer, default=options.default_patience, maximum=options.max_patience),
        content_type=content_type,
        declared=declared,
        accept=",".join(accept),
        trace_parent=trace_parent,
    )


async def read_body(receive: Receive, *, declared: int | None, limit: int) -> bytes:
    """The whole body. Raises ProblemError (413) as soon as it is, or says that it will be, above *limit* bytes;
    CallerGoneError when the caller hangs up meanwhile.
    """
    if declared is not None and declared > limit:
        raise _too_large(f"the body of {declared} bytes", limit)
    chunks: list[bytes] = []
    nbytes = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise CallerGoneError
        chunk: bytes = event.get("body", b"")
        nbytes += len(chunk)
        if nbytes > limit:
            raise _too_large("the body", limit)
        chunks.append(chunk)
        if not event.get("more_body", False):
            return chunk if len(chunks) == 1 else b"".join(chunks)


async def _watch_caller(receive: Receive, pending: Pending) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    pending.fail(CallerGoneError())


def _length(value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        raise ProblemError(
            Problem(status=400, code="invalid-head", detail="Content-Length is not a whole number")
        ) from None


def _too_large(what: str, limit: int) -> ProblemError:
    detail = f"{what} exceeds the limit of {limit} bytes"
    return ProblemError(Problem(status=413, code="body-too-large", detail=detail, members={"limit": limit}))
