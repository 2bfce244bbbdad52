"""The in-memory broker: ``memory:`` is private to its object, ``memory://name`` is shared within the process.

The reference adapter: it keeps every promise of the contract but durability. Objects opened with the same name share
queues and inboxes, also from event loops in other threads; what lies in them lives as long as the process.
Waiting receivers are served first come first served, and a message wakes one of them.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import threading
import time
from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import urlsplit

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, POSITION_LIMIT, Broker, Capabilities, Inbox
from dumbwaiter.brokers.memory_queue import MemoryQueue
from dumbwaiter.errors import (
    BrokerClosedError,
    ConfigError,
    InboxGoneError,
    LockLostError,
    MessageTooLargeError,
    QueueNotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dumbwaiter.message import DeadLetter, Delivery, Message, QueueStats

T = TypeVar("T")


class MemoryBroker(Broker):
    """Queues in this process. *url* is ``memory:`` (private) or ``memory://name`` (shared); see the module text."""

    capabilities = Capabilities(
        durable=False,
        multi_process=False,
        ordered=True,
        priority=True,
        abandon_delay=True,
        send_delay=True,
        uncounted_abandon=True,
        deduplication=True,
        oldest_age=True,
        queue_position=True,
        max_message_nbytes=None,
    )

    def __init__(self, url: str = "memory:", *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        parts = urlsplit(url)
        if parts.scheme != "memory" or parts.query or parts.fragment:
            raise ConfigError(f"not a memory broker's address: {url!r}; write memory: or memory://name")
        name = f"{parts.netloc}{parts.path}".strip("/")
        super().__init__(url, lock_duration=lock_duration)
        self._server = _servers.setdefault(name, _Server()) if name else _Server()
        self._inboxes: list[MemoryInbox] = []
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        for queue in list(self._server.queues.values()):
            with queue.line.lock:
                queue.line.dismiss(self)
                queue.state.release(self, now=time.monotonic())
                queue.line.changed()
        for inbox in self._inboxes:
            await inbox.close()
        self._inboxes.clear()

    async def check(self) -> None:
        self._check_open()

    async def _create_queue(self, queue: str) -> None:
        self._check_open()
        self._server.queues.setdefault(queue, _SharedQueue(queue))

    async def queues(self) -> list[str]:
        self._check_open()
        return sorted(self._server.queues)

    async def send(self, queue: str, messages: Sequence[Message], *, delay: float = 0.0) -> None:
        shared = self._queue(queue)
        limit = self.capabilities.max_message_nbytes
        if limit is not None:
            for message in messages:
                if len(message.body) > limit:
                    raise MessageTooLargeError(len(message.body), limit)
        with shared.line.lock:
            shared.state.send(messages, delay=delay, now=time.monotonic())
            shared.line.changed()

    async def receive(self, queue: str, *, max_messages: int, max_wait: float) -> list[Delivery]:
        shared = self._queue(queue)

        def take() -> list[Delivery]:
            return shared.state.take(max_messages, lock_duration=self.lock_duration, owner=self, now=time.monotonic())

        max_wait = max_wait if max_messages > 0 else 0.0
        deliveries = await shared.line.receive(self, take, max_wait, check_open=self._check_open)
        self._check_open()
        return deliveries

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        now = time.monotonic()
        self._settle(deliveries, lambda state, delivery: state.complete(delivery, now=now))

    async def abandon(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, counted: bool = True) -> None:
        now = time.monotonic()
        self._settle(deliveries, lambda state, delivery: state.abandon(delivery, delay=delay, counted=counted, now=now))

    async def dead_letter(self, deliveries: Sequence[Delivery], *, reason: str, detail: str = "") -> None:
        now, dead_at = time.monotonic(), time.time()
        self._settle(
            deliveries,
            lambda state, delivery: state.dead_letter(delivery, reason=reason, detail=detail, now=now, dead_at=dead_at),
        )

    async def renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        self._check_open()
        now = time.monotonic()
        renewed, lost = [], []
        for delivery in deliveries:
            shared = self._queue(delivery.queue)
            with shared.line.lock:
                fresh = shared.state.renew(delivery, lock_duration=self.lock_duration, now=now)
            if fresh is None:
                lost.append(delivery)
            else:
                renewed.append(fresh)
        if lost:
            raise LockLostError(lost, renewed)
        return renewed

    async def stats(self, queue: str) -> QueueStats:
        shared = self._queue(queue)
        with shared.line.lock:
            return shared.state.stats(now=time.monotonic())

    async def position(self, queue: str, message_id: str) -> int | None:
        shared = self._queue(queue)
        with shared.line.lock:
            return shared.state.position(message_id, limit=POSITION_LIMIT, now=time.monotonic())

    async def dead_letters(self, queue: str, *, limit: int = 100, after: str | None = None) -> list[DeadLetter]:
        shared = self._queue(queue)
        with shared.line.lock:
            return shared.state.dead_letters(limit, after=after)

    async def redrive(self, queue: str, keys: Sequence[str] | None = None) -> int:
        shared = self._queue(queue)
        with shared.line.lock:
            count = shared.state.redrive(keys, now=time.monotonic())
            shared.line.changed()
        return count

    async def purge(self, queue: str, keys: Sequence[str] | None = None) -> int:
        shared = self._queue(queue)
        with shared.line.lock:
            return shared.state.purge(keys)

    async def open_inbox(self) -> Inbox:
        self._check_open()
        inbox = MemoryInbox(self._server)
        self._inboxes.append(inbox)
        return inbox

    async def reply(self, address: str, messages: Sequence[Message]) -> None:
        self._check_open()
        inbox = self._server.inboxes.get(address)
        if inbox is None:
            raise InboxGoneError(address)
        inbox.put(messages)

    def _settle(self, deliveries: Sequence[Delivery], settle: Callable[[MemoryQueue, Delivery], bool]) -> None:
        self._check_open()
        lost = []
        for delivery in deliveries:
            shared = self._queue(delivery.queue)
            with shared.line.lock:
                if not settle(shared.state, delivery):
                    lost.append(delivery)
                shared.line.changed()
        if lost:
            raise LockLostError(lost)

    def _queue(self, queue: str) -> _SharedQueue:
        self._check_open()
        try:
            return self._server.queues[queue]
        except KeyError:
            raise QueueNotFoundError(queue) from None

    def _check_open(self) -> None:
        if not self._is_open:
            raise BrokerClosedError


class MemoryInbox(Inbox):
    """Replies in this process, oldest first."""

    def __init__(self, server: _Server) -> None:
        self.address = f"memory-inbox-{secrets.token_hex(8)}"
        self._server = server
        self._messages: deque[Message] = deque()
        self._line: _Line[Message] = _Line(lambda: None, lambda items: self._messages.extendleft(reversed(items)))
        server.inboxes[self.address] = self

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        def take() -> list[Message]:
            return [self._messages.popleft() for _ in range(min(max_messages, len(self._messages)))]

        self._check_open()
        max_wait = max_wait if max_messages > 0 else 0.0
        messages = await self._line.receive(self, take, max_wait, check_open=self._check_open)
        self._check_open()
        return messages

    async def close(self) -> None:
        self._server.inboxes.pop(self.address, None)
        with self._line.lock:
            self._line.dismiss(self)

    def put(self, messages: Sequence[Message]) -> None:
        """Append *messages* and wake a reader."""
        with self._line.lock:
            self._messages.extend(messages)
            self._line.changed()

    def _check_open(self) -> None:
        if self.address not in self._server.inboxes:
            raise BrokerClosedError("this inbox is closed; open another with open_inbox()")


class _Waiter(Generic[T]):
    """A receiver in line. *take* locks what it asked for; *items* is what it was served."""

    __slots__ = ("alarm", "alarm_at", "done", "items", "loop", "owner", "take")

    def __init__(self, owner: object, take: Callable[[], list[T]]) -> None:
        self.owner = owner
        self.take = take
        self.items: list[T] = []
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.alarm: asyncio.TimerHandle | None = None
        self.alarm_at = math.inf

    def wake(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def set_alarm(self, when: float, callback: Callable[[], object]) -> None:
        self.silence()
        if not self.done.done():
            self.alarm = self.loop.call_later(max(0.0, when - time.monotonic()), callback)

    def silence(self) -> None:
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None


class _Line(Generic[T]):
    """The receivers that wait for one queue or inbox. Its lock guards them and what they wait for.

    Messages that come in one turn of an event loop are handed out together in the next one: larger batches, one
    wake-up. Locks and delays that end while somebody waits ring an alarm at the first in line.
    """

    def __init__(self, next_event: Callable[[], float | None], give_back: Callable[[list[T]], object]) -> None:
        self.lock = threading.Lock()
        self._next_event = next_event
        self._give_back = give_back
        self._waiters: OrderedDict[_Waiter[T], None] = OrderedDict()
        self._serving = False

    async def receive(
        self, owner: object, take: Callable[[], list[T]], max_wait: float, *, check_open: Callable[[], None]
    ) -> list[T]:
        """What *take* finds, after those who came earlier; waits for it at most *max_wait* seconds."""
        await asyncio.sleep(0)  # a loop that always finds something must not starve others; and sends gather
        with self.lock:
            check_open()  # whoever closed the owner since has sent away only those who waited already
            self._serve()
            items = take()
            if items or max_wait <= 0:
                return items
            waiter = _Waiter(owner, take)
            self._waiters[waiter] = None
            self._arm()
        patience = waiter.loop.call_later(max_wait, waiter.wake)
        cancelled = True
        try:
            await waiter.done
            cancelled = False
        finally:
            patience.cancel()
            waiter.silence()
            with self.lock:
                self._waiters.pop(waiter, None)
                if cancelled:
                    self._give_back(waiter.items)
                if cancelled or not waiter.items:
                    self.changed()
        return waiter.items

    def changed(self) -> None:
        """Something may be ready now, or at an earlier time than was known. Call it with the lock held."""
        while self._waiters and not self._serving:
            head = next(iter(self._waiters))
            self._serving = self._run_at(head, partial(head.loop.call_soon, self._serve_later))

    def dismiss(self, owner: object) -> None:
        """Send *owner*'s receivers away empty-handed. Call it with the lock held."""
        for waiter in [waiter for waiter in self._waiters if waiter.owner is owner]:
            del self._waiters[waiter]
            self._run_at(waiter, waiter.wake)

    def _serve_later(self) -> None:
        with self.lock:
            self._serve()

    def _serve(self) -> None:
        self._serving = False
        while self._waiters:
            waiter = next(iter(self._waiters))
            waiter.items = waiter.take()
            if not waiter.items:
                break
            del self._waiters[waiter]
            if not self._run_at(waiter, waiter.wake):
                self._give_back(waiter.items)
        self._arm()

    def _arm(self) -> None:
        """Have the first in line look again when the next lock or delay ends."""
        while self._waiters and (when := self._next_event()) is not None:
            head = next(iter(self._waiters))
            if when >= head.alarm_at:
                return
            head.alarm_at = when
            if self._run_at(head, partial(head.set_alarm, when, partial(self._ring, head))):
                return

    def _ring(self, head: _Waiter[T]) -> None:
        with self.lock:
            head.alarm_at = math.inf
            self._serve()

    def _run_at(self, waiter: _Waiter[T], callback: Callable[[], object]) -> bool:
        """Run *callback* in the waiter's event loop; False if that loop is closed: then nobody waits there."""
        if waiter.loop is asyncio.get_running_loop():
            callback()
            return True
        try:
            waiter.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            self._waiters.pop(waiter, None)
            return False
        return True


class _SharedQueue:
    """A queue's state and the receivers that wait for it."""

    def __init__(self, name: str) -> None:
        self.state = MemoryQueue(name, salt=f"{secrets.token_hex(4)}.")
        self.line: _Line[Delivery] = _Line(self.state.next_event, self._give_back)

    def _give_back(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self.state.abandon(delivery, delay=0.0, counted=False, now=time.monotonic())


class _Server:
    """What the brokers of one name share."""

    def __init__(self) -> None:
        self.queues: dict[str, _SharedQueue] = {}
        self.inboxes: dict[str, MemoryInbox] = {}


_servers: dict[str, _Server] = {}
