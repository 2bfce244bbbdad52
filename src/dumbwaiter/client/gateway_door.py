"""Through a gateway: requests and answers over HTTP, from outside as from within."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Self
from urllib.parse import quote

from dumbwaiter.asking import Patience, Polling, until_found
from dumbwaiter.client.door import Cancellation, Door, Event, PredictionStatus, Submitted
from dumbwaiter.client.gateway_answers import (
    Seen,
    answer_in,
    failure_in,
    is_pending,
    is_prediction,
    prediction_of,
    raw_answer,
)
from dumbwaiter.client.gateway_connection import GatewayConnection, may_pass
from dumbwaiter.client.gateway_requests import body_of, headers_of
from dumbwaiter.client.gateway_uploads import GatewayUploads
from dumbwaiter.client.server_events import EventParser, ServerEvent, output_of
from dumbwaiter.errors import (
    BlobNotFoundError,
    GatewayError,
    GatewayUnavailableError,
    PredictionOutOfReachError,
    PredictionTimeoutError,
)
from dumbwaiter.message import new_id
from dumbwaiter.policies.polling import WATCH
from dumbwaiter.policies.repeating import failures_in_a_row
from dumbwaiter.prediction import CANCELED

if TYPE_CHECKING:
    from types import TracebackType

    import httpx

    from dumbwaiter.client.uploading import Source, Upload
    from dumbwaiter.message import Message

LONGEST_LOOK = 30.0
"""Seconds that one request may wait for a kept result; then the next one asks."""
LONGEST_OUTAGE = 60.0
"""Whoever waits for a kept result without end gives up a gateway that is away for so many seconds."""
LAST_WORDS = 0.25
"""The gateway gets so many seconds more to say why there is no answer. Less than a second's patience gets none."""
COMPLETED = "completed"
"""The last event of a stream."""
AS_IT_IS = "text/*, */*;q=0.5"
"""The Accept header for text as text and bytes as bytes."""


