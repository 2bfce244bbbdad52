"""Straight over the broker: requests and answers as messages, kept results in the blob store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from dumbwaiter.answers import failure_of
from dumbwaiter.asking import (
    Asker,
    Patience,
    Pending,
    Polling,
    await_result,
    cancel,
    follow_to_end,
    standing_of,
    while_away,
)
from dumbwaiter.blobs import BlobStore, events, open_store
from dumbwaiter.blobs.results import has_result, load_result
from dumbwaiter.brokers import open_broker, shown
from dumbwaiter.client.door import Cancellation, Door, Event, PredictionStatus, Submitted
from dumbwaiter.errors import BlobNotFoundError, BrokerClosedError, BrokerError, ConfigError, QueueNotFoundError
from dumbwaiter.message import Message, is_model_name
from dumbwaiter.policies.polling import WATCH
from dumbwaiter.prediction import CANCELED, Status, status_of

if TYPE_CHECKING:
    from types import TracebackType

    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.client.uploading import Source, Upload


class BrokerDoor(Door):
    """*broker* is a URL, or an open Broker, which stays the caller's to close; so is *blobs* of the store."""

    counts_patience: ClassVar[bool] = False
    takes_keys: ClassVar[bool] = False

    def __init__(self, broker: str | Broker, blobs: str | BlobStore | None, *, claim_threshold: int) -> None:
        self._given = broker
        self._store = open_store(blobs) if isinstance(blobs, str) else blobs
        self._claim_threshold = claim_threshold
        self._is_checked = False
        self._broker: Broker | None = None
        self._asker: Asker | None = None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        broker = self._given
        if isinstance(broker, str):
            broker = await self._stack.enter_async_context(open_broker(broker))
        asker = Asker(broker, self._store, claim_threshold=self._claim_threshold)
        self._asker = await self._stack.enter_async_context(asker)
        self._broker = broker
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asker = self._broker = None
        await self._stack.aclose()

    async def ask(self, model: str, message: Message, *, timeout: float) -> Message:
        patience = Patience(timeout)
        asker = self._open_asker()
        with self._naming_broker():
            async with asker.claiming(message, durable=False, timeout=patience) as request:
                return await while_away(lambda: asker.ask(model, request, timeout=patience), patience, id_=message.id)

    async def submit(self, model: str, message: Message, *, keep: bool, timeout: float | None = None) -> Submitted:
        asker = self._open_asker()
        if keep:
            await self._check_store()
        with self._naming_broker():
            async with asker.claiming(message, durable=keep) as request:

                async def send() -> Pending | None:
                    if not keep:
                        return await asker.begin(model, request, confirm=True)
                    await asker.send(model, request)
                    return None

                pending = await (send() if timeout is None else while_away(send, timeout, id_=message.id))
        return Submitted(message.id, pending)

    async def load(self, id_: str) -> Message:
        return await load_result(self._open_store(), id_)

    async def await_result(self, id_: str, timeout: float | None) -> Message:
        return await await_result(self._open_store(), id_, timeout)

    async def status(self, id_: str, model: str | None) -> PredictionStatus:
        if self._store is not None:
            with contextlib.suppress(BlobNotFoundError):
                return PredictionStatus(status=status_of(failure_of(await load_result(self._store, id_))))
        standing = await standing_of(self._open_broker(), self._store, id_, model)
        status: Status = "processing" if standing.started else "starting"
        return PredictionStatus(status=status, queue_position=standing.position)

    async def cancel(self, id_: str) -> Cancellation:
        store = self._open_store()
        is_known = await has_result(store, id_) or await self._knows(store, id_)
        if status_of(failure_of(await cancel(store, id_))) != CANCELED:
            return Cancellation.ENDED
        return Cancellation.CANCELED if is_known else Cancellation.UNKNOWN

    async def follow(self, id_: str, timeout: float) -> AsyncGenerator[Event]:  # noqa: ARG002 - nothing is away for long here
        store = self._open_store()

        async def find() -> Literal[True] | None:
            return True if await has_result(store, id_) else None

        async with contextlib.aclosing(follow_to_end(store, id_, find, Polling(WATCH))) as told:
            async for one in told:
                self._open_asker()  # it may have been closed meanwhile
                if isinstance(one, events.Event):
                    yield Event(one.event, one.content_type, one.data, one.id)

    async def upload(self, source: Source) -> Upload:  # noqa: ARG002 - there is nowhere to put it
        raise ConfigError(
            "uploads go through a gateway; give this client a gateway's URL. Over a broker a large input is "
            "sent like any other: it lies in the blob store while its message waits"
        )

    async def _check_store(self) -> None:
        """Whoever is told of a result that will be kept must not find that it never could be: looked at once."""
        if not self._is_checked:
            await self._open_store().check()
            self._is_checked = True

    async def _knows(self, store: BlobStore, id_: str) -> bool:
        """Whether the request *id_* has begun to run, or waits in a queue whose broker can tell."""
        broker = self._open_broker()
        standing = await standing_of(broker, store, id_, None)
        if standing.started or not broker.capabilities.queue_position:
            return standing.started
        # Whether it is known is only a hint; a broker that is away does not keep anybody from cancelling.
        with contextlib.suppress(BrokerError):
            for queue in await broker.queues():
                if is_model_name(queue) and await broker.position(queue, id_) is not None:
                    return True
        return False

    @contextlib.contextmanager
    def _naming_broker(self) -> Iterator[None]:
        """An unknown queue is told with the broker that was asked, if it was named here."""
        try:
            yield
        except QueueNotFoundError as error:
            if isinstance(self._given, str):
                raise QueueNotFoundError(error.queue, where=shown(self._given)) from None
            raise

    def _open_asker(self) -> Asker:
        if self._asker is None:
            raise BrokerClosedError("this client is not open; use it inside `async with`")
        return self._asker

    def _open_broker(self) -> Broker:
        if self._broker is None:
            raise BrokerClosedError("this client is not open; use it inside `async with`")
        return self._broker

    def _open_store(self) -> BlobStore:
        if self._store is None:
            raise ConfigError("kept results lie in the blob store; give this client one: blobs='file:/path' or its URL")
        return self._store
