"""``POST /v1/models/{model}/predictions``, the hot endpoint, and ``PUT`` with a key: an ASGI class without request and
response objects.

A caller who simply waits costs no look at the store. What is to be kept, because the caller does not wait, has a key,
a webhook or wants events, goes another way: keeping.py.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.answers import raise_for_failure
from dumbwaiter.asking import Patience
from dumbwaiter.errors import DumbwaiterError
from dumbwaiter.gateway.http.budget import SMALL
from dumbwaiter.gateway.http.heads import SOURCE, check_key, one_of, read_head
from dumbwaiter.gateway.http.preferences import applied
from dumbwaiter.gateway.http.problems import ModelFailingError, ProblemError, problem
from dumbwaiter.gateway.http.sending import send_chunks
from dumbwaiter.gateway.predictions.inputs import UNCONTROLLED
from dumbwaiter.gateway.predictions.outputs import goes_raw, raw_headers, write_answer
from dumbwaiter.gateway.request_log import log_request
from dumbwaiter.message import Message, new_id
from dumbwaiter.prediction import INLINE_NBYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.access.callers import Access, Caller
    from dumbwaiter.gateway.access.quotas import Place
    from dumbwaiter.gateway.catalogue import Catalogue
    from dumbwaiter.gateway.http.budget import Budget, Hold
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.heads import Head
    from dumbwaiter.gateway.predictions.claiming import UploadClaims
    from dumbwaiter.gateway.predictions.inputs import Input
    from dumbwaiter.gateway.predictions.keeping import Keeping
    from dumbwaiter.gateway.predictions.uploads import Uploads
    from dumbwaiter.gateway.predictions.waiting import Waiting

COPIES = 3
"""So often is an output in memory that goes out within an object: as it came, as text, and within that object."""


class Predictions:
    """Sends each request to its model's queue and answers with what comes back in time, or says where it will be."""

    def __init__(
        self,
        *,
        access: Access,
        catalogue: Catalogue,
        budget: Budget,
        uploads: Uploads,
        claims: UploadClaims,
        waiting: Waiting,
        keeping: Keeping,
        options: GatewaySettings,
    ) -> None:
        self._access = access
        self._catalogue = catalogue
        self._budget = budget
        self._uploads = uploads
        self._claims = claims
        self._waiting = waiting
        self._keeping = keeping
        self._options = options

    # The two return coroutines rather than await them: each frame between costs every request.

    def create(self, exchange: Exchange) -> Awaitable[None]:
        """``POST``, with or without an ``Idempotency-Key``."""
        return self._create(exchange, read_head(exchange.scope))

    def create_once(self, exchange: Exchange) -> Awaitable[None]:
        """``PUT /v1/models/{model}/predictions/{key}``: POST with that idempotency key."""
        head = read_head(exchange.scope)
        in_path = check_key(exchange.parameters["key"], "the key in the path")
        key = one_of(head.key, in_path, "idempotency-key", where="by the path and by a header")
        return self._create(exchange, msgspec.structs.replace(head, key=key))

    async def _create(self, exchange: Exchange, head: Head) -> None:
        caller = await self._access.admit(exchange.scope)
        model = exchange.parameters["model"]
        await self._catalogue.require(model)
        has_key = head.key is not None
        keeps = has_key or head.preferences.respond_async or head.wants_events
        if not keeps and (reason := self._catalogue.failing_reason(model)) is not None:
            raise ModelFailingError(model, reason)
        once = None if head.key is None else (model, head.key)
        with self._budget.hold() as hold, await self._access.place(caller, once=once) as place:
            given = await self._uploads.read(head, exchange.receive, hold, model=model, durable=keeps, digest=has_key)
            exchange.body_was_read = True
            if given.upload is not None:
                given = await self._claims.claim(given, _tenant_of(caller, given), model=model, key=head.key)
            keeps = keeps or given.controls.webhook is not None or given.controls.stream
            patience = Patience(self._patience_of(head, given))
            try:
                request = self._request(head, given, model, caller, None if keeps else patience)
            except DumbwaiterError:
                await self._uploads.drop(given)
                raise
            if self._options.log_requests:
                log_request(request)
            if keeps:
                await self._keeping.keep(exchange, head, given, request, patience, place)
            else:
                await self._wait(exchange, head, request, patience, hold, place)

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
            tenant=_tenant_of(caller, given),
            idempotency_key=head.key,
        )

    async def _wait(
        self, exchange: Exchange, head: Head, request: Message, patience: Patience, hold: Hold, place: Place
    ) -> None:
        model = exchange.parameters["model"]
        asked = await self._waiting.begin(model, request, patience, exchange, place)
        answer = asked.answer
        if answer.data_ref is not None:
            nbytes = await self._waiting.nbytes(request.id, answer.data_ref, patience)
            if nbytes > INLINE_NBYTES and goes_raw(answer, head.accept):
                headers = [*raw_headers(answer, id_=request.id, nbytes=nbytes), *applied(head.preferences, patience)]
                try:
                    await send_chunks(exchange.send, asked.watch, headers, self._waiting.chunks(answer))
                finally:
                    self._waiting.drop(answer)
                return
            try:
                hold.take(COPIES * nbytes)
            except ProblemError:
                self._waiting.drop(answer)
                raise
            answer = await asked.whole(patience)
        elif len(answer.body) > SMALL:
            hold.take(COPIES * len(answer.body))
        answer = raise_for_failure(answer)
        headers, body = write_answer(answer, id_=request.id, model=model, accept=head.accept)
        if head.preferences.wait is not None:
            headers += applied(head.preferences, patience)
        await exchange.respond(200, headers, body)


def _tenant_of(caller: Caller, given: Input) -> str | None:
    named = given.controls.tenant
    return caller.tenant if named is None else caller.as_tenant(named).tenant
