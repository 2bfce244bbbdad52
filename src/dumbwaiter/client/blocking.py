"""Client: for ordinary code. It runs an AsyncClient in an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Self, TypeVar

import uvloop

from dumbwaiter.asking import CLAIM_THRESHOLD, Patience
from dumbwaiter.client.asynchronous import AsyncClient, AsyncHandle
from dumbwaiter.client.door import Cancellation, Event, PredictionStatus
from dumbwaiter.client.requests import build_request, read_answer
from dumbwaiter.errors import BadInputError, BrokerClosedError
from dumbwaiter.models.codecs import decode_output

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from os import PathLike
    from types import TracebackType

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.message import Message

T = TypeVar("T")


class Handle:
    """A request that was confirmed. Over a broker it is, without ``keep``, forgotten with this object or its client.

    *run* runs in the client's event loop what *handle* does there.
    """

    def __init__(self, handle: AsyncHandle, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.id = handle.id
        self.model = handle.model
        self._handle = handle
        self._run = run

    def done(self) -> bool:
        """Whether the result is here: result() would return, or raise PredictionError, at once."""
        return bool(self._run(self._handle.done()))

    def result(self, timeout: float | None = None) -> Any:
        """The model's output, within *timeout* seconds (None: however long it takes). May be called again.

        Raises PredictionError for a failure and PredictionTimeoutError when time is up.
        """
        return read_answer(self.message(timeout))

    def message(self, timeout: float | None = None) -> Message:
        """The answer as it came, an output or a failure, with its timings (see dumbwaiter.answers)."""
        answer: Message = self._run(self._handle.message(timeout))
        return answer

    def status(self) -> PredictionStatus:
        """Where the request is: its status, and its place in the queue where the broker knows."""
        status: PredictionStatus = self._run(self._handle.status())
        return status

    def cancel(self) -> bool:
        """Cancel the request; False when it had ended before; see AsyncHandle.cancel."""
        return bool(self._run(self._handle.cancel()))


class Client:
    """Asks models through a gateway, or straight over a broker, from any thread. Use it with ``with``, or call close()
    at the end.

    It opens with the first request. Parameters are those of AsyncClient; a broker or store given as an object must not
    be bound to another event loop, so give URLs unless you know better. Encoding and decoding happen in the calling
    thread.
    """

    def __init__(
        self,
        url: str | Broker,
        /,
        *,
        blobs: str | BlobStore | None = None,
        claim_threshold: int = CLAIM_THRESHOLD,
        tenant: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        retries: int = 3,
        idempotent: bool = False,
    ) -> None:
        self._async = AsyncClient(
            url,
            blobs=blobs,
            claim_threshold=claim_threshold,
            tenant=tenant,
            api_key=api_key,
            headers=headers,
            retries=retries,
            idempotent=idempotent,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        with self._starting:
            self._running_loop()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect and end the thread; calls that still wait raise BrokerClosedError. Closing twice is no error."""
        with self._starting:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            try:
                asyncio.run_coroutine_threadsafe(self._async.__aexit__(None, None, None), loop).result()
            finally:
                loop.call_soon_threadsafe(loop.stop)
                self._thread.join()

    def predict(
        self,
        model: str,
        input: Any,  # noqa: A002 - the word of every prediction API
        *,
        timeout: float = 60.0,
        content_type: str | None = None,
        deadline: float | None = None,
        priority: int = 0,
        idempotency_key: str | None = None,
    ) -> Any:
        """The output of *model* for *input*, within *timeout* seconds; see AsyncClient.predict."""
        timeout = Patience(timeout)
        attributes = self._async.attributes(timeout=timeout, deadline=deadline, priority=priority, key=idempotency_key)
        request = build_request(model, input, content_type=content_type, **attributes)
        return read_answer(self.predict_message(model, request, timeout=timeout))

    def predict_message(self, model: str, message: Message, *, timeout: float = 60.0) -> Message:
        """The answer to *message* as it came: an output or a failure, with its timings."""
        return self._run(self._async.predict_message(model, message, timeout=timeout))

    def submit(
        self,
        model: str,
        input: Any,  # noqa: A002 - as in predict
        *,
        keep: bool = False,
        content_type: str | None = None,
        deadline: float | None = None,
        priority: int = 0,
        idempotency_key: str | None = None,
    ) -> Handle:
        """Hand in a request; returns once it is confirmed; see AsyncClient.submit."""
        attributes = self._async.attributes(timeout=None, deadline=deadline, priority=priority, key=idempotency_key)
        request = build_request(model, input, content_type=content_type, **attributes)
        return self.submit_message(model, request, keep=keep)

    def submit_message(
        self, model: str, message: Message, *, keep: bool = False, timeout: float | None = None
    ) -> Handle:
        """As submit(), for a message made by hand."""
        return Handle(self._run(self._async.submit_message(model, message, keep=keep, timeout=timeout)), self._run)

    def upload(
        self, content: str | PathLike[str] | bytes | bytearray | memoryview, *, content_type: str | None = None
    ) -> dict[str, str]:
        """Put a large input where requests can name it, and return the input to ask with; see AsyncClient.upload."""
        return self._run(self._async.upload(content, content_type=content_type))

    def result(self, id: str, timeout: float | None = None) -> Any:  # noqa: A002 - what the handle calls it
        """The output of the request that was submitted, by any process, with ``keep=True``."""
        return read_answer(self._run(self._async.result_message(id, timeout)))

    def status(self, id: str, *, model: str | None = None) -> PredictionStatus:  # noqa: A002 - as in result
        """Where the kept request *id* is; see AsyncClient.status."""
        return self._run(self._async.status(id, model=model))

    def cancel(self, id: str) -> Cancellation:  # noqa: A002 - as in result
        """Cancel the kept request *id*; what is returned is false when it had ended before; see AsyncClient.cancel."""
        return self._run(self._async.cancel(id))

    def stream(
        self,
        model: str,
        input: Any,  # noqa: A002 - as in predict
        *,
        timeout: float = 60.0,
        content_type: str | None = None,
        deadline: float | None = None,
        priority: int = 0,
    ) -> Iterator[Any]:
        """The outputs of a generator model one by one, as they come; see AsyncClient.stream."""
        attributes = self._async.attributes(timeout=None, deadline=deadline, priority=priority, key=None)
        request = build_request(model, input, content_type=content_type, **attributes)
        outputs = _Outputs(self._async.stream_message(model, request, timeout=timeout))
        try:
            while (output := self._run(outputs.next())) is not None:
                yield decode_output(output.content_type, output.body)
        finally:
            with contextlib.suppress(BrokerClosedError):
                self._run(outputs.close())

    def map(
        self,
        model: str,
        inputs: Iterable[Any],
        *,
        in_flight: int = 64,
        ordered: bool = True,
        return_exceptions: bool = False,
        timeout: float = 60.0,
    ) -> Iterator[Any]:
        """The outputs for many *inputs*, in their order, or as they come with ``ordered=False``.

        *inputs* are taken, encoded and decoded in the calling thread; see AsyncClient.map for the rest.
        """
        window: deque[Future[Message]] = deque()
        finished: queue.SimpleQueue[Future[Message]] = queue.SimpleQueue()
        try:
            for value in inputs:
                window.append(self._start(model, value, timeout))
                if not ordered:
                    window[-1].add_done_callback(finished.put)
                if len(window) >= max(1, in_flight):
                    yield _outcome(_next(window, None if ordered else finished), return_exceptions=return_exceptions)
            while window:
                yield _outcome(_next(window, None if ordered else finished), return_exceptions=return_exceptions)
        finally:
            for future in window:
                future.cancel()

    def _start(self, model: str, value: Any, timeout: float) -> Future[Message]:
        timeout = Patience(timeout)
        try:
            attributes = self._async.attributes(timeout=timeout, deadline=None, priority=0, key=None)
            request = build_request(model, value, **attributes)
        except BadInputError as error:  # it belongs in this input's place
            failed: Future[Message] = Future()
            failed.set_exception(error)
            return failed
        return self._spawn(self._async.predict_message(model, request, timeout=timeout))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return _result_of(self._spawn(work))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            with self._starting:  # nothing may be handed to a loop that close() has stopped
                return asyncio.run_coroutine_threadsafe(work, self._running_loop())
        except BaseException:
            work.close()
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise BrokerClosedError("this client is closed")
        if self._loop is None:
            self._loop = self._start_loop()
        return self._loop

    def _start_loop(self) -> asyncio.AbstractEventLoop:
        loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(loop,), name="dumbwaiter-client", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._async.__aenter__(), loop).result()
        except BaseException:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            raise
        return loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        leftover = asyncio.all_tasks(loop)
        for task in leftover:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*leftover, return_exceptions=True))
    finally:
        loop.close()


class _Outputs:
    """The *outputs* of a stream. After Ctrl-C the one that was awaited may still be giving up when it is closed."""

    def __init__(self, outputs: AsyncGenerator[Event]) -> None:
        self._outputs = outputs
        self._busy = asyncio.Lock()

    async def next(self) -> Event | None:
        async with self._busy:
            return await anext(self._outputs, None)

    async def close(self) -> None:
        async with self._busy:
            await self._outputs.aclose()


def _next(window: deque[Future[Message]], finished: queue.SimpleQueue[Future[Message]] | None) -> Future[Message]:
    """Take the first future out of *window*: the oldest, or the next of those that have *finished*."""
    if finished is None:
        return window.popleft()
    future = finished.get()
    window.remove(future)
    return future


def _result_of(future: Future[T]) -> T:
    try:
        return future.result()
    except CancelledError:
        raise BrokerClosedError("this client was closed while the call waited") from None
    finally:
        future.cancel()  # Ctrl-C while waiting: the request is given up too


def _outcome(future: Future[Message], *, return_exceptions: bool) -> Any:
    try:
        return read_answer(_result_of(future))
    except Exception as error:
        if return_exceptions:
            return error
        raise
