"""Asking a model and waiting for its answer, for a caller who may hang up. Nothing is stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dumbwaiter.blobs.claimcheck import claim_nbytes, stream_out
from dumbwaiter.blobs.store import CHUNK_NBYTES
from dumbwaiter.errors import BadInputError, BlobError, DumbwaiterError, PredictionTimeoutError, QueueNotFoundError
from dumbwaiter.gateway.http.bodies import CallerGoneError
from dumbwaiter.gateway.http.sending import CallerWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dumbwaiter.asking import Asker, Patience, Pending
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.gateway.access.quotas import Place
    from dumbwaiter.gateway.catalogue import Catalogue
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.message import Message


class Waiting:
    """Sends requests to their models' queues. Bodies that lie in the store are dropped when they are not sent."""

    def __init__(self, asker: Asker, store: BlobStore, catalogue: Catalogue) -> None:
        self._asker = asker
        self._store = store
        self._catalogue = catalogue

    async def begin(self, model: str, message: Message, patience: Patience, exchange: Exchange, place: Place) -> Asked:
        """Send *message* and return when the head of its answer is there. What was sent keeps its *place* until it is
        answered or *patience* is over, though its caller may hang up: it is still run.

        Raises CallerGoneError, NoAnswerError, and what Catalogue.admit() and Asker.ask() raise.
        """
        try:
            self._catalogue.admit(model, patience, deadline=message.deadline)
        except DumbwaiterError:
            self._asker.discard(message)
            raise
        pending = await self._asker.begin(model, message, timeout=patience)
        # By it the request is found: in logs, and when it has failed among the dead letters.
        exchange.prediction_id = message.id
        if (leave := place.stay()) is not None:
            self._asker.when_over(pending, patience, leave)
        watch = exchange.watch(lambda: pending.fail(CallerGoneError()))
        try:
            answer = await pending.head(patience)
        except QueueNotFoundError:
            exchange.prediction_id = None
            await self._catalogue.missed(model)
            raise
        except PredictionTimeoutError as error:
            raise self._catalogue.explained(model, error) from None
        return Asked(self, answer, pending, watch)

    async def nbytes(self, id_: str, data_ref: str, patience: Patience) -> int:
        """The size of the body *data_ref* of the answer to *id_*.

        Raises BlobError, and PredictionTimeoutError after *patience*.
        """
        try:
            async with asyncio.timeout(patience.left):
                return await claim_nbytes(self._store, data_ref)
        except TimeoutError:
            raise PredictionTimeoutError(f"the answer to {id_!r} could not be fetched within {patience:g} s") from None
        except BadInputError as error:
            raise BlobError(f"the answer to {id_!r} has no body to fetch: {error}") from None

    def chunks(self, answer: Message) -> AsyncIterator[bytes]:
        """The claimed body of *answer*, piece by piece."""
        return stream_out(self._store, answer, chunk_nbytes=CHUNK_NBYTES)

    def drop(self, answer: Message) -> None:
        """The claimed body of *answer* was sent, or nobody wants it."""
        self._asker.discard(answer)


class Asked:
    """A request whose *answer* has come; its body may lie in the store still."""

    __slots__ = ("_pending", "_waiting", "answer", "watch")

    def __init__(self, waiting: Waiting, answer: Message, pending: Pending, watch: CallerWatch) -> None:
        self._waiting = waiting
        self._pending = pending
        self.answer = answer
        self.watch = watch

    async def whole(self, patience: Patience) -> Message:
        """The answer with its claimed body. Raises BlobError, PredictionTimeoutError."""
        return await self._pending.body(self.answer, patience)
