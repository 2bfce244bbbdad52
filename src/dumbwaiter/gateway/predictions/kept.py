"""Kept predictions, by id or by idempotency key: looked at, waited for, cancelled, followed, and their outputs fetched.

Any gateway answers for any id: the id says which model and when, its signature says that it was given out and to whom,
and the result in the blob store says how it ended. No result: it still waits or runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec

from dumbwaiter.answers import raise_for_failure
from dumbwaiter.asking import Patience, cancel
from dumbwaiter.blobs.acceptances import find_acceptance
from dumbwaiter.blobs.events import last_start
from dumbwaiter.blobs.results import result_body_nbytes, stream_result_body
from dumbwaiter.errors import BlobNotFoundError, BrokerError
from dumbwaiter.gateway.http.bodies import CallerGoneError
from dumbwaiter.gateway.http.heads import check_key, read_head
from dumbwaiter.gateway.http.preferences import applied
from dumbwaiter.gateway.http.problems import ProblemError, problem
from dumbwaiter.gateway.http.sending import json_headers, send_chunks
from dumbwaiter.gateway.predictions.events import has_started
from dumbwaiter.gateway.predictions.outputs import Kept, raw_headers, write_object, write_unfinished
from dumbwaiter.message import Message

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.access.callers import Access
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.heads import Head
    from dumbwaiter.gateway.http.stopping import Stopping
    from dumbwaiter.gateway.predictions.accepting import Acceptor
    from dumbwaiter.gateway.predictions.events import EventStreams
    from dumbwaiter.gateway.predictions.results import Results
    from dumbwaiter.signing import SigningKey

RETRY_RESULT = 1


class Known(msgspec.Struct, frozen=True):
    """A prediction that was given out to whoever asks: its *id*, its *model*, and what is shown of it."""

    id: str
    model: str
    tenant: str | None
    kept: Kept


class KeptPredictions:
    """Handlers of the routes below /v1/predictions/{id} and /v1/models/{model}/predictions/{key}."""

    def __init__(
        self,
        broker: Broker,
        store: BlobStore,
        *,
        access: Access,
        signing: SigningKey,
        acceptor: Acceptor,
        results: Results,
        streams: EventStreams,
        stopping: Stopping,
        options: GatewaySettings,
    ) -> None:
        self._broker = broker
        self._store = store
        self._access = access
        self._signing = signing
        self._acceptor = acceptor
        self._results = results
        self._streams = streams
        self._stopping = stopping
        self._options = options

    async def show(self, exchange: Exchange) -> None:
        """``GET /v1/predictions/{id}``: as it is, or with ``Prefer: wait=n`` when it is finished."""
        await self._show(exchange, await self._by_id(exchange))

    async def show_by_key(self, exchange: Exchange) -> None:
        """``GET /v1/models/{model}/predictions/{key}``: the same, by the idempotency key."""
        await exchange.read_nothing()
        caller = await self._access.admit(exchange.scope)
        model = exchange.parameters["model"]
        key = check_key(exchange.parameters["key"], "the key in the path")
        try:
            acceptance = await find_acceptance(self._store, caller.tenant, model, key)
        except BlobNotFoundError:
            raise problem(404, "unknown-prediction", "no prediction of this model has this key") from None
        await self._show(exchange, Known(acceptance.id, model, caller.tenant, self._acceptor.kept(acceptance.id)))

    async def cancel(self, exchange: Exchange) -> None:
        """``POST /v1/predictions/{id}/cancel``: how it ended before, if it had, and canceled otherwise."""
        known = await self._by_id(exchange)
        answer = await self._results.find(known.id)
        if answer is None:
            await self._refuse_expired(known)
            answer = await cancel(self._store, known.id, model=known.model, tenant=known.tenant)
        await exchange.respond(200, *write_object(answer, id_=known.id, model=known.model, kept=known.kept))

    async def output(self, exchange: Exchange) -> None:
        """``GET /v1/predictions/{id}/output``: the output as it is; for whoever waits, once it is there."""
        known = await self._by_id(exchange)
        exchange.prediction_id = known.id
        head = read_head(exchange.scope)
        answer = await self._answer(exchange, known, head)
        if answer is None:
            detail = "this prediction has no output yet; ask again, or with Prefer: wait=n"
            raise problem(404, "no-output-yet", detail, retry_after=RETRY_RESULT)
        raise_for_failure(answer)
        nbytes = await result_body_nbytes(self._store, answer)
        headers = [*raw_headers(answer, id_=known.id, nbytes=nbytes), *applied(head.preferences, self._patience(head))]
        if answer.data_ref is None or exchange.scope["method"] == "HEAD":
            await exchange.respond(200, headers, answer.body)
            return
        await send_chunks(exchange.send, exchange.watch(), headers, stream_result_body(self._store, answer))

    async def events(self, exchange: Exchange) -> None:
        """``GET /v1/predictions/{id}/events``: what happens to it, from the event on that was seen last."""
        known = await self._by_id(exchange)
        if await self._results.find(known.id) is None:
            await self._refuse_expired(known)
        asked = parse_qs(exchange.scope["query_string"].decode("latin-1")).get("last_event_id", [])
        after = read_head(exchange.scope).last_event_id or (asked[0] if asked else None)
        headers = [(b"x-prediction-id", known.id.encode())]
        await self._streams.send(exchange, known.id, known.model, known.kept, after=after, headers=headers)

    async def secret(self, exchange: Exchange) -> None:
        """``GET /v1/webhooks/default/secret``: what verifies the webhooks to this tenant."""
        await exchange.read_nothing()
        caller = await self._access.admit(exchange.scope)
        body = msgspec.json.encode({"key": self._signing.webhook_secret(caller.tenant)}) + b"\n"
        await exchange.respond(200, [*json_headers(body), (b"cache-control", b"no-store")], body)

    async def _by_id(self, exchange: Exchange) -> Known:
        """The prediction that the path names. Raises ProblemError (404) for one that was never given to this caller."""
        await exchange.read_nothing()
        caller = await self._access.admit(exchange.scope)
        id_ = exchange.parameters["id"]
        found = self._signing.read_id(id_, caller.tenant)
        if found is None:
            raise _unknown(id_)
        return Known(id_, found.model, caller.tenant, self._acceptor.kept(id_))

    async def _show(self, exchange: Exchange, known: Known) -> None:
        head = read_head(exchange.scope)
        answer = await self._answer(exchange, known, head)
        honoured = applied(head.preferences, self._patience(head))
        if answer is not None:
            headers, body = write_object(answer, id_=known.id, model=known.model, kept=known.kept)
            await exchange.respond(200, [*headers, *honoured], body)
            return
        await self._refuse_expired(known)
        started = await has_started(self._store, known.id)
        position = None if started else await self._position(known)
        headers, body = write_unfinished(
            known.kept, id_=known.id, model=known.model, started=started, position=position
        )
        await exchange.respond(200, [*headers, *honoured], body)

    async def _answer(self, exchange: Exchange, known: Known, head: Head) -> Message | None:
        """The result, within the patience of whoever prefers to wait; None when there is none yet."""
        wait = self._patience(head)
        if not wait or self._stopping.has_come or await self._is_expired(known):
            return await self._results.find(known.id)
        watch = exchange.watch()
        async with self._results.look_out(known.id, known.model) as lookout:
            answer = await lookout.answer(Patience(wait), self._stopping.future, watch.future)
        if watch.gone:
            raise CallerGoneError
        return answer

    def _patience(self, head: Head) -> float:
        return head.preferences.patience(default=0.0, maximum=self._options.max_patience, least=0.0)

    async def _position(self, known: Known) -> int | None:
        if not self._broker.capabilities.queue_position:
            return None
        try:
            return await self._broker.position(known.model, known.id)
        except BrokerError:
            # Whether there is a result is known all the same; its place in the queue is left out.
            return None

    async def _is_expired(self, known: Known) -> bool:
        """Whether its result may have been swept away. What was begun late enough cannot have had one: it runs still.

        What has not begun by then never will: its deadline is over.
        """
        kept_for = self._options.results_kept_for
        oldest = time.time() - kept_for
        if not kept_for or known.kept.created_at >= oldest:
            return False
        began = await last_start(self._store, known.id)
        return began is None or began < oldest

    async def _refuse_expired(self, known: Known) -> None:
        if await self._is_expired(known):
            detail = (
                f"results are kept for {self._options.results_kept_for:g} s, and this one is older; ask the model anew"
            )
            raise problem(410, "prediction-expired", detail)


def _unknown(id_: str) -> ProblemError:
    shown: Mapping[str, str] = {"id": id_[:200]}
    return problem(404, "unknown-prediction", "no prediction of yours has this id", members=shown)
