"""Waiting for the results of kept predictions: whoever waits for the same one in this process shares one look-out.

The result in the store is the only truth. The worker's reply to this gateway's inbox, where there is one, only says
that it is time to look; a request that another gateway has sent is looked for ever less often.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from dumbwaiter.asking import Patience, Polling, cancel, until_found
from dumbwaiter.blobs.results import (
    has_result,
    head_of_result,
    load_result,
    result_body_nbytes,
    result_body_url,
    stream_result_body,
)
from dumbwaiter.errors import BlobNotFoundError, BrokerUnavailableError, DumbwaiterError
from dumbwaiter.gateway.http.bodies import CallerGoneError
from dumbwaiter.gateway.http.crowd import making_room, only_waiting
from dumbwaiter.gateway.http.problems import ModelFailingError, ShuttingDownError
from dumbwaiter.message import PREDICTION_SUCCEEDED
from dumbwaiter.policies.polling import QUICK
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dumbwaiter.asking import Asker, Pending
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.stopping import Stopping
    from dumbwaiter.gateway.predictions.lookup import Known
    from dumbwaiter.message import Message

SEND_WITHIN = 30.0
"""How long handing a request to the broker may take."""
SEND_AT_LEAST = 1.0
"""So long it may take for a caller of less patience too: what was accepted is not refused for a moment."""
READ_WITHIN = 900.0
"""Seconds for which a presigned URL of an output is good."""
LISTEN_FOR = 86400.0
"""Nobody waits for longer than that."""


async def stored_answer(store: BlobStore, id_: str) -> Message:
    """The result of *id_*; a long output stays in the store (*data_ref*) until somebody makes something of it.

    Raises BlobNotFoundError while there is none, and BlobDamagedError for one that nobody can read any more.
    """
    answer = await head_of_result(store, id_)
    if answer.data_ref is None:
        return answer
    if answer.type == PREDICTION_SUCCEEDED:
        await result_body_nbytes(store, answer)
        return answer
    return await load_result(store, id_)


async def find_answer(store: BlobStore, id_: str) -> Message | None:
    """stored_answer(), or None while there is none."""
    try:
        return await stored_answer(store, id_)
    except BlobNotFoundError:
        return None


class Results:
    """The results in *store*, and this gateway's look-outs for them. When *stopping* comes nobody waits any more."""

    def __init__(self, asker: Asker, store: BlobStore, stopping: Stopping) -> None:
        self._stopping = stopping
        self._asker = asker
        self._store = store
        self._over: DumbwaiterError | None = None
        self._lookouts: dict[str, Lookout] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}

    @contextlib.asynccontextmanager
    async def look_out(self, id_: str, model: str) -> AsyncIterator[Lookout]:
        """A share of the look-out for the result of *id_*; the last one to leave ends it."""
        if id_ in self._closing:
            # It may still be listening for the very answer that a new one would listen for.
            await asyncio.wait({self._closing[id_]})
        lookout = self._lookouts.get(id_)
        if lookout is None:
            lookout = self._lookouts[id_] = Lookout(self._asker, self._store, id_, model)
        lookout.sharers += 1
        try:
            yield lookout
        finally:
            lookout.sharers -= 1
            if not lookout.sharers:
                del self._lookouts[id_]
                closing = self._closing[id_] = asyncio.create_task(lookout.close())
                closing.add_done_callback(lambda _: self._closing.pop(id_, None))
                await asyncio.shield(closing)

    def require_open(self) -> None:
        """Raises what close() was given: nothing more is begun then."""
        if self._over is not None:
            raise self._over

    def close(self, error: DumbwaiterError) -> None:
        """Whoever still waits for a result that is not there, or for a broker to confirm, gets *error*."""
        self._over = error
        for lookout in self._lookouts.values():
            lookout.fail(error)

    async def find(self, id_: str) -> Message | None:
        """The result of *id_* as it is now; None while there is none. Raises BlobError."""
        return await find_answer(self._store, id_)

    async def is_there(self, id_: str) -> bool:
        """Whether *id_* has a result. Raises BlobError."""
        return await has_result(self._store, id_)

    async def answer(self, known: Known, patience: float, exchange: Exchange) -> Message | None:
        """The result of *known*, for whoever waits for it *patience* seconds, or looks (0.0). None: there is none by
        then, or the gateway stops.

        Raises CallerGoneError when the caller of *exchange* hangs up, ProblemError (503) when others need its
        connection, and as Lookout.answer() does.
        """
        if not patience or self._stopping.has_come:
            return await self.find(known.id)
        watch = exchange.watch()
        with only_waiting(exchange.scope) as give_way:
            async with self.look_out(known.id, known.model) as lookout:
                answer = await lookout.answer(Patience(patience), self._stopping.future, watch.future, give_way)
        if watch.gone:
            raise CallerGoneError
        if answer is None and give_way.done():
            raise making_room()
        return answer

    async def cancel(self, known: Known) -> Message:
        """Cancel *known*; the answer that stands, which is another one when it had ended before. Raises BlobError."""
        return await cancel(self._store, known.id, model=known.model, tenant=known.tenant)

    async def nbytes(self, answer: Message) -> int:
        """The size of the output of *answer*, wherever it lies. Raises BlobError."""
        return await result_body_nbytes(self._store, answer)

    async def url_of(self, answer: Message) -> str | None:
        """A URL of the blob store's own by which the body of *answer* can be read for a while, where there is one."""
        return await result_body_url(self._store, answer, expires_in=READ_WITHIN)

    def stream(self, answer: Message) -> AsyncIterator[bytes]:
        """The output of *answer*, which lies in the store, piece by piece."""
        return stream_result_body(self._store, answer)


