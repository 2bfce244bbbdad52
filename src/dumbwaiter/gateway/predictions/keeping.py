"""Requests that are kept: accepted first, durably, and answered from the stored result, in time or later."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from dumbwaiter.answers import raise_for_failure
from dumbwaiter.errors import DumbwaiterError, PredictionTimeoutError, QueueNotFoundError
from dumbwaiter.gateway.http.bodies import CallerGoneError
from dumbwaiter.gateway.http.crowd import making_room, only_waiting
from dumbwaiter.gateway.http.preferences import applied
from dumbwaiter.gateway.http.problems import ModelFailingError, ProblemError, ShuttingDownError, problem
from dumbwaiter.gateway.http.sending import send_chunks
from dumbwaiter.gateway.predictions.outputs import goes_raw, raw_headers, write_answer, write_unfinished

if TYPE_CHECKING:
    from dumbwaiter.asking import Patience
    from dumbwaiter.gateway.access.quotas import Place
    from dumbwaiter.gateway.catalogue import Catalogue
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.heads import Head
    from dumbwaiter.gateway.predictions.accepting import Accepted, Acceptor
    from dumbwaiter.gateway.predictions.events import EventStreams
    from dumbwaiter.gateway.predictions.inputs import Input
    from dumbwaiter.gateway.predictions.results import Lookout, Results
    from dumbwaiter.gateway.predictions.telling import Telling
    from dumbwaiter.message import Message


class Keeping:
    """Accepts requests, sends them unless they are answered already, and tells their callers as they prefer."""

    def __init__(
        self, *, catalogue: Catalogue, acceptor: Acceptor, results: Results, streams: EventStreams, telling: Telling
    ) -> None:
        self._catalogue = catalogue
        self._acceptor = acceptor
        self._results = results
        self._streams = streams
        self._telling = telling

    async def keep(
        self, exchange: Exchange, head: Head, given: Input, request: Message, patience: Patience, place: Place
    ) -> None:
        """Accept *request*, which came as *given*, and answer: with its output, with its events, or with 202.

        Raises as Acceptor.accept(), Catalogue.check() and Lookout.send() do; PredictionTimeoutError when *patience* is
        over, for a caller who wants nothing but the output.
        """
        model = exchange.parameters["model"]
        await self._let_in(request, model, head, patience)
        accepted = await self._acceptor.accept(request, model=model, controls=given.controls, digest=given.digest)
        exchange.prediction_id = accepted.id
        answer: Message | None = None
        async with self._results.look_out(accepted.id, model) as lookout:
            if accepted.is_again and await self._results.is_there(accepted.id):
                await self._acceptor.drop_own(accepted)
            else:
                await self._send(exchange, lookout, accepted, patience)
            try:
                if head.wants_events or given.controls.stream:
                    await self._stream(exchange, head, accepted)
                    return
                answer = await self._await(exchange, head, lookout, patience)
            finally:
                if answer is None:
                    place.remember(accepted.id)
        if answer is not None:
            await self._tell(exchange, head, accepted, answer, patience)
        elif head.preferences.respond_async or given.controls.webhook is not None:
            await self._defer(exchange, head, accepted, patience)
        else:
            detail = f"no answer to {accepted.id!r} from {model!r} within {patience:g} s; it is kept, ask with its key"
            raise self._catalogue.explained(model, PredictionTimeoutError(detail))

    async def _let_in(self, request: Message, model: str, head: Head, patience: Patience) -> None:
        """Refuse *request* before it is accepted: what is refused after that would look as if it still waited.

        What was accepted before is let in: there may be an answer, and of the work ahead its own may be a part.
        """
        must_be_answered = None if head.preferences.respond_async or not patience else patience
        deadline = self._acceptor.deadline_of(request, created_at=time.time())
        try:
            self._results.require_open()
            try:
                self._catalogue.check(model, must_be_answered, deadline=deadline)
            except DumbwaiterError:
                if not await self._acceptor.knows(request, model):
                    raise
        except DumbwaiterError:
            await self._acceptor.drop(request)
            raise

    async def _send(self, exchange: Exchange, lookout: Lookout, accepted: Accepted, patience: Patience) -> None:
        if accepted.is_again and (reason := self._catalogue.failing_reason(accepted.model)) is not None:
            await self._acceptor.drop_own(accepted)
            raise ModelFailingError(accepted.model, reason)
        if not accepted.message.body and accepted.message.data_ref is None:
            detail = "its time is over, and so is that of what was accepted with this key; upload it again"
            raise problem(404, "unknown-upload", f"{detail}, and choose a new key")
        self._catalogue.count(accepted.model)
        try:
            await lookout.send(accepted.message, patience, listen=bool(patience), owns_body=accepted.owns_body)
        except QueueNotFoundError:
            if not accepted.is_again:
                exchange.prediction_id = None  # it would look as if it still waited
            await self._catalogue.missed(accepted.model)
            raise

    async def _await(self, exchange: Exchange, head: Head, lookout: Lookout, patience: Patience) -> Message | None:
        if not patience:
            return None
        watch = exchange.watch()
        try:
            with only_waiting(exchange.scope) as give_way:
                answer = await lookout.answer(patience, watch.future, give_way)
            if answer is None and give_way.done():
                raise making_room()
        except (ShuttingDownError, ModelFailingError, ProblemError):
            if head.preferences.respond_async:
                return None
            raise
        if watch.gone:
            raise CallerGoneError
        return answer

    async def _stream(self, exchange: Exchange, head: Head, accepted: Accepted) -> None:
        if accepted.is_again:
            # What cannot be read is told while there is a status to tell it with.
            await self._results.find(accepted.id)
        headers = [
            (b"location", accepted.kept.links.get.encode()),
            (b"x-prediction-id", accepted.id.encode()),
            *applied(head.preferences, 0.0, deferred=True),
        ]
        # Of a request that has just come nobody has seen an event.
        after = head.last_event_id if accepted.is_again else None
        await self._streams.send(exchange, accepted.id, accepted.model, accepted.kept, after=after, headers=headers)

    async def _tell(
        self, exchange: Exchange, head: Head, accepted: Accepted, answer: Message, patience: Patience
    ) -> None:
        """The answer from the store: the same bytes for all who ask with this key, by whichever gateway."""
        answer = raise_for_failure(answer)
        if answer.data_ref is None or not goes_raw(answer, head.accept):
            write = partial(write_answer, id_=accepted.id, model=accepted.model, accept=head.accept, kept=accepted.kept)
            honoured = applied(head.preferences, patience)
            await self._telling.respond(exchange, accepted.id, answer, write, honoured)
            return
        nbytes = await self._results.nbytes(answer)
        headers = [*raw_headers(answer, id_=accepted.id, nbytes=nbytes), *applied(head.preferences, patience)]
        await send_chunks(exchange.send, exchange.watch(), headers, self._results.stream(answer))

    async def _defer(self, exchange: Exchange, head: Head, accepted: Accepted, patience: Patience) -> None:
        """202: it was accepted, and is found at its Location."""
        headers, body = write_unfinished(accepted.kept, id_=accepted.id, model=accepted.model, started=False)
        location = (b"location", accepted.kept.links.get.encode())
        honoured = applied(head.preferences, patience, deferred=True)
        await exchange.respond(202, [*headers, location, *honoured], body)
