"""``POST /v1/models/{model}/predictions``, the hot endpoint, and ``PUT`` with a key: an ASGI class without request and
response objects.

A caller who simply waits costs no look at the store. What is to be kept, because the caller does not wait, has a key,
a webhook or wants events, is accepted first; its answer comes from the stored result.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.answers import raise_for_failure
from dumbwaiter.asking import Patience
from dumbwaiter.blobs.results import has_result, result_body_nbytes, stream_result_body
from dumbwaiter.errors import DumbwaiterError, PredictionTimeoutError, QueueNotFoundError
from dumbwaiter.gateway.http.bodies import CallerGoneError
from dumbwaiter.gateway.http.heads import check_key, one_of, read_head
from dumbwaiter.gateway.http.problems import ModelFailingError, ShuttingDownError, problem
from dumbwaiter.gateway.http.sending import closing, send_chunks
from dumbwaiter.gateway.predictions.inputs import UNCONTROLLED
from dumbwaiter.gateway.predictions.outputs import is_sent_raw, raw_headers, write_answer
from dumbwaiter.message import PREDICTION_SUCCEEDED, Message, new_id
from dumbwaiter.prediction import INLINE_NBYTES, encode, unfinished

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.access.callers import Access, Caller
    from dumbwaiter.gateway.access.quotas import Place
    from dumbwaiter.gateway.catalogue import Catalogue
    from dumbwaiter.gateway.http.budget import Budget
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.heads import Head
    from dumbwaiter.gateway.http.problems import Headers
    from dumbwaiter.gateway.predictions.accepting import Accepted, Acceptor
    from dumbwaiter.gateway.predictions.events import EventStreams
    from dumbwaiter.gateway.predictions.inputs import Input
    from dumbwaiter.gateway.predictions.results import Lookout, Results
    from dumbwaiter.gateway.predictions.uploads import Uploads
    from dumbwaiter.gateway.predictions.waiting import Waiting

SOURCE = "/dumbwaiter/gateway"


class Predictions:
    """Sends each request to its model's queue and answers with what comes back in time, or says where it will be."""

    def __init__(
        self,
        store: BlobStore,
        *,
        access: Access,
        catalogue: Catalogue,
        budget: Budget,
        uploads: Uploads,
        waiting: Waiting,
        acceptor: Acceptor,
        results: Results,
        streams: EventStreams,
        options: GatewaySettings,
    ) -> None:
        self._store = store
        self._access = access
        self._catalogue = catalogue
        self._budget = budget
        self._uploads = uploads
        self._waiting = waiting
        self._acceptor = acceptor
        self._results = results
        self._streams = streams
        self._options = options

    # The two return coroutines rather than await them: each frame between costs every request.

    def create(self, exchange: Exchange) -> Awaitable[None]:
        """``POST``, with or without an ``Idempotency-Key``."""
        return self._create(exchange, read_head(exchange.scope))

    def create_once(self, exchange: Exchange) -> Awaitable[None]:
        """``PUT /v1/models/{model}/predictions/{key}``: POST with that idempotency key."""
        head = read_head(exchange.scope)
        key = one_of(head.key, check_key(exchange.parameters["key"], "the key in the path"), "idempotency-key")
        return self._create(exchange, msgspec.structs.replace(head, key=key))

    async def _create(self, exchange: Exchange, head: Head) -> None:
        caller = await self._access.admit(exchange.scope)
        model = exchange.parameters["model"]
        await self._catalogue.require(model)
        keeps = head.key is not None or head.preferences.respond_async or head.wants_events
        if not keeps and (reason := self._catalogue.failing_reason(model)) is not None:
            raise ModelFailingError(model, reason)
        with self._budget.hold() as hold, await self._access.place(caller) as place:
            given = await self._uploads.read(head, exchange.receive, hold, durable=keeps, digest=head.key is not None)
            exchange.body_was_read = True
            keeps = keeps or given.controls.webhook is not None or given.controls.stream
            patience = Patience(self._patience_of(head, given))
            try:
                request = self._request(head, given, model, caller, None if keeps else patience)
            except DumbwaiterError:
                await self._uploads.drop(given)
                raise
            if keeps:
                await self._keep(exchange, head, given, request, patience, place)
            else:
                await self._wait(exchange, head, request, patience)

    def _patience_of(self, head: Head, given: Input) -> float:
        """How long the caller waits; not at all where it follows the events instead."""
        prefers, options = head.preferences, self._options
        if head.wants_events or given.controls.stream:
            return 0.0
        if prefers.respond_async:
            return prefers.patience(default=0.0, maximum=options.max_patience, least=0.0)
        return prefers.patience(default=options.default_patience, maximum=options.max_patience)

    def _request(self, head: Head, given: Input, model: str, caller: Caller, patience: Patience | None) -> Message:
        """The message; with *patience* it is worth nothing after that."""
        now = time.time()
        said = given.controls
        tenant = caller.tenant if said.tenant is None else caller.as_tenant(said.tenant).tenant
        deadline = head.deadline if said is UNCONTROLLED else one_of(head.deadline, said.deadline, "deadline")
        priority = head.priority if said is UNCONTROLLED else one_of(head.priority, said.priority, "priority")
        if deadline is not None and deadline <= now:
            raise problem(504, "deadline-exceeded", "the deadline was over before the request came")
        if patience is not None and (deadline is None or now + patience < deadline):
            deadline = now + patience
        return Message(
            id=new_id(),
            body=given.body,
            data_ref=given.data_ref,
            content_type=given.content_type,
            source=SOURCE,
            subject=model,
            time=now,
            deadline=deadline,
            trace_parent=head.trace_parent,
            priority=priority or 0,
            tenant=tenant,
            idempotency_key=head.key,
        )

    # --- a caller who waits, and nothing is kept ---

    async def _wait(self, exchange: Exchange, head: Head, request: Message, patience: Patience) -> None:
        model = exchange.parameters["model"]
        asked = await self._waiting.begin(model, request, patience, exchange)
        answer = asked.answer
        if answer.data_ref is not None and _goes_raw(answer, head):
            nbytes = await self._waiting.nbytes(answer, patience)
            if nbytes > INLINE_NBYTES:
                headers = raw_headers(answer, id_=request.id, nbytes=nbytes)
                try:
                    async with closing(self._waiting.chunks(answer)) as chunks:
                        await send_chunks(exchange.send, asked.watch, headers, chunks)
                finally:
                    self._waiting.drop(answer)
                return
        if answer.data_ref is not None:
            answer = await asked.whole(patience)
        answer = raise_for_failure(answer)
        await exchange.respond(200, *write_answer(answer, id_=request.id, model=model, accept=head.accept))

    # --- what is kept ---

    async def _keep(
        self, exchange: Exchange, head: Head, given: Input, request: Message, patience: Patience, place: Place
    ) -> None:
        model = exchange.parameters["model"]
        accepted = await self._acceptor.accept(request, model=model, controls=given.controls, digest=given.digest)
        exchange.prediction_id = accepted.id
        streams = head.wants_events or given.controls.stream
        answer: Message | None = None
        async with self._results.look_out(accepted.id, model) as lookout:
            if accepted.is_again and await has_result(self._store, accepted.id):
                await self._acceptor.drop(accepted.message)
            else:
                await self._send(lookout, accepted, head, patience)
            try:
                if streams:
                    await self._stream(exchange, head, accepted)
                    return
                answer = await self._await(exchange, head, lookout, patience)
            finally:
                if answer is None:
                    place.remember(accepted.id)
        if answer is not None:
            await self._tell(exchange, head, accepted, answer)
        elif head.preferences.respond_async or given.controls.webhook is not None:
            await self._defer(exchange, head, accepted, patience)
        else:
            detail = f"no answer to {accepted.id!r} from {model!r} within {patience:g} s; it is kept, ask with its key"
            raise self._waiting.explained(model, PredictionTimeoutError(detail))

    async def _send(self, lookout: Lookout, accepted: Accepted, head: Head, patience: Patience) -> None:
        must_be_answered = None if head.preferences.respond_async or not patience else patience
        try:
            self._catalogue.admit(accepted.model, must_be_answered, deadline=accepted.message.deadline)
        except DumbwaiterError:
            # Whoever comes again with its key will find the body that was accepted with it.
            if head.key is None:
                await self._acceptor.drop(accepted.message)
            raise
        try:
            await lookout.send(accepted.message, listen=bool(patience))
        except QueueNotFoundError:
            self._catalogue.forget(accepted.model)
            await self._catalogue.require(accepted.model)
            raise

    async def _await(self, exchange: Exchange, head: Head, lookout: Lookout, patience: Patience) -> Message | None:
        if not patience:
            return None
        watch = exchange.watch()
        try:
            answer = await lookout.answer(patience, watch.task)
        except (ShuttingDownError, ModelFailingError):
            if head.preferences.respond_async:
                return None
            raise
        if watch.gone:
            raise CallerGoneError
        return answer

    async def _stream(self, exchange: Exchange, head: Head, accepted: Accepted) -> None:
        headers = [*_headers_of(accepted), (b"preference-applied", b"respond-async")]
        await self._streams.send(
            exchange, accepted.id, accepted.model, accepted.kept, after=head.last_event_id, headers=headers
        )

    async def _tell(self, exchange: Exchange, head: Head, accepted: Accepted, answer: Message) -> None:
        """The answer from the store: the same bytes for all who ask with this key, by whichever gateway."""
        answer = raise_for_failure(answer)
        if answer.data_ref is None or not _goes_raw(answer, head):
            headers, body = write_answer(
                answer, id_=accepted.id, model=accepted.model, accept=head.accept, kept=accepted.kept
            )
            await exchange.respond(200, headers, body)
            return
        nbytes = await result_body_nbytes(self._store, answer)
        headers = raw_headers(answer, id_=accepted.id, nbytes=nbytes)
        async with closing(stream_result_body(self._store, answer)) as chunks:
            await send_chunks(exchange.send, exchange.watch(), headers, chunks)

    async def _defer(self, exchange: Exchange, head: Head, accepted: Accepted, patience: Patience) -> None:
        """202: it was accepted, and is found at its Location."""
        kept = accepted.kept
        body = encode(
            unfinished(accepted.id, accepted.model, created_at=kept.created_at, started=False, links=kept.links)
        )
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *_headers_of(accepted),
        ]
        if head.preferences.respond_async:
            waited = b", wait=%d" % int(patience) if patience else b""
            headers.append((b"preference-applied", b"respond-async" + waited))
        await exchange.respond(202, headers, body)


def _goes_raw(answer: Message, head: Head) -> bool:
    return answer.type == PREDICTION_SUCCEEDED and is_sent_raw(answer.content_type, head.accept)


def _headers_of(accepted: Accepted) -> Headers:
    return [(b"location", accepted.kept.links.get.encode()), (b"x-prediction-id", accepted.id.encode())]
