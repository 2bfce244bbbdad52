"""Requests that are kept: accepted first, durably, and answered from the stored result, in time or later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dumbwaiter.answers import raise_for_failure
from dumbwaiter.errors import DumbwaiterError, PredictionTimeoutError, QueueNotFoundError
from dumbwaiter.gateway.http.bodies import CallerGoneError
from dumbwaiter.gateway.http.preferences import applied
from dumbwaiter.gateway.http.problems import ModelFailingError, ShuttingDownError
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
    from dumbwaiter.message import Message


class Keeping:
    """Accepts requests, sends them unless they are answered already, and tells their callers as they prefer."""

    def __init__(self, *, catalogue: Catalogue, acceptor: Acceptor, results: Results, streams: EventStreams) -> None:
        self._catalogue = catalogue
        self._acceptor = acceptor
        self._results = results
        self._streams = streams

    async def keep(
        self, exchange: Exchange, head: Head, given: Input, request: Message, patience: Patience, place: Place
    ) -> None:
        """Accept *request*, which came as *given*, and answer: with its output, with its events, or with 202.

        Raises as Acceptor.accept(), Catalogue.admit() and Lookout.send() do; PredictionTimeoutError when *patience* is
        over, for a caller who wants nothing but the output.
        """
        model = exchange.parameters["model"]
        accepted = await self._acceptor.accept(request, model=model, controls=given.controls, digest=given.digest)
        exchange.prediction_id = accepted.id
        answer: Message | None = None
        async with self._results.look_out(accepted.id, model) as lookout:
            if accepted.is_again and await self._results.is_there(accepted.id):
                await self._acceptor.drop_brought(accepted)
            else:
                await self._send(lookout, accepted, head, patience)
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

    async def _send(self, lookout: Lookout, accepted: Accepted, head: Head, patience: Patience) -> None:
        must_be_answered = None if head.preferences.respond_async or not patience else patience
        deadline = accepted.message.deadline
        if accepted.is_again:
            # The work of the first one is ahead of itself: it cannot come too late for it.
            must_be_answered = deadline = None
        try:
            self._catalogue.admit(accepted.model, must_be_answered, deadline=deadline)
        except DumbwaiterError:
            # Whoever comes again with its key will find the body that was accepted with it.
            if head.key is None:
                await self._acceptor.drop_brought(accepted)
            raise
        try:
            await lookout.send(accepted.message, patience, listen=bool(patience))
        except QueueNotFoundError:
            self._catalogue.forget(accepted.model)
            await self._catalogue.require(accepted.model)
            raise

    async def _await(self, exchange: Exchange, head: Head, lookout: Lookout, patience: Patience) -> Message | None:
        if not patience:
            return None
        watch = exchange.watch()
        try:
            answer = await lookout.answer(patience, watch.future)
        except (ShuttingDownError, ModelFailingError):
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
        await self._streams.send(
            exchange, accepted.id, accepted.model, accepted.kept, after=head.last_event_id, headers=headers
        )

    async def _tell(
        self, exchange: Exchange, head: Head, accepted: Accepted, answer: Message, patience: Patience
    ) -> None:
        """The answer from the store: the same bytes for all who ask with this key, by whichever gateway."""
        answer = raise_for_failure(answer)
        if answer.data_ref is None or not goes_raw(answer, head.accept):
            headers, body = write_answer(
                answer, id_=accepted.id, model=accepted.model, accept=head.accept, kept=accepted.kept
            )
            await exchange.respond(200, [*headers, *applied(head.preferences, patience)], body)
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
