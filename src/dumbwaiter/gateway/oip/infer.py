"""``POST /v2/models/{model}/infer``: one call becomes one or several requests to the model, asked at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.answers import raise_for_failure, timings_of
from dumbwaiter.asking import Patience
from dumbwaiter.blobs.claimcheck import claim_nbytes
from dumbwaiter.errors import (
    BadInputError,
    BlobError,
    PredictionError,
    PredictionTimeoutError,
    QueueNotFoundError,
)
from dumbwaiter.gateway.http.bodies import CallerGoneError, read_body
from dumbwaiter.gateway.http.heads import SOURCE, one_of, read_head
from dumbwaiter.gateway.http.problems import ProblemError, problem, problem_of
from dumbwaiter.gateway.http.sending import send_chunks, server_timing
from dumbwaiter.gateway.oip.encodings import MOST_INFLATION, inflate
from dumbwaiter.gateway.oip.inputs import Split, most_split_nbytes, split
from dumbwaiter.gateway.oip.offloading import LARGE, Offload
from dumbwaiter.gateway.oip.outputs import join, most_join_nbytes
from dumbwaiter.gateway.oip.problems import refused
from dumbwaiter.gateway.oip.requests import OUTPUT, InferRequest, most_request_nbytes, read_tensors, understand
from dumbwaiter.gateway.oip.responses import Response, check_version, write_response
from dumbwaiter.gateway.request_log import log_request
from dumbwaiter.message import Message
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from starlette.types import Scope

    from dumbwaiter.asking import Asker
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.access.callers import Access, Caller
    from dumbwaiter.gateway.access.quotas import Place
    from dumbwaiter.gateway.catalogue import Catalogue
    from dumbwaiter.gateway.http.budget import Budget, Hold
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.heads import Head
    from dumbwaiter.gateway.signatures import Signatures

SEND_BINARY = "send the tensors as binary data, or fewer in one call"
SEND_LESS = "send less in one call"


class _Encoding(msgspec.Struct, frozen=True):
    """*header_length*: how much of the body is JSON, None when all is; *coding*: how it is compressed."""

    header_length: int | None
    coding: str


class Infer:
    """Serves the calls of all models."""

    def __init__(
        self,
        asker: Asker,
        store: BlobStore,
        catalogue: Catalogue,
        signatures: Signatures,
        options: GatewaySettings,
        *,
        access: Access,
        budget: Budget,
    ) -> None:
        self._asker = asker
        self._store = store
        self._catalogue = catalogue
        self._signatures = signatures
        self._options = options
        self._access = access
        self._budget = budget
        self._offload = Offload()

    async def infer(self, exchange: Exchange) -> None:
        """Answer one call."""
        model = exchange.parameters["model"]
        await self._catalogue.require(model)
        check_version(model, exchange.parameters.get("version"))
        head, encoding = read_head(exchange.scope, inflates=True), read_encoding(exchange.scope)
        with self._budget.hold() as hold:
            body = await read_body(exchange.receive, declared=head.declared, limit=self._options.body_limit, hold=hold)
            exchange.body_was_read = True
            request, asked = await self._read(model, body, encoding, hold)
            del body
            hold.keep(sum(len(body) for _, body in asked.bodies))
            lead = asked.lead
            answers = await self._answers(model, request, asked, head, exchange, hold)
            del asked
            response = await self._respond(model, request, lead, answers, hold)
            if response.nbytes < LARGE:
                await exchange.respond(200, response.headers, b"".join(response.pieces()))
            else:
                # Piece by piece as the caller reads them: so what its connection holds is little, and the rest counted.
                pieces = self._offload.pieces(response.pieces())
                await send_chunks(exchange.send, exchange.watch(), response.headers, pieces)

    async def _read(self, model: str, body: bytes, encoding: _Encoding, hold: Hold) -> tuple[InferRequest, Split]:
        """The request without its tensors, and what is asked of the model. What it takes beside *body* stays taken."""
        signature = await self._signatures.signature_of(model)
        limit = self._options.body_limit
        plain = body
        if encoding.coding:
            with self._budget.hold() as room:
                room.take(min(limit, MOST_INFLATION * len(body)))
                plain = await self._offload.run(room.nbytes, lambda: inflate(encoding.coding, body, limit=limit))
            hold.take(len(plain))
        run = self._offload.run
        said = await run(len(plain), lambda: understand(plain, encoding.header_length))
        hold.take(await run(len(plain), lambda: most_request_nbytes(said)), or_else=SEND_BINARY)
        request = await run(len(plain), lambda: read_tensors(said))
        hold.take(most_split_nbytes(signature, request.inputs), or_else=SEND_LESS)
        asked = await run(hold.nbytes, lambda: split(signature, request.inputs))
        # The tensors are not kept: what is asked of them is a copy.
        return msgspec.structs.replace(request, inputs=()), asked

    async def _answers(
        self, model: str, request: InferRequest, asked: Split, head: Head, exchange: Exchange, hold: Hold
    ) -> list[Message]:
        caller = await self._access.admit(exchange.scope)
        self._access.charge(caller, len(asked.bodies))
        patience = self._patience(request, head)
        messages = _messages(model, asked, request, head, caller, patience)
        if self._options.log_requests:
            for message in messages:
                log_request(message)
        with contextlib.ExitStack() as stack:
            places = []
            for _ in messages:
                places.append(stack.enter_context(await self._access.place(caller)))
                self._catalogue.admit(model, patience)
            return await self._ask_all(model, list(zip(messages, places, strict=True)), patience, exchange, hold)

    async def _respond(
        self, model: str, request: InferRequest, lead: Sequence[int], answers: Sequence[Message], hold: Hold
    ) -> Response:
        bodies = [(answer.content_type, answer.body) for answer in answers]
        nbytes = sum(len(answer.body) for answer in answers)
        hold.keep(nbytes)
        hold.take(await self._offload.run(nbytes, lambda: most_join_nbytes(bodies)), or_else=SEND_LESS)
        output = await self._offload.run(nbytes, lambda: join(lead, bodies, name=OUTPUT))
        hold.keep(nbytes + output.nbytes)
        response = await self._offload.run(
            nbytes, lambda: write_response(output, model=model, id_=request.id, binary=request.binary)
        )
        slowest = max((timings_of(answer) for answer in answers), key=lambda timings: timings.queued + timings.batched)
        response.headers.append((b"server-timing", server_timing(slowest).encode()))
        return response

    def _patience(self, request: InferRequest, head: Head) -> Patience:
        options = self._options
        seconds = head.preferences.patience(default=options.default_patience, maximum=options.max_patience)
        if request.timeout is not None:
            seconds = min(request.timeout, options.max_patience)
        if head.deadline is not None:
            seconds = min(seconds, head.deadline - time.time())
        if seconds <= 0.0:
            raise problem(504, "deadline-exceeded", "the deadline was over before the request came")
        return Patience(seconds)

    async def _ask_all(
        self,
        model: str,
        messages: Sequence[tuple[Message, Place]],
        patience: Patience,
        exchange: Exchange,
        hold: Hold,
    ) -> list[Message]:
        """The answers in order, or the first failure; then the others are given up, and those not sent stay unsent."""
        loop = asyncio.get_running_loop()
        asking = [
            loop.create_task(self._ask(model, message, place, patience, number if len(messages) > 1 else None, hold))
            for number, (message, place) in enumerate(messages)
        ]
        together = asyncio.gather(*asking)
        either: set[asyncio.Future[Any]] = {together, exchange.watch().future}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not together.done():
                raise CallerGoneError
            return together.result()
        except QueueNotFoundError:
            await self._catalogue.missed(model)
            raise
        finally:
            await end([*asking, together])

    async def _ask(
        self, model: str, message: Message, place: Place, patience: Patience, number: int | None, hold: Hold
    ) -> Message:
        try:
            pending = await self._asker.begin(model, message, timeout=patience)
            if (leave := place.stay()) is not None:
                self._asker.when_over(pending, patience, leave)
            answer = await pending.head(patience)
            await self._take(answer, patience, hold)
            return raise_for_failure(await pending.body(answer, patience))
        except PredictionTimeoutError as error:
            raise self._catalogue.explained(model, error) from None
        except PredictionError as error:
            if number is None:
                raise
            told = problem_of(error)
            raise ProblemError(msgspec.structs.replace(told, detail=f"element {number}: {told.detail}")) from error

    async def _take(self, answer: Message, patience: Patience, hold: Hold) -> None:
        """Take what the body of *answer* occupies before it is fetched. Without room for it, nobody will fetch it."""
        if answer.data_ref is None:
            hold.take(len(answer.body), or_else=SEND_LESS)
            return
        try:
            hold.take(await self._nbytes(answer, answer.data_ref, patience), or_else=SEND_LESS)
        except BaseException:
            self._asker.discard(answer)
            raise

    async def _nbytes(self, answer: Message, data_ref: str, patience: Patience) -> int:
        try:
            async with asyncio.timeout(patience.left):
                return await claim_nbytes(self._store, data_ref)
        except TimeoutError:
            detail = f"the answer to {answer.correlation_id!r} could not be fetched within {patience:g} s"
            raise PredictionTimeoutError(detail) from None
        except BadInputError as error:
            raise BlobError(f"the answer to {answer.correlation_id!r} has no body to fetch: {error}") from None


def read_encoding(scope: Scope) -> _Encoding:
    """How the body is written. Raises ProblemError (400) for a length that is none."""
    header_length: int | None = None
    coding = ""
    for name, value in scope["headers"]:
        if name == b"inference-header-content-length":
            if not (value.isdigit() and len(value) < 20):
                raise refused("Inference-Header-Content-Length must be a number of bytes")
            header_length = int(value)
        elif name == b"content-encoding":
            coding = value.decode("latin-1")
    return _Encoding(header_length, coding)


def _messages(
    model: str, asked: Split, request: InferRequest, head: Head, caller: Caller, patience: Patience
) -> list[Message]:
    now = time.time()
    priority = one_of(head.priority, request.priority or None, "priority") or 0
    return [
        Message(
            body=body,
            content_type=content_type,
            source=SOURCE,
            subject=model,
            time=now,
            deadline=now + patience,
            priority=priority,
            tenant=caller.tenant,
            trace_parent=head.trace_parent,
        )
        for content_type, body in asked.bodies
    ]
