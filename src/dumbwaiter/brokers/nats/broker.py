"""NATS JetStream, 2.11 or newer: ``nats://user:password@host:4222,other:4222?option=value`` or ``tls://``.

Each queue is a work-queue stream; see layout.py for what lies where, holding.py for how locks are kept, and pulling.py
for how messages come. Whoever knows nothing of dumbwaiter publishes a body to ``dumbwaiter.normal.<queue>``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Capabilities, Inbox
from dumbwaiter.brokers.lease_held import LeaseHeldBroker
from dumbwaiter.brokers.nats.address import read_url
from dumbwaiter.brokers.nats.answers import Question
from dumbwaiter.brokers.nats.dead import DeadLetters
from dumbwaiter.brokers.nats.examining import examine
from dumbwaiter.brokers.nats.headers import HEADER_ROOM, MSG_ID, OWN_ROOM, encode, escape, headers_nbytes
from dumbwaiter.brokers.nats.holding import Holding, schedule
from dumbwaiter.brokers.nats.inbox import NatsInbox, is_address, new_address
from dumbwaiter.brokers.nats.link import Link
from dumbwaiter.brokers.nats.pulling import Puller
from dumbwaiter.brokers.nats.queues import LEAST_VERSION, Queues
from dumbwaiter.brokers.nats.stats import stats_of
from dumbwaiter.errors import (
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    InboxGoneError,
    MessageTooLargeError,
)
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from dumbwaiter.brokers.findings import Finding
    from dumbwaiter.message import Delivery, Message, QueueStats

_DEFAULT_MAX_PAYLOAD = 1024 * 1024


class NatsBroker(LeaseHeldBroker[Holding, DeadLetters]):
    """Queues in NATS JetStream. See the module text for *url*, and docs/brokers/nats.md for its options."""

    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        ordered=True,
        priority=True,
        strict_priority=False,
        abandon_delay=True,
        send_delay=True,
        uncounted_abandon=True,
        deduplication=True,
        forgets_purged=False,
        portable_tokens=False,
        lists_queues=True,
        counts_ready=True,
        counts_locked=True,
        counts_dead=True,
        knows_gone_inboxes=True,
        oldest_age=True,
        queue_position=False,
        max_message_nbytes=_DEFAULT_MAX_PAYLOAD - HEADER_ROOM,
        killed_holder="taken_back",
    )

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        super().__init__(url, lock_duration=lock_duration)
        self._address = read_url(url)
        self._inboxes: list[NatsInbox] = []
        self._pullers: dict[str, Puller] = {}

    # --- open and close ---

    async def _connect(self) -> None:
        self._link = Link(self._address, shown(self.url), lost=self._on_lost, back=self._on_back)
        await self._link.open()
        self._queues = Queues(self._link, self._address, shown=shown(self.url), lock_duration=self.lock_duration)
        self._dead = DeadLetters(self._link, self._queues)
        self._holding = Holding(
            self._link, self._queues, lock_duration=self.lock_duration, deliveries_of=self.deliveries_of
        )
        try:
            await self._know_server()
        except BrokerError:
            await self._link.close()
            raise

    async def _know_server(self) -> None:
        if self._queues.version < LEAST_VERSION:
            version, least = self._link.info["version"], ".".join(map(str, LEAST_VERSION))
            raise BrokerUnavailableError(f"{shown(self.url)} is NATS {version}; dumbwaiter needs {least} or newer")
        self._queues.check(await self._link.json("INFO"))
        self.capabilities = msgspec.structs.replace(
            type(self).capabilities,
            send_delay=self._queues.has_schedules,
            max_message_nbytes=self._queues.max_payload - HEADER_ROOM,
        )

    async def _disconnect(self) -> None:
        error = BrokerClosedError()
        for inbox in self._inboxes:
            inbox.dismiss()
        for puller in self._pullers.values():
            await puller.close(error)
        await self._holding.close()
        # So that the server knows at once; of a closed connection it learns a little later.
        await asyncio.gather(*(self._link.forget(inbox.address) for inbox in self._inboxes))
        await self._link.close()
        self._inboxes.clear()
        self._pullers.clear()

    def _on_lost(self, error: BrokerError) -> None:
        for puller in self._pullers.values():
            puller.restart(error)

    def _on_back(self, same_server: bool) -> None:
        if not same_server:
            self._holding.lose_all()

    async def _check(self) -> None:
        await self._queues.check_writing()

    async def _examine(self, longest_run: float | None) -> list[Finding]:  # noqa: ARG002 - no limit here
        """What this server guarantees as it is configured, and what to change. Raises BrokerUnavailableError."""
        return await examine(self._link, self._queues, self._address, lock_duration=self.lock_duration)

    # --- queues ---

    async def _create_queue(self, queue: str) -> None:
        await self._queues.create(queue)

    async def _queue_names(self) -> list[str]:
        return await self._queues.names_listed()

    async def _has_queue(self, queue: str) -> bool:
        return await self._queues.has(queue)

    def nbytes_of(self, message: Message) -> int:
        headers, payload = encode(message)
        return len(payload) + max(0, headers_nbytes(headers) - OWN_ROOM)

    def _check_sizes(self, messages: Iterable[Message]) -> None:
        """Nothing here: where messages are encoded for the wire, their size is known anyway."""

    def _encoded(self, messages: Iterable[Message]) -> list[tuple[dict[str, str], bytes]]:
        """Headers and payload of each. Raises MessageTooLargeError."""
        limit = self.capabilities.max_message_nbytes or 0
        encoded = [encode(message) for message in messages]
        for headers, payload in encoded:
            nbytes = len(payload) + max(0, headers_nbytes(headers) - OWN_ROOM)
            if nbytes > limit:
                raise MessageTooLargeError(nbytes, limit)
        return encoded

    async def _send(self, queue: str, messages: Sequence[Message], delay: float) -> None:
        names = self._queues.names(queue)
        encoded = self._encoded(messages)
        due = await self._queues.due(queue, delay)
        questions: list[Question] = []
        for message, (headers, payload) in zip(messages, encoded, strict=True):
            headers[MSG_ID] = escape(message.id)
            subject = names.subject_of(message.priority)
            if due is not None:
                subject = schedule(headers, names, due, target=subject)
            questions.append((subject, payload, headers))
        await self._queues.publish(queue, questions)

    async def _receive(self, queue: str, max_messages: int, max_wait: float) -> list[Delivery]:
        puller = self._pullers.get(queue)
        if puller is None:
            puller = self._pullers[queue] = self._new_puller(queue)
        return await puller.receive(max_messages, max_wait)

    def _new_puller(self, queue: str) -> Puller:
        return Puller(
            self._link,
            self._queues.names(queue),
            prepare=partial(self._queues.own_locks, queue),
            accept=partial(self._holding.accept, queue),
            missing=partial(self._queues.missing, queue),
            give_back=self._holding.give_back_later,
        )

    # --- looking ---

    async def _stats(self, queue: str) -> QueueStats:
        return await stats_of(self._link, self._queues, self._queues.names(queue))

    # --- request-reply ---

    async def _open_inbox(self) -> Inbox:
        inbox = NatsInbox(new_address(self._address.prefix), self._link, require_open=self.require_open)
        await inbox.open()
        self._inboxes = [*(one for one in self._inboxes if one.is_open), inbox]
        return inbox

    async def _reply(self, address: str, messages: Sequence[Message]) -> None:
        encoded = self._encoded(messages)
        if not is_address(self._address.prefix, address):
            self._link.client  # noqa: B018 - raises while there is no connection
            raise InboxGoneError(address)
        if await self._link.tell([(address, payload, headers) for headers, payload in encoded]):
            raise InboxGoneError(address)
