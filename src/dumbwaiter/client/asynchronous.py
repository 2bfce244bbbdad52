"""AsyncClient: for code that runs in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from dumbwaiter.answers import failure_of, raise_for_failure
from dumbwaiter.asking import CLAIM_THRESHOLD, Patience
from dumbwaiter.client.door import Cancellation, Event, PredictionStatus
from dumbwaiter.client.doors import door_to
from dumbwaiter.client.mapping import each_of, next_of, outcome_of
from dumbwaiter.client.requests import build_request_aside, deadline_after, read_answer_aside, read_output_aside
from dumbwaiter.client.streaming import Outputs
from dumbwaiter.client.uploading import source_of
from dumbwaiter.errors import (
    BadInputError,
    BlobNotFoundError,
    ConfigError,
    DumbwaiterError,
    PredictionError,
    PredictionTimeoutError,
)
from dumbwaiter.message import LONGEST_ID, SYSTEM_QUEUES, Failure, is_message_id, is_model_name
from dumbwaiter.prediction import CANCELED, status_of
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable
    from os import PathLike
    from types import TracebackType

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.client.door import Door, Submitted
    from dumbwaiter.message import Message

CANCEL_WITHIN = 5.0
"""At most so many seconds are spent on cancelling a stream that nobody reads any more."""


class AsyncHandle:
    """A request that was confirmed. Over a broker it is, without ``keep``, forgotten with this object or its client."""

    def __init__(self, client: AsyncClient, model: str, submitted: Submitted) -> None:
        self.id = submitted.id
        self.model = model
        self._client = client
        self._pending = submitted.pending
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

    async def status(self) -> PredictionStatus:
        """Where the request is: its status, and its place in the queue where the broker knows."""
        if self._stored is not None:
            return PredictionStatus(status=status_of(failure_of(self._stored)))
        if self._pending is not None and self._pending.done():
            with contextlib.suppress(PredictionError):
                return PredictionStatus(status=status_of(failure_of(await self._pending.wait(0.0))))
            return PredictionStatus(status="canceled")
        return await self._client.status(self.id, model=self.model)

    async def cancel(self) -> bool:
        """Cancel the request; False when it had ended before. From now on result() raises PredictionError (canceled).

        A request that waits never runs, one that runs is stopped. Without ``keep``, over a broker, it is only given up:
        nobody waits for its answer any more.
        """
        if self._pending is None:
            return bool(await self._client.cancel(self.id))
        if self._pending.done():
            return False
        self._pending.fail(PredictionError(Failure(code=CANCELED, message="the request was cancelled by its caller")))
        return True


class AsyncClient:
    """Asks models through a gateway, or straight over a broker. Use it with ``async with``, in one event loop.

    *url* is that of a gateway (``http://``, ``https://``) or of a broker; or an open Broker, which stays yours to
    close. *tenant* is for whom the requests are.

    Over a broker: *blobs* is the URL of the blob store, or the store itself; needed for bodies above *claim_threshold*
    bytes where the broker does not take them, and for kept results. While the broker is unavailable a request is sent
    again, with the same id, until its timeout has passed; submit() has none, and raises BrokerUnavailableError at once.

    Through a gateway: *api_key* (by default that of the variable DUMBWAITER_API_KEY) and *headers* go with every
    request. One that got no answer, because the connection broke or the gateway said 429, 502 or 503, is sent again up
    to *retries* times while its caller's patience lasts, after the pause that the gateway asked for. A plain prediction
    may so run twice. With *idempotent* it carries a key of its own, which costs the gateway a stored result, and
    runs once. Submitted ones always carry one.
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
        self.tenant = tenant
        self._door: Door = door_to(
            url,
            blobs=blobs,
            claim_threshold=claim_threshold,
            tenant=tenant,
            api_key=api_key,
            headers=headers,
            retries=retries,
            idempotent=idempotent,
        )
        self._streams: set[str] = set()

    async def __aenter__(self) -> Self:
        await self._door.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Nobody reads them any more, and after this nobody could cancel them.
        await asyncio.gather(*(self._give_up(id_) for id_ in list(self._streams)))
        await self._door.__aexit__(kind, error, trace)

    async def predict(
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
        """The output of *model* for *input*, within *timeout* seconds.

        Workers drop the request after *deadline* (seconds since the Unix epoch; the end of *timeout* if None). A larger
        *priority* is served first. Through a gateway, requests with the same *idempotency_key* are one: it runs once,
        and each gets its answer. Raises PredictionError, PredictionTimeoutError, QueueNotFoundError,
        BrokerUnavailableError or GatewayError.
        """
        timeout = Patience(timeout)
        request = await build_request_aside(
            model,
            input,
            content_type=content_type,
            **self.attributes(timeout=timeout, deadline=deadline, priority=priority, key=idempotency_key),
        )
        return await read_answer_aside(await self.predict_message(model, request, timeout=timeout))

    async def predict_message(self, model: str, message: Message, *, timeout: float = 60.0) -> Message:
        """The answer to *message* as it came: an output or a failure, with its timings. Nothing is set or decoded."""
        return await self._door.ask(_model(model), message, timeout=timeout)

    async def submit(
        self,
        model: str,
        input: Any,  # noqa: A002 - as in predict
        *,
        keep: bool = False,
        content_type: str | None = None,
        deadline: float | None = None,
        priority: int = 0,
        idempotency_key: str | None = None,
    ) -> AsyncHandle:
        """Hand in a request; returns once it is confirmed. Its result comes through the handle.

        With *keep* the worker stores the result as an object, and any process can fetch it by the handle's id; through
        a gateway it always does.
        """
        attributes = self.attributes(timeout=None, deadline=deadline, priority=priority, key=idempotency_key)
        request = await build_request_aside(model, input, content_type=content_type, **attributes)
        return await self.submit_message(model, request, keep=keep)

    async def submit_message(
        self, model: str, message: Message, *, keep: bool = False, timeout: float | None = None
    ) -> AsyncHandle:
        """As submit(), for a message made by hand. While a broker is unavailable it is sent again, with the same id,
        for *timeout* seconds (None: never).
        """
        submitted = await self._door.submit(_model(model), message, keep=keep, timeout=timeout)
        return AsyncHandle(self, model, submitted)

    async def stream(
        self,
        model: str,
        input: Any,  # noqa: A002 - as in predict
        *,
        timeout: float = 60.0,
        content_type: str | None = None,
        deadline: float | None = None,
        priority: int = 0,
    ) -> AsyncIterator[Any]:
        """The outputs of a generator model one by one, as they come; of any other model its one output.

        *timeout*: the longest wait for the next one. Leaving the loop early cancels the request. When a worker dies in
        the middle, the next one begins anew, and as many outputs as you have are passed over. Needs a blob store, as
        kept results do. Raises as predict() does.
        """
        attributes = self.attributes(timeout=None, deadline=deadline, priority=priority, key=None)
        request = await build_request_aside(model, input, content_type=content_type, **attributes)
        async with contextlib.aclosing(self.stream_message(model, request, timeout=timeout)) as outputs:
            async for output in outputs:
                yield await read_output_aside(output.content_type, output.body)

    async def stream_message(self, model: str, message: Message, *, timeout: float = 60.0) -> AsyncGenerator[Event]:
        """As stream(), for a message made by hand, with nothing decoded."""
        id_ = (await self._door.submit(_model(model), message, keep=True, timeout=timeout)).id
        self._streams.add(id_)
        outputs = Outputs()
        try:
            async with contextlib.aclosing(self._door.follow(id_, timeout)) as events:
                while (event := await _next_within(timeout, events, id_)) is not None:
                    if outputs.take(event):
                        yield event
            answer = await self._door.await_result(id_, timeout)
            self._streams.discard(id_)
            for event in outputs.rest(raise_for_failure(answer)):
                yield event
        finally:
            await self._give_up(id_)

    async def upload(
        self, content: str | PathLike[str] | bytes | bytearray | memoryview, *, content_type: str | None = None
    ) -> dict[str, str]:
        """Put a large input where requests through this gateway can name it: past the gateway, where its store can
        sign URLs. *content* is the bytes, or the path of a file, which is read piece by piece.

        Returns the input to ask a model with, within an hour, as often as you like: predict(model, await upload(path)).
        *content_type* says what it is; by default its first bytes or its name do.

        Raises BadInputError for what cannot be read or is empty, InputRefusedError for more than the gateway takes,
        UploadError when the store does not take it, GatewayError, and ConfigError for a client of a broker.
        """
        source = await asyncio.to_thread(source_of, content)
        upload = await self._door.upload(source)
        kind = content_type or source.content_type
        return {"$upload": upload.id, **({} if kind is None else {"content_type": kind})}

    async def result(self, id: str, timeout: float | None = None) -> Any:  # noqa: A002 - what the handle calls it
        """The output of the request that was submitted, by any process, with ``keep=True``.

        Raises PredictionError for a failure and PredictionTimeoutError when there is none within *timeout* seconds.
        """
        return await read_answer_aside(await self.result_message(id, timeout))

    async def result_message(self, id: str, timeout: float | None = None) -> Message:  # noqa: A002 - as in result
        """As result(): the answer as it was stored. Without any patience (0) it looks once."""
        return await self._door.await_result(_id(id), timeout)

    async def load_message(self, id: str) -> Message:  # noqa: A002 - as in result
        """The stored answer of *id*. Raises BlobNotFoundError while there is none."""
        return await self._door.load(_id(id))

    async def status(self, id: str, *, model: str | None = None) -> PredictionStatus:  # noqa: A002 - as in result
        """Where the kept request *id* is. Over a broker its place in the queue is known only of a named *model*."""
        return await self._door.status(_id(id), model)

    async def cancel(self, id: str) -> Cancellation:  # noqa: A002 - as in result
        """Cancel the kept request *id*: waiting, it never runs; running, it is stopped.

        What is returned is false when it had ended before. Over a broker any id can be cancelled, for its request may
        wait unseen; Cancellation.UNKNOWN says that nothing is known of it. A gateway knows its own ids, and raises
        PredictionNotFoundError for others. Raises BadInputError for what can be no id.
        """
        return await self._door.cancel(_id(id))

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
            async for value in each_of(inputs):
                window.append(asyncio.create_task(self.predict(model, value, timeout=timeout)))
                if len(window) >= max(1, in_flight):
                    yield outcome_of(await next_of(window, ordered=ordered), return_exceptions=return_exceptions)
            while window:
                yield outcome_of(await next_of(window, ordered=ordered), return_exceptions=return_exceptions)
        finally:
            await end(window)

    def attributes(
        self, *, timeout: float | None, deadline: float | None, priority: int, key: str | None
    ) -> dict[str, Any]:
        """What build_request() is told besides the value. Raises ConfigError for a *key* that nobody would heed."""
        if key is not None and not self._door.takes_keys:
            raise ConfigError("idempotency keys are kept by gateways; give this client a gateway's URL, or no key")
        if timeout is not None and not self._door.counts_patience:
            deadline = deadline_after(timeout, deadline)
        return {"deadline": deadline, "priority": priority, "tenant": self.tenant, "idempotency_key": key}

    async def _give_up(self, id_: str) -> None:
        """Cancel the stream *id_*, unless it has ended."""
        if id_ not in self._streams:
            return
        self._streams.discard(id_)
        with contextlib.suppress(DumbwaiterError, TimeoutError):
            async with asyncio.timeout(CANCEL_WITHIN):
                await self._door.cancel(id_)


def _model(name: str) -> str:
    """*name*, if it can be a model's. Raises ConfigError."""
    if not is_model_name(name):
        raise ConfigError(f"{name!r} is no model: queues in {SYSTEM_QUEUES!r} are the system's own; name a model")
    return name


def _id(text: str) -> str:
    """*text*, if it can be a request's id. Raises BadInputError."""
    if not is_message_id(text):
        told = "it is empty" if not text else f"{text[:40]!r} is longer than {LONGEST_ID} characters, or not printable"
        raise BadInputError(f"no request can have this id: {told}; give the one that its handle, or `submit`, told")
    return text


async def _next_within(timeout: float, events: AsyncIterator[Event], id_: str) -> Event | None:
    """The next of *events*; None when there is no more."""
    try:
        async with asyncio.timeout(timeout):
            return await anext(events, None)
    except TimeoutError as error:
        if isinstance(error, PredictionTimeoutError):
            raise
        raise PredictionTimeoutError(f"no further output of {id_!r} within {timeout:g} s; it was canceled") from None
