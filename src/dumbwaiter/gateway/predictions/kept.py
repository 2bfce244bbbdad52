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

from dumbwaiter.answers import failed, raise_for_failure
from dumbwaiter.asking import Patience
from dumbwaiter.blobs.acceptances import find_acceptance
from dumbwaiter.blobs.results import result_body_nbytes, save_result, stream_result_body
from dumbwaiter.errors import BlobNotFoundError, BrokerError
from dumbwaiter.gateway.http.bodies import CallerGoneError
from dumbwaiter.gateway.http.heads import check_key, read_head
from dumbwaiter.gateway.http.problems import ProblemError, problem
from dumbwaiter.gateway.http.sending import closing, send_chunks
from dumbwaiter.gateway.predictions.events import has_started
from dumbwaiter.gateway.predictions.outputs import Kept, raw_headers, write_object
from dumbwaiter.message import Failure, Message
from dumbwaiter.prediction import CANCELED, encode, unfinished

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.access.callers import Access
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.heads import Head
    from dumbwaiter.gateway.http.problems import Headers
    from dumbwaiter.gateway.http.stopping import Stopping
    from dumbwaiter.gateway.predictions.accepting import Acceptor
    from dumbwaiter.gateway.predictions.events import EventStreams
    from dumbwaiter.gateway.predictions.results import Results
    from dumbwaiter.signing import SigningKey

RETRY_RESULT = 1
_MANY = 1 << 62


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
            self._refuse_expired(known)
            request = Message(id=known.id, subject=known.model, tenant=known.tenant)
            failure = Failure(code=CANCELED, message="the request was cancelled by its caller")
            # The first one to write decides: a worker that was faster, or we.
            await save_result(self._store, known.id, failed(request, failure), threshold=_MANY)
            answer = await self._results.find(known.id)
        if answer is None:
            raise _unknown(known.id)
        await exchange.respond(200, *write_object(answer, id_=known.id, model=known.model, kept=known.kept))

    async def output(self, exchange: Exchange) -> None:
        """``GET /v1/predictions/{id}/output``: the output as it is; for whoever waits, once it is there."""
        known = await self._by_id(exchange)
        exchange.prediction_id = known.id
        answer = await self._answer(exchange, known, read_head(exchange.scope))
        if answer is None:
            detail = "this prediction has no output yet; ask again, or with Prefer: wait=n"
            raise problem(404, "no-output-yet", detail, retry_after=RETRY_RESULT)
        raise_for_failure(answer)
        nbytes = await result_body_nbytes(self._store, answer)
        headers = raw_headers(answer, id_=known.id, nbytes=nbytes)
        if answer.data_ref is None or exchange.scope["method"] == "HEAD":
            await exchange.respond(200, headers, answer.body)
            return
        async with closing(stream_result_body(self._store, answer)) as chunks:
            await send_chunks(exchange.send, exchange.watch(), headers, chunks)

    async def events(self, exchange: Exchange) -> None:
        """``GET /v1/predictions/{id}/events``: what happens to it, from the event on that was seen last."""
        known = await self._by_id(exchange)
        if await self._results.find(known.id) is None:
            self._refuse_expired(known)
        asked = parse_qs(exchange.scope["query_string"].decode("latin-1")).get("last_event_id", [])
        after = read_head(exchange.scope).last_event_id or (asked[0] if asked else None)
        headers = [(b"x-prediction-id", known.id.encode())]
        await self._streams.send(exchange, known.id, known.model, known.kept, after=after, headers=headers)

    async def secret(self, exchange: Exchange) -> None:
        """``GET /v1/webhooks/default/secret``: what verifies the webhooks to this tenant."""
        await exchange.read_nothing()
        caller = await self._access.admit(exchange.scope)
        body = msgspec.json.encode({"key": self._signing.webhook_secret(caller.tenant)}) + b"\n"
        await exchange.respond(200, [*_json(body), (b"cache-control", b"no-store")], body)

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
        applied = _applied(head)
        if answer is not None:
            headers, body = write_object(answer, id_=known.id, model=known.model, kept=known.kept)
            await exchange.respond(200, [*headers, *applied], body)
            return
        self._refuse_expired(known)
        started = await has_started(self._store, known.id)
        body = encode(
            unfinished(
                known.id,
                known.model,
                created_at=known.kept.created_at,
                started=started,
                links=known.kept.links,
                position=None if started else await self._position(known),
            )
        )
        headers = [*_json(body), (b"x-prediction-id", known.id.encode()), *applied]
        await exchange.respond(200, headers, body)

    async def _answer(self, exchange: Exchange, known: Known, head: Head) -> Message | None:
        """The result, within the patience of whoever prefers to wait; None when there is none yet."""
        wait = head.preferences.patience(default=0.0, maximum=self._options.max_patience, least=0.0)
        if not wait or self._stopping.has_come or self._is_expired(known):
            return await self._results.find(known.id)
        watch = exchange.watch()
        async with self._results.look_out(known.id, known.model) as lookout:
            answer = await lookout.answer(Patience(wait), self._stopping.future, watch.task)
        if watch.gone:
            raise CallerGoneError
        return answer

    async def _position(self, known: Known) -> int | None:
        if not self._broker.capabilities.queue_position:
            return None
        try:
            return await self._broker.position(known.model, known.id)
        except BrokerError:
            # Whether there is a result is known all the same; its place in the queue is left out.
            return None

    def _is_expired(self, known: Known) -> bool:
        kept_for = self._options.results_kept_for
        return bool(kept_for) and time.time() > known.kept.created_at + kept_for

    def _refuse_expired(self, known: Known) -> None:
        if self._is_expired(known):
            detail = (
                f"results are kept for {self._options.results_kept_for:g} s, and this one is older; ask the model anew"
            )
            raise problem(410, "prediction-expired", detail)


def _applied(head: Head) -> Headers:
    wait = head.preferences.wait
    return [] if wait is None else [(b"preference-applied", b"wait=%d" % int(wait))]


def _json(body: bytes) -> Headers:
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]


def _unknown(id_: str) -> ProblemError:
    shown: Mapping[str, str] = {"id": id_[:200]}
    return problem(404, "unknown-prediction", "no prediction of yours has this id", members=shown)
