"""What the adapters of all products with a server do alike: checks before a verb, and envelopes after it.

An adapter implements the verbs with a leading underscore, which are called while the broker is open, and never with an
empty batch. What they do, return and raise is what the contract says of the verbs without it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from abc import abstractmethod
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Broker, Claim, Inbox
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import (
    BadInputError,
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    LockLostError,
    MessageTooLargeError,
)
from dumbwaiter.message import DeadLetter, Delivery, Message, QueueStats
from dumbwaiter.policies.delays import kept
from dumbwaiter.tasks import end
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dumbwaiter.brokers.findings import Finding

_log = logging.getLogger(__name__)

BAD_ENVELOPE = "bad-envelope"
"""Dead-letter reason of a message whose producer wrote attributes that cannot be read."""
_HEADERS = "headers"
NOT_READY_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the tries of a message that the product says it has not stored: a queue that was made just now, or
lost its leader, takes nothing for a moment. A resend by the caller would be the same, only later.
"""
BURY_WITHIN = 0.5
"""Seconds for which those that can be read wait until the others, that came with them, are dead letters."""


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message as it came from the product, locked: CloudEvents *attributes* as a producer wrote them, and *body*.

    *id* is what the product itself calls it; it stands for an id that the attributes do not give. *fault* says why not
    even attributes and body can be told from what came, if so. The others are those of a Delivery.
    """

    attributes: Mapping[str, str]
    body: bytes
    id: str | None
    lock_token: str
    locked_until: float
    delivery_count: int
    fault: str | None = None


class ServedBroker(Broker):
    """A Broker whose queues live in a server."""

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        super().__init__(url, lock_duration=lock_duration)
        self._process: int | None = None
        self._burials: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        if self._process is not None:
            raise BrokerUnavailableError(
                f"{shown(self.url)} is open already; use one broker object for each `async with`"
            )
        await self._connect()
        self._process = os.getpid()

    async def close(self) -> None:
        if self._process is not None:
            self._process = None
            try:
                if self._burials:
                    await asyncio.wait(self._burials, timeout=BURY_WITHIN)
                await end(self._burials.copy())
            finally:
                await self._disconnect()

    @property
    def is_open(self) -> bool:
        """Whether open() has returned and close() has not been called."""
        return self._process is not None

    def require_open(self) -> None:
        """Raises BrokerClosedError unless this broker is open, and in the process that opened it."""
        if self._process is None:
            raise BrokerClosedError
        if self._process != os.getpid():
            raise BrokerClosedError("this broker was opened before a fork; open a new one in each process")

    def nbytes_of(self, message: Message) -> int:
        """How many bytes of max_message_nbytes *message* takes: its body, unless the product counts attributes too."""
        return len(message.body)

    def _check_sizes(self, messages: Iterable[Message]) -> None:
        limit = self.capabilities.max_message_nbytes
        if limit is None:
            return
        for message in messages:
            nbytes = self.nbytes_of(message)
            if nbytes > limit:
                raise MessageTooLargeError(nbytes, limit)

    # --- verbs ---

    async def check(self) -> None:
        self.require_open()
        await self._check()

    async def examine(self, *, longest_run: float | None = None) -> list[Finding]:
        self.require_open()
        return await self._examine(longest_run)

    async def create_queue(self, queue: str) -> None:
        self.require_open()
        await super().create_queue(queue)

    async def queues(self) -> list[str]:
        self.require_open()
        return await self._queue_names()

    async def has_queue(self, queue: str) -> bool:
        self.require_open()
        return await self._has_queue(queue)

    async def send(self, queue: str, messages: Sequence[Message], *, delay: float = 0.0) -> None:
        self.require_open()
        self._check_sizes(messages)
        if messages:
            await self._send(queue, messages, kept(delay) if self.capabilities.send_delay else 0.0)

    async def receive(self, queue: str, *, max_messages: int, max_wait: float) -> list[Delivery]:
        self.require_open()
        if max_messages < 1:
            return []
        deliveries = await self._receive(queue, max_messages, max_wait)
        self.require_open()  # close() has handed back what came meanwhile
        return deliveries

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        self.require_open()
        if deliveries:
            await self._complete(deliveries)

    async def abandon(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, counted: bool = True) -> None:
        self.require_open()
        if deliveries:
            await self._abandon(deliveries, kept(delay) if self.capabilities.abandon_delay else 0.0, counted)

    async def dead_letter(self, deliveries: Sequence[Delivery], *, reason: str, detail: str = "") -> None:
        self.require_open()
        if deliveries:
            await self._dead_letter(deliveries, reason, detail)

    async def renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        self.require_open()
        return await self._renew_lock(deliveries) if deliveries else []

    def claim_of(self, delivery: Delivery) -> Claim | None:
        return self._claim_of(delivery) if self.is_open else None

    def claim_to_all(self, queue: str) -> Claim | None:
        return self._claim_to_all(queue) if self.is_open else None

    async def take_back(self, claims: Sequence[Claim]) -> int:
        self.require_open()
        return await super().take_back(claims)

    async def stats(self, queue: str) -> QueueStats:
        self.require_open()
        return await self._stats(queue)

    async def dead_letters(self, queue: str, *, limit: int = 100, after: str | None = None) -> list[DeadLetter]:
        self.require_open()
        return await self._dead_letters(queue, limit, after)

    async def is_dead_letter(self, queue: str, key: str) -> bool:
        self.require_open()
        return await self._is_dead_letter(queue, key)

    async def redrive(self, queue: str, keys: Sequence[str] | None = None) -> int:
        self.require_open()
        return await self._redrive(queue, keys)

    async def purge(self, queue: str, keys: Sequence[str] | None = None) -> int:
        self.require_open()
        return await self._purge(queue, keys)

    async def open_inbox(self) -> Inbox:
        self.require_open()
        return await self._open_inbox()

    async def reply(self, address: str, messages: Sequence[Message]) -> None:
        self.require_open()
        self._check_sizes(messages)
        if messages:
            await self._reply(address, messages)

    async def deliveries_of(self, queue: str, received: Iterable[Received]) -> list[Delivery]:
        """Deliveries of what was *received* from *queue*. What no envelope can be read of becomes a dead letter.

        That goes on beside where it takes longer than BURY_WITHIN. One that cannot be buried is logged, and stays
        locked until its lock ends: it costs nothing of what comes with it or after it. Raises nothing.
        """
        deliveries: list[Delivery] = []
        burials: list[asyncio.Task[None]] = []
        for one in received:
            try:
                message = _message(one)
            except BadInputError as error:
                burials.append(asyncio.get_running_loop().create_task(self._bury(queue, one, str(error))))
            else:
                deliveries.append(_delivery(queue, one, message))
        if burials:
            for burial in burials:
                self._burials.add(burial)
                burial.add_done_callback(self._burials.discard)
            await asyncio.wait(burials, timeout=BURY_WITHIN)
        return deliveries

    async def _bury(self, queue: str, received: Received, fault: str) -> None:
        unread = _delivery(queue, received, readable_part(received.attributes, received.body, received.id))
        try:
            await self._dead_letter([unread], BAD_ENVELOPE, fault)
        except LockLostError:  # whoever took it over meanwhile finds the same
            pass
        except BrokerError as error:
            _log.warning("a message in %r cannot be read, and not be dead-lettered either: %s", queue, error)
        except Exception:  # a fault of ours, which must not end whoever receives what is good
            _log.exception("dead-lettering a message in %r that cannot be read failed", queue)

    # --- for adapters ---

    @abstractmethod
    async def _connect(self) -> None:
        """open(), of a broker that is not open."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """close(), once: hand back what is held, and give BrokerClosedError to whoever waits. It raises nothing."""

    @abstractmethod
    async def _check(self) -> None: ...

    @abstractmethod
    async def _examine(self, longest_run: float | None) -> list[Finding]: ...

    async def _queue_names(self) -> list[str]:
        """queues(). An adapter without capabilities.lists_queues leaves this as it is."""
        raise NotImplementedError(f"{type(self).__name__} has no lists_queues; ask its capabilities first")

    @abstractmethod
    async def _has_queue(self, queue: str) -> bool: ...

    @abstractmethod
    async def _send(self, queue: str, messages: Sequence[Message], delay: float) -> None: ...

    @abstractmethod
    async def _receive(self, queue: str, max_messages: int, max_wait: float) -> list[Delivery]: ...

    @abstractmethod
    async def _complete(self, deliveries: Sequence[Delivery]) -> None: ...

    @abstractmethod
    async def _abandon(self, deliveries: Sequence[Delivery], delay: float, counted: bool) -> None: ...

    @abstractmethod
    async def _dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None: ...

    @abstractmethod
    async def _renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]: ...

    def _claim_of(self, delivery: Delivery) -> Claim | None:
        return super().claim_of(delivery)

    def _claim_to_all(self, queue: str) -> Claim | None:
        return super().claim_to_all(queue)

    @abstractmethod
    async def _stats(self, queue: str) -> QueueStats: ...

    @abstractmethod
    async def _dead_letters(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]: ...

    async def _is_dead_letter(self, queue: str, key: str) -> bool:
        return await super().is_dead_letter(queue, key)

    @abstractmethod
    async def _redrive(self, queue: str, keys: Sequence[str] | None) -> int: ...

    @abstractmethod
    async def _purge(self, queue: str, keys: Sequence[str] | None) -> int: ...

    @abstractmethod
    async def _open_inbox(self) -> Inbox: ...

    @abstractmethod
    async def _reply(self, address: str, messages: Sequence[Message]) -> None: ...


def _message(received: Received) -> Message:
    if received.fault is not None:
        raise BadInputError(received.fault)
    return from_attributes(received.attributes, received.body, fallback_id=received.id)


def readable_part(attributes: Mapping[str, str], body: bytes, id_: str | None) -> Message:
    """What can be shown of a message whose *attributes* are no envelope: they stand under the extension ``headers``."""
    extensions = {_HEADERS: msgspec.json.encode(dict(attributes)).decode()}
    return (
        Message(body=body, extensions=extensions) if id_ is None else Message(id=id_, body=body, extensions=extensions)
    )


def without_headers(message: Message) -> Message:
    """A readable_part() for where there is room for its body alone: headers take more when they are written again."""
    extensions = {name: value for name, value in message.extensions.items() if name != _HEADERS}
    return msgspec.structs.replace(message, extensions=extensions)


def _delivery(queue: str, received: Received, message: Message) -> Delivery:
    return Delivery(
        message=message,
        queue=queue,
        lock_token=received.lock_token,
        locked_until=received.locked_until,
        delivery_count=received.delivery_count,
    )
