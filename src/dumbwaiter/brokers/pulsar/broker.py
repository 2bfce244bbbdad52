"""The broker on Apache Pulsar."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence

import msgspec

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Capabilities, Inbox
from dumbwaiter.brokers.findings import Finding
from dumbwaiter.brokers.pulsar import examining
from dumbwaiter.brokers.pulsar.admin import Admin
from dumbwaiter.brokers.pulsar.dead import Buried, DeadLetters
from dumbwaiter.brokers.pulsar.delays import Mover
from dumbwaiter.brokers.pulsar.errors import LARGEST_BODY
from dumbwaiter.brokers.pulsar.holding import Held
from dumbwaiter.brokers.pulsar.inbox import PulsarInbox
from dumbwaiter.brokers.pulsar.journal import Register
from dumbwaiter.brokers.pulsar.link import Link, start_answer
from dumbwaiter.brokers.pulsar.location import location_of
from dumbwaiter.brokers.pulsar.names import Names, is_topic
from dumbwaiter.brokers.pulsar.reading import UNREADABLE, event_time_of, id_of, properties_at
from dumbwaiter.brokers.pulsar.settling import Settling
from dumbwaiter.brokers.pulsar.tap import Tap
from dumbwaiter.brokers.pulsar.wire import (
    Copy,
    again,
    attributes_of,
    bare_copy,
    delayed,
    delivery_count_of,
    properties_of,
)
from dumbwaiter.brokers.served import Received, ServedBroker
from dumbwaiter.errors import BrokerUnavailableError, InboxGoneError, QueueNotFoundError
from dumbwaiter.message import DeadLetter, Delivery, Message, QueueStats, is_queue_name
from dumbwaiter.policies.lanes import lane_of

AT_ONCE = 1000
"""No receive returns more."""
_ANSWERED = 100
"""To so many inboxes the way is kept ready."""


class _Queue:
    """What this broker object has for one queue."""

    def __init__(self, queue: str, names: Names, link: Link, settling: Settling) -> None:
        self.tap = Tap(queue, names.lanes(queue), link, settling.put_back)
        self.dead_letters = DeadLetters(queue, names.dead(queue), link)
        self.mover = Mover(queue, names, link)


class PulsarBroker(ServedBroker):
    """Queues on a Pulsar server. *url* is ``pulsar://host:port/tenant/namespace?prefix=...``.

    Counts come from the admin interface, where ``?admin=`` gives its address.
    """

    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        ordered=False,
        priority=True,
        strict_priority=False,
        abandon_delay=True,
        send_delay=True,
        uncounted_abandon=True,
        deduplication=False,
        forgets_purged=True,
        portable_tokens=False,
        lists_queues=True,
        counts_ready=False,
        counts_locked=False,
        counts_dead=True,
        knows_gone_inboxes=False,
        oldest_age=False,
        queue_position=False,
        max_message_nbytes=LARGEST_BODY,
        killed_holder="freed",
    )

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        super().__init__(url, lock_duration=lock_duration)
        self._location = location_of(url)
        self._names = Names.at(self._location)
        if self._location.admin is not None:
            self.capabilities = msgspec.structs.replace(self.capabilities, counts_ready=True, counts_locked=True)

    # --- connecting ---

    async def _connect(self) -> None:
        self._link = Link(self._location)
        self._register = Register(self._names.register, self._link)
        self._settling = Settling(self._names, self._link)
        self._admin = None if self._location.admin is None else Admin(self._location, self._location.admin)
        self._queues: dict[str, _Queue] = {}
        self._inboxes: list[PulsarInbox] = []
        self._answered: dict[str, None] = {}
        self._salt = secrets.token_hex(4)
        self._last_token = 0
        self._arriving: dict[str, Held] = {}
        self._link.open()
        try:
            await self._register.names()
        except BaseException:
            await self._close_link()
            raise

    async def _disconnect(self) -> None:
        taps = [queue.tap for queue in self._queues.values()]
        here = await asyncio.gather(*(tap.close() for tap in taps))
        await asyncio.gather(*(queue.mover.close() for queue in self._queues.values()))
        await self._settling.close([*self._arriving.values(), *(one for some in here for one in some)])
        await asyncio.gather(*(tap.close_consumers() for tap in taps))
        await asyncio.gather(*(inbox.close() for inbox in self._inboxes))
        await self._close_link()

    async def _close_link(self) -> None:
        self._register.close()
        for queue in self._queues.values():
            queue.dead_letters.close()
        if self._admin is not None:
            await self._admin.close()
        await self._link.close()

    async def _check(self) -> None:
        await self._register.require_up()
        await self._link.publish([Copy(self._names.check, b"", {})])

    async def _examine(self, longest_run: float | None) -> list[Finding]:  # noqa: ARG002 - no lock is too short
        await self._register.require_up()
        fault = None
        try:
            await self._check()
        except BrokerUnavailableError as error:
            await self._link.probe()  # it may have gone just now
            fault = str(error)
        findings = examining.of_protocol(fault=fault, lock_duration=self.lock_duration)
        if self._admin is None:
            return [examining.without_admin(), *findings]
        version = Finding(level="ok", subject="version", text=f"Pulsar {await self._admin.version()}")
        return [*examining.of_policies(await self._admin.policies()), *findings, version]

    # --- queues ---

    async def _create_queue(self, queue: str) -> None:
        if queue in await self._register.names():
            return
        # A topic keeps what comes only once it has a subscription.
        dead, later = self._names.dead(queue), self._names.delayed(queue)
        topics = (self._register.topic, *self._names.lanes(queue), dead, later)
        consumers = await asyncio.gather(*(self._link.subscribe(topic, prefetch=0) for topic in topics))
        for consumer in consumers:
            start_answer(consumer.close_async)
        await self._link.publish([Copy(self._register.topic, queue.encode(), {})])
        await self._register.names()

    async def _queue_names(self) -> list[str]:
        return sorted(await self._register.names())

    async def _has_queue(self, queue: str) -> bool:
        return queue in await self._register.names()

    async def _stats(self, queue: str) -> QueueStats:
        of_queue = await self._existing(queue)
        dead = await of_queue.dead_letters.count()
        ready = locked = later = None
        if self._admin is not None:
            lanes = await self._admin.backlogs(self._names.lanes(queue))
            waiting = await self._admin.backlog(self._names.delayed(queue))
            later = waiting.kept_back
            # What is due there, or with whoever moves it, waits for a worker.
            ready = sum(lane.ready for lane in lanes) + max(0, waiting.unacknowledged - later)
            locked = sum(lane.held for lane in lanes)
        return QueueStats(ready=ready, locked=locked, delayed=later, dead=dead, oldest_age=None)

    # --- sending and receiving ---

    async def _send(self, queue: str, messages: Sequence[Message], delay: float) -> None:
        await self._existing(queue)
        due = time.time() + delay
        copies = []
        for message in messages:
            properties, lane = properties_of(message), lane_of(message.priority)
            if delay > 0:
                properties = delayed(properties, due=due, lane=lane)
                copies.append(Copy(self._names.delayed(queue), message.body, properties, due))
            else:
                copies.append(Copy(self._names.lane(queue, lane), message.body, properties))
        await self._link.publish(copies)

    async def _receive(self, queue: str, max_messages: int, max_wait: float) -> list[Delivery]:
        of_queue = await self._existing(queue)
        await self._register.require_up()
        of_queue.mover.start()
        until = time.monotonic() + max_wait
        while True:
            held = await of_queue.tap.receive(min(max_messages, AT_ONCE), max(0.0, until - time.monotonic()))
            self.require_open()
            deliveries = await self._deliveries(queue, held)
            # What nobody can read was dead-lettered, and the receiver has still time to wait.
            if deliveries or not held:
                return deliveries

    async def _deliveries(self, queue: str, held: Sequence[Held]) -> list[Delivery]:
        locked_until = time.monotonic() + self.lock_duration
        received, by_token = [], {}
        for one in held:
            message = one.message
            properties = properties_at(message)
            self._last_token += 1
            token = f"{self._salt}.{self._last_token}"
            by_token[token] = one
            count = delivery_count_of(properties, message.redelivery_count())
            attributes = attributes_of(properties, event_time_of(message))
            fault = "its properties are not UTF-8" if UNREADABLE in properties else None
            received.append(Received(attributes, message.data(), id_of(message), token, locked_until, count, fault))
        self._arriving.update(by_token)
        try:
            deliveries = await self.deliveries_of(queue, received)
            for delivery in deliveries:
                self._settling.hold(delivery, self._arriving.pop(delivery.lock_token))
        finally:
            # Of a receive that was cancelled nobody holds the rest.
            here = [self._arriving.pop(token) for token in by_token if token in self._arriving]
            if here:
                self._settling.start(self._settling.put_back(here))
        return deliveries

    # --- settling ---

    async def _complete(self, deliveries: Sequence[Delivery]) -> None:
        await self._register.require_up()
        self._settling.complete(deliveries)

    async def _abandon(self, deliveries: Sequence[Delivery], delay: float, counted: bool) -> None:
        await self._register.require_up()
        await self._settling.abandon(deliveries, delay, counted=counted)

    async def _dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None:
        for delivery in deliveries:
            # One that nobody can read is given up on while it arrives, before it is held.
            if (held := self._arriving.pop(delivery.lock_token, None)) is not None:
                self._settling.hold(delivery, held)
        await self._register.require_up()
        await self._settling.dead_letter(deliveries, reason, detail)

    async def _renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        await self._register.require_up()
        return self._settling.renew(deliveries, time.monotonic() + self.lock_duration)

    # --- dead letters ---

    async def _dead_letters(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        return await (await self._existing(queue)).dead_letters.page(limit, after)

    async def _is_dead_letter(self, queue: str, key: str) -> bool:
        return await (await self._existing(queue)).dead_letters.has(key)

    async def _redrive(self, queue: str, keys: Sequence[str] | None) -> int:
        async def send_again(letters: list[Buried]) -> None:
            copies = []
            for one in letters:
                properties = again(one.properties, one.message.id, before=0, event_time=one.event_time)
                topic = self._names.lane(queue, lane_of(one.message.priority))
                copies.append(Copy(topic, one.body, properties))
            too_large = await self._link.publish_what_fits(copies)
            await self._link.publish([bare_copy(copies[i], letters[i].properties) for i in too_large])

        return await (await self._existing(queue)).dead_letters.take(keys, send_again)

    async def _purge(self, queue: str, keys: Sequence[str] | None) -> int:
        return await (await self._existing(queue)).dead_letters.take(keys, None)

    # --- request and reply ---

    async def _open_inbox(self) -> Inbox:
        inbox = PulsarInbox(self._names.inbox(secrets.token_hex(12)), self._link, require_open=self.require_open)
        await inbox.open()
        self._inboxes = [one for one in self._inboxes if one.is_open]
        self._inboxes.append(inbox)
        return inbox

    async def _reply(self, address: str, messages: Sequence[Message]) -> None:
        if not is_topic(address):
            raise InboxGoneError(address)
        self._answered.pop(address, None)
        self._answered[address] = None
        while len(self._answered) > _ANSWERED:
            oldest = next(iter(self._answered))
            del self._answered[oldest]
            self._link.forget(oldest)
        await self._link.publish([Copy(address, message.body, properties_of(message)) for message in messages])

    # --- inside ---

    async def _existing(self, queue: str) -> _Queue:
        """What there is for *queue*. Raises QueueNotFoundError."""
        if not is_queue_name(queue) or not await self._register.has(queue):
            raise QueueNotFoundError(queue)
        found = self._queues.get(queue)
        if found is None:
            found = self._queues[queue] = _Queue(queue, self._names, self._link, self._settling)
        return found
