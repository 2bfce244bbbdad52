"""The in-memory broker: ``memory:`` is private to its object, ``memory://name`` is shared within the process.

The reference adapter: it keeps every promise of the contract but durability. Objects opened with the same name share
queues and inboxes, also from event loops in other threads; what lies in them lives as long as the process.
Waiting receivers are served first come first served, and a message wakes one of them.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, POSITION_LIMIT, Broker, Capabilities, Inbox
from dumbwaiter.brokers.findings import Finding
from dumbwaiter.brokers.inboxes import LineInbox
from dumbwaiter.brokers.lines import Line
from dumbwaiter.brokers.memory_queue import MemoryQueue
from dumbwaiter.errors import (
    BrokerClosedError,
    ConfigError,
    InboxGoneError,
    LockLostError,
    MessageTooLargeError,
    QueueNotFoundError,
)
from dumbwaiter.policies.delays import kept
from dumbwaiter.urls import shown

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
        strict_priority=True,
        abandon_delay=True,
        send_delay=True,
        uncounted_abandon=True,
        deduplication=True,
        forgets_purged=True,
        portable_tokens=True,
        lists_queues=True,
        counts_ready=True,
        counts_locked=True,
        counts_dead=True,
        knows_gone_inboxes=True,
        oldest_age=True,
        queue_position=True,
        max_message_nbytes=None,
    )

    def __init__(self, url: str = "memory:", *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        parts = urlsplit(url)
        if parts.scheme != "memory" or parts.query or parts.fragment:
            raise ConfigError(f"not a memory broker's address: {shown(url)!r}; write memory: or memory://name")
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

    async def examine(self, *, longest_run: float | None = None) -> list[Finding]:  # noqa: ARG002 - no lock is too short
        self._check_open()
        text = "all messages are in this process's memory: they end with it, and no other process can see them"
        return [Finding(level="danger", subject="durability", text=text, remedy="--broker sqlite:.dumbwaiter/queue.db")]

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
            shared.state.send(messages, delay=kept(delay), now=time.monotonic())
            shared.line.changed()

    async def receive(self, queue: str, *, max_messages: int, max_wait: float) -> list[Delivery]:
        self._check_open()
        if max_messages < 1:
            return []
        shared = self._queue(queue)

        def take() -> list[Delivery]:
            return shared.state.take(max_messages, lock_duration=self.lock_duration, owner=self, now=time.monotonic())

        deliveries = await shared.line.receive(self, take, max_wait, check_open=self._check_open)
        self._check_open()
        return deliveries

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        now = time.monotonic()
        self._settle(deliveries, lambda state, delivery: state.complete(delivery, now=now))

    async def abandon(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, counted: bool = True) -> None:
        now = time.monotonic()
        later = kept(delay)
        self._settle(deliveries, lambda state, delivery: state.abandon(delivery, delay=later, counted=counted, now=now))

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
        self._inboxes = [*(one for one in self._inboxes if one.address in self._server.inboxes), inbox]
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


class MemoryInbox(LineInbox):
    """Replies in this process, oldest first."""

    def __init__(self, server: _Server) -> None:
        super().__init__(f"memory-inbox-{secrets.token_hex(8)}", require_open=lambda: None)
        self._server = server
        server.inboxes[self.address] = self

    async def close(self) -> None:
        self._server.inboxes.pop(self.address, None)
        self.dismiss()


class _SharedQueue:
    """A queue's state and the receivers that wait for it."""

    def __init__(self, name: str) -> None:
        self.state = MemoryQueue(name, salt=f"{secrets.token_hex(4)}.")
        self.line: Line[Delivery] = Line(self.state.next_event, self._give_back)

    def _give_back(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self.state.abandon(delivery, delay=0.0, counted=False, now=time.monotonic())


class _Server:
    """What the brokers of one name share."""

    def __init__(self) -> None:
        self.queues: dict[str, _SharedQueue] = {}
        self.inboxes: dict[str, MemoryInbox] = {}


_servers: dict[str, _Server] = {}