class GatewayDoor(Door):
    """*url* is the gateway's. *headers* go with every request. A request without an answer is sent again *retries*
    times; with *idempotent* each has a key of its own, so that this never makes the model run twice.
    """

    counts_patience: ClassVar[bool] = True
    takes_keys: ClassVar[bool] = True

    def __init__(self, url: str, *, headers: Mapping[str, str], retries: int, idempotent: bool) -> None:
        self._connection = GatewayConnection(url, headers=headers, retries=retries)
        self._uploads = GatewayUploads(self._connection, retries=retries)
        self._retries = retries
        self._idempotent = idempotent

    async def __aenter__(self) -> Self:
        self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def ask(self, model: str, message: Message, *, timeout: float) -> Message:
        patience = Patience(timeout)
        key = message.idempotency_key or (new_id() if self._idempotent else None)
        try:
            async with asyncio.timeout(_limit(patience)):
                response = await self._post(model, message, {"accept": AS_IT_IS}, key, patience=patience)
                answer = await self._answer(response, model, message)
        except TimeoutError as error:
            if isinstance(error, PredictionTimeoutError):
                raise
            raise PredictionTimeoutError(f"no answer from {model!r} within {patience:g} s") from None
        if answer is None:
            id_ = prediction_of(self._connection.shown, response).id
            raise PredictionTimeoutError(f"no answer from {model!r} within {patience:g} s; it is kept as {id_}")
        return answer

    async def submit(
        self,
        model: str,
        message: Message,
        *,
        keep: bool,  # noqa: ARG002 - it always is
        timeout: float | None = None,  # noqa: ARG002 - tries are counted here
    ) -> Submitted:
        key = message.idempotency_key or (new_id() if self._retries or self._idempotent else None)
        headers = {"accept": AS_IT_IS, "prefer": "respond-async"}
        response = await self._post(model, message, headers, key, patience=None)
        id_ = response.headers.get("x-prediction-id")
        return Submitted(id_ or prediction_of(self._connection.shown, response).id, None)

    async def load(self, id_: str) -> Message:
        answer = await self._look(id_, None, waits=None)
        if answer is None:
            raise BlobNotFoundError(id_)
        return answer

    async def await_result(self, id_: str, timeout: float | None) -> Message:
        patience = None if timeout is None else Patience(timeout)
        waits = None if patience is not None and patience <= 0.0 else LONGEST_LOOK
        try:
            async with asyncio.timeout(_limit(patience) if patience else None):
                # Between two looks too: the gateway has waited for us, or knows no waiting.
                return await until_found(
                    lambda: self._look(id_, patience or Patience(LONGEST_OUTAGE), waits=waits, insists=True),
                    Polling(WATCH, patience=patience),
                )
        except GatewayUnavailableError as error:
            raise PredictionOutOfReachError(id_, error) from error
        except TimeoutError:
            raise PredictionTimeoutError(
                f"no result of {id_!r} within {patience or 0.0:g} s; it may still be waiting or running"
            ) from None

    async def status(self, id_: str, model: str | None) -> PredictionStatus:  # noqa: ARG002 - the id says it
        seen = await self._see(id_)
        return PredictionStatus(status=seen.status, queue_position=seen.queue_position)

    async def cancel(self, id_: str) -> Cancellation:
        response = await self._connection.call("POST", f"{_path(id_)}/cancel", patience=None, id_=id_)
        is_canceled = prediction_of(self._connection.shown, response).status == CANCELED
        return Cancellation.CANCELED if is_canceled else Cancellation.ENDED

    async def upload(self, source: Source) -> Upload:
        return await self._uploads.upload(source)

    async def follow(self, id_: str, timeout: float) -> AsyncGenerator[Event]:
        last, failures, patience = "", 0, Patience(timeout)
        while True:
            opened_at = time.monotonic()
            try:
                async for event in self._stream(id_, last):
                    if event.id != last:  # something new has come
                        last, failures, patience = event.id, 0, Patience(float(timeout))
                    if event.name == COMPLETED:
                        return
                    yield Event(event.name, *output_of(event.data), event.id)
                what = f"the events of {id_} ended early; ask again"
                error: GatewayError = GatewayUnavailableError(self._connection.shown, what)
            except GatewayError as caught:
                error = caught
            failures = failures_in_a_row(failures, time.monotonic() - opened_at)
            if not self._retries or not may_pass(error):
                raise error
            try:
                await self._connection.pause(failures, error, patience)
            except GatewayUnavailableError as away:
                raise PredictionOutOfReachError(id_, away) from away

    async def _stream(self, id_: str, last: str) -> AsyncIterator[ServerEvent]:
        headers = {"accept": "text/event-stream", **({"last-event-id": last} if last else {})}
        parser = EventParser()
        async with self._connection.lines(f"{_path(id_)}/events", headers, id_=id_) as lines:
            async for line in lines:
                event = parser.feed(line)
                if event is not None:
                    yield event

    async def _post(
        self, model: str, message: Message, headers: Mapping[str, str], key: str | None, *, patience: Patience | None
    ) -> httpx.Response:
        content_type, content = body_of(message)
        return await self._connection.call(
            "POST",
            f"v1/models/{quote(model, safe='')}/predictions",
            patience=patience,
            waits=patience,
            headers={**headers, **headers_of(message, content_type, key)},
            content=content,
            model=model,
        )

    async def _look(
        self, id_: str, patience: Patience | None, *, waits: float | None, insists: bool = False
    ) -> Message | None:
        # The output itself, and not the object that tells of it: there text and bytes are put in other words.
        response = await self._connection.call(
            "GET",
            f"{_path(id_)}/output",
            patience=patience,
            waits=waits,
            headers={"accept": "*/*"},
            id_=id_,
            insists=insists,
        )
        if is_pending(response):
            return None
        failure = None if response.is_success else failure_in(response, id_=id_, model=None)
        return raw_answer(response, id_=id_, model=None) if failure is None else failure

    async def _see(self, id_: str) -> Seen:
        response = await self._connection.call(
            "GET", _path(id_), patience=None, headers={"accept": "application/json"}, id_=id_
        )
        return prediction_of(self._connection.shown, response)

    async def _answer(self, response: httpx.Response, model: str, request: Message) -> Message | None:
        """The answer to *request* that *response* holds; None when it says that there is none yet."""
        failure = None if response.is_success else failure_in(response, id_=request.id, model=model)
        if failure is not None:
            return failure
        if not is_prediction(response):
            return raw_answer(response, id_=request.id, model=model, tenant=request.tenant)
        seen = prediction_of(self._connection.shown, response)
        if seen.has_ended and seen.is_linked:
            return await self._look(seen.id, None, waits=None)
        return answer_in(seen, model=model, tenant=request.tenant) if seen.has_ended else None


def _path(id_: str) -> str:
    return f"v1/predictions/{quote(id_, safe='')}"


def _limit(patience: Patience) -> float:
    return patience.left + (LAST_WORDS if patience >= 1.0 else 0.0)
