"""AsyncClient: for code that runs in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Any, Self

from dumbwaiter.asking import CLAIM_THRESHOLD, Asker, Patience, Pending
from dumbwaiter.blobs.results import load_result
from dumbwaiter.blobs.store import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.client.requests import build_request_aside, deadline_after, read_answer_aside
from dumbwaiter.errors import BlobNotFoundError, BrokerClosedError, ConfigError, PredictionTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.message import Message

FIRST_POLL, LAST_POLL = 0.01, 1.0
"""Seconds between two looks for a stored result; each pause is half as long again as the one before."""


class AsyncHandle:
    """A request that the broker has confirmed. Without ``keep`` it is forgotten with this object or its client."""

    def __init__(self, client: AsyncClient, id_: str, pending: Pending | None) -> None:
        self.id = id_
        self._client = client
        self._pending = pending
        self._stored: Message | None = None

    async def done(self) -> bool:
        """Whether the result is here: result() would return, or raise PredictionError, at once."""
        if self._pending is not None:
            return self._pending.done()
        with contextlib.suppress(BlobNotFoundError):
            self._stored = self._stored or await self._client.load_message(self.id)
        return self._stored is not None

    async def result(self, timeout: float | None = None) -> Any:
        """The model's output, within *timeout* seconds (None: however long it takes). May be called again.

        Raises PredictionError for a failure and PredictionTimeoutError when time is up.
        """
        return await read_answer_aside(await self.message(timeout))

    async def message(self, timeout: float | None = None) -> Message:
        """The answer as it came, an output or a failure, with its timings (see dumbwaiter.answers)."""
        if self._pending is not None:
            return await self._pending.wait(timeout)
        if self._stored is None:
            self._stored = await self._client.result_message(self.id, timeout)
        return self._stored


class AsyncClient:
    """Asks models over a broker. Use it with ``async with``, in one event loop.

    *broker* is a URL, or an open Broker, which stays yours to close. *blobs* is the URL of the blob store, or the store
    itself; needed for bodies above *claim_threshold* bytes where the broker does not take them, and for kept results.
    """

    def __init__(
        self,
        broker: str | Broker,
        *,
        blobs: str | BlobStore | None = None,
        claim_threshold: int = CLAIM_THRESHOLD,
    ) -> None:
        self._given = broker
        self._store = open_store(blobs) if isinstance(blobs, str) else blobs
        self._claim_threshold = claim_threshold
        self._asker: Asker | None = None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        broker = self._given
        if isinstance(broker, str):
            broker = await self._stack.enter_async_context(open_broker(broker))
        asker = Asker(broker, self._store, claim_threshold=self._claim_threshold)
        self._asker = await self._stack.enter_async_context(asker)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asker = None
        await self._stack.aclose()

    async def predict(
        self,
        model: str,
        input: Any,  # noqa: A002 - the word of every prediction API
        *,
        timeout: float = 60.0,
        content_type: str | None = None,
        deadline: float | None = None,
        priority: int = 0,
    ) -> Any:
        """The output of *model* for *input*, within *timeout* seconds.

        Workers drop the request after *deadline* (seconds since the Unix epoch; the end of *timeout* if None). A larger
        *priority* is served first. Raises PredictionError, PredictionTimeoutError, QueueNotFoundError,
        BrokerUnavailableError.
        """
        timeout = Patience(timeout)
        request = await build_request_aside(
            model,
            input,
            content_type=content_type,
            deadline=deadline_after(timeout, deadline),
            priority=priority,
        )
        return await read_answer_aside(await self.predict_message(model, request, timeout=timeout))

    async def predict_message(self, model: str, message: Message, *, timeout: float = 60.0) -> Message:
        """The answer to *message* as it came: an output or a failure, with its timings. Nothing is set or decoded."""
        return await self._open_asker().ask(model, message, timeout=timeout)

    async def submit(
        self,
        model: str,
        input: Any,  # noqa: A002 - as in predict
        *,
        keep: bool = False,
        content_type: str | None = None,
        deadline: float | None = None,
        priority: int = 0,
    ) -> AsyncHandle:
        """Hand in a request; returns once the broker has confirmed it. Its result comes through the handle.

        With *keep* the worker stores the result as an object, and any process can fetch it by the handle's id.
        """
        request = await build_request_aside(
            model, input, content_type=content_type, deadline=deadline, priority=priority
        )
        return await self.submit_message(model, request, keep=keep)

    async def submit_message(self, model: str, message: Message, *, keep: bool = False) -> AsyncHandle:
        """As submit(), for a message made by hand."""
        asker = self._open_asker()
        if not keep:
            return AsyncHandle(self, message.id, await asker.begin(model, message, confirm=True))
        self._open_store()
        await asker.send(model, message)
        return AsyncHandle(self, message.id, None)

    async def result(self, id: str, timeout: float | None = None) -> Any:  # noqa: A002 - what the handle calls it
        """The output of the request that was submitted, by any process, with ``keep=True``.

        Raises PredictionError for a failure and PredictionTimeoutError when there is none within *timeout* seconds.
        """
        return await read_answer_aside(await self.result_message(id, timeout))

    async def result_message(self, id: str, timeout: float | None = None) -> Message:  # noqa: A002 - as in result
        """As result(): the answer as it was stored. Without any patience (0) it looks once."""
        patience = None if timeout is None else Patience(timeout)
        try:
            async with asyncio.timeout(patience.left if patience else None):
                return await self._stored(id, patience)
        except TimeoutError:
            raise PredictionTimeoutError(
                f"no result of {id!r} within {timeout:g} s; it may still be waiting or running"
            ) from None

    async def _stored(self, id_: str, patience: Patience | None) -> Message:
        pause = FIRST_POLL
        while True:
            try:
                return await self.load_message(id_)
            except BlobNotFoundError:
                if patience is not None and patience <= 0.0:
                    raise TimeoutError from None
            # Half of what is left, so that the last look comes just before the end.
            await asyncio.sleep(pause if patience is None else min(pause, max(FIRST_POLL, patience.left / 2)))
            pause = min(1.5 * pause, LAST_POLL)

    async def load_message(self, id: str) -> Message:  # noqa: A002 - as in result
        """The stored answer of *id*. Raises BlobNotFoundError while there is none."""
        return await load_result(self._open_store(), id)

    async def map(
        self,
        model: str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        in_flight: int = 64,
        ordered: bool = True,
        return_exceptions: bool = False,
        timeout: float = 60.0,
    ) -> AsyncIterator[Any]:
        """The outputs for many *inputs*, in their order, or as they come with ``ordered=False``.

        At most *in_flight* requests are under way or waiting to be yielded; *inputs* are taken no faster. *timeout*
        holds for each. The first error ends it, unless *return_exceptions* yields errors in their places. Leaving the
        loop early gives up what is under way.
        """
        window: deque[asyncio.Task[Any]] = deque()
        try:
            async for value in _each(inputs):
                window.append(asyncio.create_task(self.predict(model, value, timeout=timeout)))
                if len(window) >= max(1, in_flight):
                    yield _outcome(await _next(window, ordered=ordered), return_exceptions=return_exceptions)
            while window:
                yield _outcome(await _next(window, ordered=ordered), return_exceptions=return_exceptions)
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)

    def _open_asker(self) -> Asker:
        if self._asker is None:
            raise BrokerClosedError("this client is not open; use it inside `async with`")
        return self._asker

    def _open_store(self) -> BlobStore:
        if self._store is None:
            raise ConfigError("kept results lie in the blob store; give this client one: blobs='file:/path' or its URL")
        return self._store


async def _each(inputs: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(inputs, AsyncIterable):
        async for value in inputs:
            yield value
    else:
        for value in inputs:
            yield value


async def _next(window: deque[asyncio.Task[Any]], *, ordered: bool) -> asyncio.Task[Any]:
    """Take the first task out of *window*: the oldest, or one that is done. It is done when this returns."""
    if ordered:
        task = window[0]
        await asyncio.wait({task})
        window.popleft()
        return task
    done, _ = await asyncio.wait(window, return_when=asyncio.FIRST_COMPLETED)
    task = next(task for task in window if task in done)
    window.remove(task)
    return task


def _outcome(task: asyncio.Task[Any], *, return_exceptions: bool) -> Any:
    error = task.exception()
    if error is None:
        return task.result()
    if return_exceptions and isinstance(error, Exception):
        return error
    raise error