class Lookout:
    """Waits for one result, and may send the request that leads to it."""

    def __init__(self, asker: Asker, store: BlobStore, id_: str, model: str) -> None:
        self.sharers = 0
        self._asker = asker
        self._store = store
        self._id = id_
        self._model = model
        self._told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._looking: asyncio.Task[Message] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._pending: Pending | None = None
        self._failed: asyncio.Future[DumbwaiterError] = asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        """Look no more."""
        await end((self._looking, self._sending, self._listening))
        if self._pending is not None:
            self._pending.forget()

    async def send(self, message: Message, patience: Patience, *, listen: bool, owns_body: bool = True) -> None:
        """Send *message*; return when the broker has confirmed it. With *listen* the worker tells this gateway.

        Those who send the same request at once send it once. Raises as Asker.begin() does; BrokerUnavailableError when
        the *patience* of whoever waits (if any) or SEND_WITHIN is over before, and what fail() is given meanwhile:
        it may have been sent by then.
        """
        within = min(SEND_WITHIN, max(SEND_AT_LEAST, patience.left)) if patience else SEND_WITHIN
        if self._sending is None or _has_failed(self._sending):
            self._sending = asyncio.create_task(self._send(message, listen=listen, owns_body=owns_body))
        elif owns_body:
            self._asker.discard(message)
        sending, failed = self._sending, self._failed
        either: set[asyncio.Future[Any]] = {sending, failed}
        await asyncio.wait(either, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
        elif failed.done():
            raise failed.result()
        else:
            said = (
                f"it has not confirmed the request within {within:.1f} s; with its idempotency key it may be sent again"
            )
            raise BrokerUnavailableError(said)

    async def answer(self, patience: Patience, *others: asyncio.Future[None]) -> Message | None:
        """The result; None when *patience* ends before it comes, or one of *others* is done.

        Raises BlobError, and ShuttingDownError or ModelFailingError when the gateway or the model says so meanwhile.
        """
        if self._looking is None or _has_failed(self._looking):
            self._looking = asyncio.create_task(until_found(self._find, Polling(QUICK), self._wakes))
        looking, failed = self._looking, self._failed
        either: set[asyncio.Future[Any]] = {looking, failed, *others}
        await asyncio.wait(either, timeout=patience.left, return_when=asyncio.FIRST_COMPLETED)
        if looking.done():
            return looking.result()
        return await self._last_look(failed.result()) if failed.done() else None

    def fail(self, error: DumbwaiterError) -> None:
        """Whoever waits now gets *error*, unless the result is there. Whoever comes later may have better luck."""
        failed, self._failed = self._failed, asyncio.get_running_loop().create_future()
        failed.set_result(error)

    async def _send(self, message: Message, *, listen: bool, owns_body: bool) -> None:
        if not listen:
            await self._asker.send(self._model, message, owns_body=owns_body)
            return
        self._pending = await self._asker.begin(
            self._model, message, timeout=SEND_WITHIN, confirm=True, owns_body=owns_body
        )
        self._listening = asyncio.create_task(self._listen(self._pending))

    async def _listen(self, pending: Pending) -> None:
        try:
            reply = await pending.head(LISTEN_FOR)
        except (ShuttingDownError, ModelFailingError) as error:
            self.fail(error)
        except DumbwaiterError:
            return  # the inbox is lost, not the result
        else:
            self._asker.discard(reply)
            self._wake()

    def _wake(self) -> None:
        """It is time to look."""
        if not self._told.done():
            self._told.set_result(None)

    async def _last_look(self, error: DumbwaiterError) -> Message:
        answer = await self._find()
        if answer is None:
            raise error
        return answer

    async def _find(self) -> Message | None:
        return await find_answer(self._store, self._id)

    def _wakes(self) -> tuple[asyncio.Future[None]]:
        told = self._told
        if told.done():  # which ends the next pause, and no other
            self._told = asyncio.get_running_loop().create_future()
        return (told,)


def _has_failed(task: asyncio.Task[None] | asyncio.Task[Message]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
