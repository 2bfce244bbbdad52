"""Kept predictions, by id or by idempotency key: looked at, waited for, cancelled, followed, and their outputs fetched.

Any gateway answers for any id: the id says which model and when, its signature says that it was given out and to whom,
and the result in the blob store says how it ended. No result: it still waits or runs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from dumbwaiter.answers import raise_for_failure
from dumbwaiter.gateway.http.heads import read_head
from dumbwaiter.gateway.http.preferences import applied
from dumbwaiter.gateway.http.problems import problem
from dumbwaiter.gateway.http.sending import send_chunks
from dumbwaiter.gateway.predictions.outputs import raw_headers, write_object, write_unfinished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dumbwaiter.asking import Standing
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.heads import Head
    from dumbwaiter.gateway.http.problems import Headers
    from dumbwaiter.gateway.predictions.events import EventStreams
    from dumbwaiter.gateway.predictions.expiry import Expiry
    from dumbwaiter.gateway.predictions.lookup import Known, Lookup
    from dumbwaiter.gateway.predictions.results import Results
    from dumbwaiter.gateway.predictions.telling import Telling
    from dumbwaiter.message import Message

RETRY_RESULT = 1


class KeptPredictions:
    """Handlers of the routes below /v1/predictions/{id}, and of GET /v1/models/{model}/predictions/{key}."""

    def __init__(
        self,
        lookup: Lookup,
        results: Results,
        expiry: Expiry,
        standing_of: Callable[[Known], Awaitable[Standing]],
        streams: EventStreams,
        telling: Telling,
        *,
        max_patience: float,
    ) -> None:
        self._lookup = lookup
        self._results = results
        self._expiry = expiry
        self._standing_of = standing_of
        self._streams = streams
        self._telling = telling
        self._max_patience = max_patience

    async def show(self, exchange: Exchange) -> None:
        """``GET /v1/predictions/{id}``: as it is, or with ``Prefer: wait=n`` when it is finished."""
        await self._show(exchange, await self._lookup.by_id(exchange))

    async def show_by_key(self, exchange: Exchange) -> None:
        """``GET /v1/models/{model}/predictions/{key}``: the same, by the idempotency key."""
        await self._show(exchange, await self._lookup.by_key(exchange))

    async def cancel(self, exchange: Exchange) -> None:
        """``POST /v1/predictions/{id}/cancel``: how it ended before, if it had, and canceled otherwise."""
        known = await self._lookup.by_id(exchange)
        answer = await self._results.find(known.id)
        if answer is None:
            await self._expiry.refuse(known)
            answer = await self._results.cancel(known)
        await self._tell(exchange, known, answer, [])

    async def output(self, exchange: Exchange) -> None:
        """``GET /v1/predictions/{id}/output``: the output as it is; for whoever waits, once it is there.

        With ``?redirect=true`` the blob store is named that has a large one (307), if it has a URL for it.
        """
        known = await self._lookup.by_id(exchange)
        exchange.prediction_id = known.id
        head = read_head(exchange.scope)
        answer = await self._answer(exchange, known, head)
        if answer is None:
            detail = "this prediction has no output yet; ask again, or with Prefer: wait=n"
            raise problem(404, "no-output-yet", detail, retry_after=RETRY_RESULT)
        raise_for_failure(answer)
        nbytes = await self._results.nbytes(answer)
        headers = [*raw_headers(answer, id_=known.id, nbytes=nbytes), *applied(head.preferences, self._patience(head))]
        if _wants_redirect(exchange) and (url := await self._results.url_of(answer)) is not None:
            sent_on = [(b"location", url.encode()), (b"content-length", b"0"), (b"cache-control", b"no-store")]
            await exchange.respond(307, [*sent_on, (b"x-prediction-id", known.id.encode())], b"")
            return
        if answer.data_ref is None or exchange.scope["method"] == "HEAD":
            with self._telling.hold() as hold:
                hold.take(len(answer.body))
                await exchange.respond(200, headers, answer.body)
            return
        await send_chunks(exchange.send, exchange.watch(), headers, self._results.stream(answer))

    async def events(self, exchange: Exchange) -> None:
        """``GET /v1/predictions/{id}/events``: what happens to it, from the event on that was seen last."""
        known = await self._lookup.by_id(exchange)
        if await self._results.find(known.id) is None:
            await self._expiry.refuse(known)
        asked = parse_qs(exchange.scope["query_string"].decode("latin-1")).get("last_event_id", [])
        after = read_head(exchange.scope).last_event_id or (asked[0] if asked else None)
        headers = [(b"x-prediction-id", known.id.encode())]
        await self._streams.send(exchange, known.id, known.model, known.kept, after=after, headers=headers)

    async def _show(self, exchange: Exchange, known: Known) -> None:
        head = read_head(exchange.scope)
        answer = await self._answer(exchange, known, head)
        honoured = applied(head.preferences, self._patience(head))
        if answer is not None:
            await self._tell(exchange, known, answer, honoured)
            return
        await self._expiry.refuse(known)
        started, position = await self._standing_of(known)
        headers, body = write_unfinished(
            known.kept, id_=known.id, model=known.model, started=started, position=position
        )
        await exchange.respond(200, [*headers, *honoured], body)

    async def _tell(self, exchange: Exchange, known: Known, answer: Message, more: Headers) -> None:
        write = partial(write_object, id_=known.id, model=known.model, kept=known.kept)
        await self._telling.respond(exchange, known.id, answer, write, more)

    async def _answer(self, exchange: Exchange, known: Known, head: Head) -> Message | None:
        """The result, within the patience of whoever prefers to wait; None when there is none yet."""
        patience = self._patience(head)
        if patience and await self._expiry.is_over(known.id, known.kept):
            patience = 0.0
        return await self._results.answer(known, patience, exchange)

    def _patience(self, head: Head) -> float:
        return head.preferences.patience(default=0.0, maximum=self._max_patience, least=0.0)


def _wants_redirect(exchange: Exchange) -> bool:
    return parse_qs(exchange.scope["query_string"].decode("latin-1")).get("redirect") == ["true"]
