"""A request on its way, and waiting for its answer."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from dumbwaiter.asking.outbox import fail
from dumbwaiter.asking.patience import Patience
from dumbwaiter.errors import BrokerClosedError, PredictionTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dumbwaiter.asking.alarms import Alarms
    from dumbwaiter.message import Message


class Pending:
    """A request on its way. Forgotten with the object: an answer that comes later is ignored.

    *forget* is told when nobody waits for *future* any more; *collect* begins to fetch an answer's body.
    *alarms* end its waiting.
    """

    __slots__ = ("_alarms", "_collect", "_collecting", "_forget", "_future", "id", "queue")

    def __init__(
        self,
        id_: str,
        queue: str,
        future: asyncio.Future[Message],
        *,
        forget: Callable[[str, asyncio.Future[Message]], None],
        collect: Callable[[Message], asyncio.Task[Message]],
        alarms: Alarms,
    ) -> None:
        self.id = id_
        self.queue = queue
        self._future = future
        self._forget = forget
        self._collect = collect
        self._alarms = alarms
        self._collecting: asyncio.Task[Message] | None = None

    def __del__(self) -> None:
        self.forget()

    def done(self) -> bool:
        """Whether the answer, or the error instead of it, is here."""
        return self._future.done()

    def fail(self, error: Exception) -> None:
        """Whoever waits gets *error*, unless the answer is here already."""
        fail(self._future, error)

    def forget(self) -> None:
        """Stop waiting; an answer that comes later is ignored."""
        self._forget(self.id, self._future)

    async def answer(self, timeout: float) -> Message:
        """The answer with its body, within *timeout* seconds; may be called once. Cancelling it, or the end of time,
        forgets the request. Raises PredictionTimeoutError, BlobError, and what the send or the inbox raised.
        """
        patience = Patience(timeout)
        answer = await self.head(patience)
        return answer if answer.data_ref is None else await self._whole(answer, patience)

    async def head(self, timeout: float) -> Message:
        """As answer(), but a body that came by claim check is still to be fetched, by body(), or to be discarded."""
        patience = Patience(timeout)
        alarm = self._alarms.set(patience.ends_at, partial(self._expire, patience))
        try:
            return await self._future
        finally:
            self._alarms.silence(alarm)
            self.forget()

    async def body(self, answer: Message, timeout: float) -> Message:
        """What head() gave, with its body, within *timeout* seconds. Raises PredictionTimeoutError, BlobError."""
        return answer if answer.data_ref is None else await self._whole(answer, Patience(timeout))

    async def wait(self, timeout: float | None) -> Message:
        """The answer with its body, within *timeout* seconds (None: however long it takes); may be called again and
        again.
        """
        patience = None if timeout is None else Patience(timeout)
        await self._until_done(self._future, patience)
        answer = self._future.result()
        return answer if answer.data_ref is None else await self._whole(answer, patience)

    async def _whole(self, answer: Message, patience: Patience | None) -> Message:
        # A task of its own: the blob can be fetched only once, however many wait here, and is dropped then, even when
        # all of them have given up meanwhile.
        if self._collecting is None or _has_failed(self._collecting):
            self._collecting = self._collect(answer)
            self._collecting.add_done_callback(_see)
        collecting = self._collecting
        await self._until_done(collecting, patience)
        if collecting.cancelled():
            raise BrokerClosedError("closed while fetching the body of the answer")
        return collecting.result()

    async def _until_done(self, awaited: asyncio.Future[Message], patience: Patience | None) -> None:
        if not awaited.done():
            await asyncio.wait({awaited}, timeout=None if patience is None else patience.left)
        if not awaited.done():
            raise self._timeout(patience)

    def _expire(self, patience: Patience) -> None:
        self.fail(self._timeout(patience))

    def _timeout(self, patience: float | None) -> PredictionTimeoutError:
        within = f"within {patience or 0.0:g} s"
        return PredictionTimeoutError(
            f"no answer to {self.id!r} from {self.queue!r} {within}; it may still be waiting or running"
        )


def _has_failed(task: asyncio.Task[Message]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _see(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
