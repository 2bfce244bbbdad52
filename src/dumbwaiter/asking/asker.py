"""The asker: one inbox, and one task that reads it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from dumbwaiter.asking.alarms import Alarms
from dumbwaiter.asking.claims import Claims
from dumbwaiter.asking.endings import Endings
from dumbwaiter.asking.outbox import Entry, Outbox, fail
from dumbwaiter.asking.patience import Patience
from dumbwaiter.asking.pending import Pending
from dumbwaiter.blobs.claimcheck import check_in, check_out, claim_threshold_for, drop
from dumbwaiter.blobs.results import is_result_body, with_result_body
from dumbwaiter.errors import (
    BadInputError,
    BlobError,
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    PredictionTimeoutError,
)
from dumbwaiter.policies.backing_off import back_off
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
    from types import TracebackType

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker, Inbox
    from dumbwaiter.message import Message

CLAIM_THRESHOLD = 256 * 1024
"""Bodies larger than this many bytes travel by claim check unless told otherwise."""
READ_WAIT = 30.0
FIRST_BACK_OFF, LAST_BACK_OFF = 0.05, 2.0
LAST_DROPS = 2.0
"""At most so many seconds close() waits for the blobs that are being dropped."""

T = TypeVar("T")

_log = logging.getLogger("dumbwaiter.asking")


class Asker:
    """Asks models over *broker*. Use it in one event loop, with ``async with``; the inbox opens with the first request.

    Bodies above *claim_threshold* bytes, and those that the broker does not take, travel through *store*; without a
    store all travel inline.

    A body that a message to be sent claims, because it was large or its sender has put it into the store, is dropped
    when that message is certain never to be sent. Whoever sends one whose body others need too says *owns_body* False.

    When the broker loses the inbox, whoever waits gets BrokerUnavailableError and the next request opens another.
    """

    def __init__(
        self, broker: Broker, store: BlobStore | None = None, *, claim_threshold: int = CLAIM_THRESHOLD
    ) -> None:
        self.late = 0
        """Answers that came when nobody was waiting for them any more."""
        self._broker = broker
        self._store = store
        self._claim_threshold = claim_threshold_for(broker.capabilities.max_message_nbytes, claim_threshold)
        self._claims = Claims(self._drop_soon)
        self._alarms = Alarms()
        self._endings = Endings(self._alarms)
        self._outbox = Outbox(broker, self._claims, on_unsent=self._see_end)
        self._waiters: dict[str, tuple[str, asyncio.Future[Message]]] = {}
        self._inbox: Inbox | None = None
        self._address: str | None = None
        self._reader: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._background: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Forget the inbox; whoever still waits gets BrokerClosedError, and what was not sent yet never is.

        Closing twice is no error.
        """
        self._closed = True
        self.fail_waiting(BrokerClosedError("closed while waiting for the answer"))
        await self._outbox.close()
        await end([self._reader])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_DROPS):
                while self._background:
                    await asyncio.wait(self._background)
        await end(self._background)
        await self._close_inbox()
        self._alarms.close()

    async def ask(self, queue: str, message: Message, *, timeout: float) -> Message:
        """Send *message* and return its answer, an output or a failure, within *timeout* seconds.

        Raises PredictionTimeoutError, QueueNotFoundError, MessageTooLargeError, BrokerUnavailableError, BlobError.
        A message that was not sent yet when this call is cancelled is never sent.
        """
        patience = Patience(timeout)
        pending = await self.begin(queue, message, timeout=patience)
        return await pending.answer(patience)

    async def begin(
        self, queue: str, message: Message, *, timeout: float = 60.0, confirm: bool = False, owns_body: bool = True
    ) -> Pending:
        """Put *message* on its way and return what its answer can be awaited on.

        With *confirm* it returns only after the broker has confirmed the message. Opening the inbox and checking in
        a large body take at most *timeout* seconds. Raises as ask() does.
        """
        self._require_open()
        given = message
        if owns_body:
            self._claims.hold(given)
        try:
            if self._address is None or self._is_large(given):
                message = await self._in_time(self._ready_to_go(given), Patience(timeout), given.id)
            pending, entry = self._addressed(
                queue, message, confirm=confirm, owns_body=owns_body or message is not given
            )
            self._outbox.put(queue, entry)
            if confirm:
                try:
                    await entry.future
                except BaseException:
                    pending.forget()  # the error may keep this frame alive while the caller tries the same id again
                    raise
            return pending
        finally:
            if owns_body:
                self._claims.let_go(given)
            self._take_back(message, given)

    def when_over(self, pending: Pending, patience: Patience, over: Callable[[], object]) -> None:
        """Call *over* once: when what *pending* stands for is answered, was not sent, or can be answered no more, and
        when *patience* ends at the latest. That nobody waits for the answer any more ends nothing.
        """
        if pending.done():
            over()
        else:
            self._endings.tell(pending.id, pending.queue, patience.ends_at, over)

    async def send(self, queue: str, message: Message, *, owns_body: bool = True) -> None:
        """Send *message* as it is, asking for no answer here; return when the broker has confirmed it."""
        self._require_open()
        async with self.claiming(message, durable=True) as request:
            self._require_open()  # it may have been closed meanwhile
            confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            owns_body = owns_body or request is not message
            self._outbox.put(queue, Entry(request, confirmed, confirms=True, owns_body=owns_body))
            await confirmed

    @contextlib.asynccontextmanager
    async def claiming(
        self, message: Message, *, durable: bool, timeout: float | None = None
    ) -> AsyncIterator[Message]:
        """*message* for one who may have to try more than once to send it: a large body is checked in here, and only
        once, within *timeout* seconds. Raises PredictionTimeoutError, BlobError.
        """
        checking_in = self._checked_in(message, durable=durable)
        if timeout is None:
            checked_in = await checking_in
        else:
            checked_in = await self._in_time(checking_in, Patience(timeout), message.id)
        try:
            yield checked_in
        finally:
            self._take_back(checked_in, message)

    async def collect(self, answer: Message) -> Message:
        """*answer* with its body: one that came by claim check is fetched and its blob dropped. Raises BlobError."""
        if answer.data_ref is None:
            return answer
        if self._store is None:
            raise BlobError(
                f"the answer to {answer.correlation_id!r} is large and lies in the blob store; give this client the "
                "store of the workers: blobs='file:/path/.dumbwaiter/blobs' or its URL"
            )
        try:
            if is_result_body(answer):
                # It stays with the kept result, which has the id of the request.
                return await with_result_body(self._store, answer.correlation_id or "", answer)
            whole = await check_out(self._store, answer)
        except BadInputError as error:
            raise BlobError(f"the answer to {answer.correlation_id!r} has no body to fetch: {error}") from None
        self._drop_soon(answer)
        return whole

    def discard(self, message: Message) -> None:
        """Nobody will fetch the body of *message* any more: drop it, if it lies in the store."""
        self._drop_soon(message)

    def fail_waiting(self, error: Exception, queue: str | None = None) -> int:
        """Give *error* to all who wait for an answer (of *queue*); returns how many there were."""
        # Copied first: handles that die in other threads take their waiters along.
        waiters = list(self._waiters.values())
        doomed = [future for name, future in waiters if queue in (None, name) and not future.done()]
        for future in doomed:
            fail(future, error)
        self._endings.come_all(queue)
        return len(doomed)

    def waiting(self) -> set[str]:
        """The queues from which answers are being waited for."""
        return {queue for queue, _ in list(self._waiters.values())}

    def _forget(self, id_: str, future: asyncio.Future[Message]) -> None:
        _, waiting = self._waiters.get(id_, (None, None))
        if waiting is future:  # else a later request has this id by now
            self._waiters.pop(id_, None)

    def _addressed(self, queue: str, message: Message, *, confirm: bool, owns_body: bool) -> tuple[Pending, Entry]:
        """What waits for the answer to *message*, and what is to go out. Raises ValueError for an id in use."""
        id_ = message.correlation_id or message.id
        if id_ in self._waiters and not self._waiters[id_][1].done():
            raise ValueError(f"an answer to {id_!r} is being waited for already; give each request an id of its own")
        request = msgspec.structs.replace(message, reply_to=self._address, correlation_id=id_)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Message] = loop.create_future()
        self._waiters[id_] = (queue, future)
        pending = Pending(id_, queue, future, forget=self._forget, collect=self._collect_soon, alarms=self._alarms)
        told: asyncio.Future[Any] = loop.create_future() if confirm else future
        return pending, Entry(request, told, confirms=confirm, owns_body=owns_body and message.data_ref is not None)

    async def _in_time(self, work: Coroutine[Any, Any, T], patience: Patience, id_: str) -> T:
        try:
            async with asyncio.timeout(patience.left):
                return await work
        except TimeoutError:
            raise PredictionTimeoutError(f"message {id_!r} could not be sent within {patience:g} s") from None

    async def _ready_to_go(self, message: Message) -> Message:
        # A request whose asker dies is worth nothing, so its body need not survive a power cut.
        checked_in = await self._checked_in(message, durable=False)
        try:
            # Last, because the inbox may be lost while the body is being written.
            await self._reply_address()
        except BaseException:
            self._take_back(checked_in, message)
            raise
        return checked_in

    def _is_large(self, message: Message) -> bool:
        return self._store is not None and len(message.body) > self._claim_threshold

    async def _checked_in(self, message: Message, *, durable: bool) -> Message:
        """*message* with a large body in the store, which is held then; _take_back() lets go of it."""
        if self._store is None or not self._is_large(message):
            return message
        checking_in = asyncio.create_task(
            check_in(self._store, message, threshold=self._claim_threshold, durable=durable)
        )
        try:
            checked_in = await asyncio.shield(checking_in)
        except asyncio.CancelledError:
            # A store may finish what it has begun, and nobody else would know of that blob.
            self._in_background(_drop_after(self._store, checking_in))
            raise
        self._claims.hold(checked_in)
        return checked_in

    def _require_open(self) -> None:
        if self._closed:
            raise BrokerClosedError("closed: this can send no more messages")

    async def _reply_address(self) -> str:
        async with self._opening:
            self._require_open()
            if self._address is None:
                inbox = await self._broker.open_inbox()
                self._inbox, self._address = inbox, inbox.address
                if self._closed:  # meanwhile
                    await self._close_inbox()
                self._require_open()
                self._reader = asyncio.get_running_loop().create_task(self._read(self._inbox))
            return self._address

    async def _read(self, inbox: Inbox) -> None:
        failures = 0
        fate = "is lost"
        try:
            while True:
                try:
                    answers = await inbox.receive(max_messages=1000, max_wait=READ_WAIT)
                except BrokerUnavailableError as error:
                    failures += 1
                    delay = back_off(failures, first=FIRST_BACK_OFF, longest=LAST_BACK_OFF)
                    _log.warning("inbox %s cannot be read, trying again in %.2f s: %s", inbox.address, delay, error)
                    await asyncio.sleep(delay)
                else:
                    failures = 0
                    self._deliver(answers)
        except BrokerError as error:
            _log.warning("inbox %s is lost: %s", inbox.address, error)
        except Exception as error:  # a fault of ours or of the adapter: whoever waits must not wait in vain
            _log.exception("reading the inbox %s failed", inbox.address)
            fate = f"cannot be read ({type(error).__name__}: {error})"
        finally:
            # No answer can reach those who gave this address any more; the next request opens another.
            self.fail_waiting(BrokerUnavailableError(f"the inbox {inbox.address} {fate}; ask again"))
            await self._close_inbox()

    async def _close_inbox(self) -> None:
        inbox, self._inbox, self._address = self._inbox, None, None
        if inbox is not None:
            try:
                await inbox.close()
            except BrokerError as error:
                _log.debug("inbox %s could not be closed: %s", inbox.address, error)

    def _deliver(self, answers: Iterable[Message]) -> None:
        for answer in answers:
            if self._endings:
                self._see_end(answer)
            _, future = self._waiters.pop(answer.correlation_id or "", (None, None))
            if future is not None and not future.done():
                future.set_result(answer)
                continue
            self.late += 1
            self._drop_soon(answer)

    def _see_end(self, message: Message) -> None:
        self._endings.come(message.correlation_id or "")

    def _take_back(self, checked_in: Message, message: Message) -> None:
        """Whoever had *message* checked in needs what came of it no more."""
        if checked_in is not message:
            self._claims.let_go(checked_in)

    def _collect_soon(self, answer: Message) -> asyncio.Task[Message]:
        return self._in_background(self.collect(answer))

    def _drop_soon(self, message: Message) -> None:
        """Nobody will fetch the blob of *message* any more."""
        if message.data_ref is not None and self._store is not None:
            self._in_background(_drop(self._store, message))

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


async def _drop_after(store: BlobStore, checking_in: asyncio.Task[Message]) -> None:
    with contextlib.suppress(BlobError):
        await _drop(store, await checking_in)


async def _drop(store: BlobStore, message: Message) -> None:
    try:
        await drop(store, message)
    except BlobError as error:
        _log.warning("blob %s stays behind: %s", message.data_ref, error)
