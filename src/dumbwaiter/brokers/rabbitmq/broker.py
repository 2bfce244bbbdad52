"""The broker on RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Capabilities, Inbox
from dumbwaiter.brokers.findings import Finding
from dumbwaiter.brokers.rabbitmq import examining, names
from dumbwaiter.brokers.rabbitmq.dead import DeadLetters
from dumbwaiter.brokers.rabbitmq.delays import Delays
from dumbwaiter.brokers.rabbitmq.errors import MissingQueueError, OtherKindError, PreconditionError
from dumbwaiter.brokers.rabbitmq.inbox import RabbitmqInbox
from dumbwaiter.brokers.rabbitmq.link import Link
from dumbwaiter.brokers.rabbitmq.location import location_of
from dumbwaiter.brokers.rabbitmq.publishing import Copy, Publisher
from dumbwaiter.brokers.rabbitmq.settling import Settling
from dumbwaiter.brokers.rabbitmq.tap import Tap
from dumbwaiter.brokers.rabbitmq.wire import (
    again,
    properties_of,
)
from dumbwaiter.brokers.served import ServedBroker
from dumbwaiter.errors import (
    BrokerUnavailableError,
    ConfigError,
    InboxGoneError,
    QueueNotFoundError,
)
from dumbwaiter.message import WEBHOOKS_QUEUE, DeadLetter, Delivery, Message, QueueStats, is_queue_name
from dumbwaiter.policies.lanes import HIGH, LOW, NORMAL, lane_of

LARGEST_BODY = 16 * 1024 * 1024
"""What RabbitMQ 4 takes by default; 3.x takes more."""
AT_ONCE = 1000
"""No receive returns more; AMQP's own limit is 65,535."""


class _Queue:
    """What this broker object has for one queue."""

    def __init__(self, tap: Tap, dead_letters: DeadLetters, delays: Delays) -> None:
        self.tap = tap
        self.dead_letters = dead_letters
        self.delays = delays
        self.checked: set[int] = set()
        """The lanes that are known to be ours, until one is missing."""


class RabbitmqBroker(ServedBroker):
    """Queues on a RabbitMQ server. *url* is ``amqp://user:password@host:port/virtual-host?prefix=...``.

    Sends and receives go over a connection each: an alarm of the server stops the one that publishes, and what is held
    can still be settled.
    """

    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        ordered=True,
        priority=True,
        strict_priority=False,
        abandon_delay=True,
        send_delay=True,
        uncounted_abandon=True,
        deduplication=False,
        forgets_purged=True,
        portable_tokens=False,
        lists_queues=False,
        counts_ready=True,
        counts_locked=False,
        counts_dead=True,
        knows_gone_inboxes=True,
        oldest_age=False,
        queue_position=False,
        killed_holder="freed",
        max_message_nbytes=LARGEST_BODY,
    )

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        super().__init__(url, lock_duration=lock_duration)
        self._location = location_of(url)
        self._prefix = self._location.prefix

    # --- connecting ---

    async def _connect(self) -> None:
        self._receiving = Link(self._location, "receives")
        self._sending = Link(self._location, "sends")
        self._publisher = Publisher(self._sending)
        self._settling = Settling(
            self._prefix,
            self._publisher,
            self._name_of_delay,
            lock_duration=self.lock_duration,
            deliveries_of=self.deliveries_of,
        )
        self._queues: dict[str, _Queue] = {}
        self._inboxes: list[RabbitmqInbox] = []
        try:
            await asyncio.gather(self._receiving.connection(), self._sending.connection())
        except BaseException:
            await self._close_links()
            raise

    async def _disconnect(self) -> None:
        here = await asyncio.gather(*(queue.tap.close() for queue in self._queues.values()))
        await self._settling.put_back_uncounted([one for some in here for one in some])
        await self._settling.close()
        await asyncio.gather(*(inbox.close() for inbox in self._inboxes), return_exceptions=True)
        await self._close_links()

    async def _close_links(self) -> None:
        await asyncio.gather(self._receiving.close(), self._sending.close(), return_exceptions=True)

    async def _check(self) -> None:
        await self._receiving.connection()
        # It is returned as one that reaches no queue, once the server has dealt with it.
        await self._publisher.reaches(f"{self._prefix}/check/{secrets.token_hex(8)}")

    async def _examine(self, longest_run: float | None) -> list[Finding]:
        connection = await self._receiving.connection()
        fault = None
        try:
            await self._check()
        except BrokerUnavailableError as error:
            fault = str(error)
        looked_at, conflicts = 0, {}
        for queue in {*self._queues, WEBHOOKS_QUEUE}:
            if await self._has_queue(queue):
                for name in names.lane_names(self._prefix, queue):
                    looked_at += 1
                    if refusal := await self._receiving.declare(name, names.QUORUM):
                        conflicts[name] = str(refusal)
        server = examining.of_server(connection.server_properties)
        queues = examining.of_queues(conflicts, looked_at)
        heartbeat = examining.of_heartbeat(self._location.heartbeat, self.lock_duration)
        return [queues, examining.of_alarms(fault), examining.of_locks(longest_run), *server, heartbeat]

    # --- queues ---

    async def _create_queue(self, queue: str) -> None:
        is_new = not await self._has_queue(queue)
        lanes = [names.lane_name(self._prefix, queue, lane) for lane in (HIGH, LOW, NORMAL)]
        # The one that has_queue() looks for comes last.
        for name in (names.dead_name(self._prefix, queue), names.register_name(self._prefix, queue), *lanes):
            refusal = await self._receiving.declare(name, names.QUORUM)
            if refusal is not None:
                raise ConfigError(self._told_of_other_kind(name, refusal))
        if is_new:
            await self._receiving.settle_names(names.throwaway_name(self._prefix, secrets.token_hex(8)))
        self._of(queue).checked.update((HIGH, LOW, NORMAL))

    async def _has_queue(self, queue: str) -> bool:
        if not is_queue_name(queue):
            return False
        try:
            await self._receiving.count(names.lane_name(self._prefix, queue, NORMAL))
        except MissingQueueError:
            return False
        self._of(queue)  # so that examine() looks at it
        return True

    async def _stats(self, queue: str) -> QueueStats:
        of_queue = self._of(queue)
        with _naming(queue):
            await self._check_kind(queue, {NORMAL})
            lanes = names.lane_names(self._prefix, queue)
            counts = [self._receiving.count(name, f"looks {lane}") for lane, name in enumerate(lanes)]
            dead_ones = self._receiving.count(names.dead_name(self._prefix, queue), "drawers")
            *ready, (buried, _) = await asyncio.gather(*counts, dead_ones)
            delayed = await of_queue.delays.count()
        return QueueStats(
            ready=sum(count for count, _ in ready), locked=None, delayed=delayed, dead=buried, oldest_age=None
        )

    # --- sending and receiving ---

    async def _send(self, queue: str, messages: Sequence[Message], delay: float) -> None:
        if not is_queue_name(queue):
            raise QueueNotFoundError(queue)
        copies = [(lane_of(message.priority), message.body, properties_of(message)) for message in messages]
        with _naming(queue):
            await self._publish_to(queue, copies, delay)

    async def _receive(self, queue: str, max_messages: int, max_wait: float) -> list[Delivery]:
        if not is_queue_name(queue):
            raise QueueNotFoundError(queue)
        tap = self._of(queue).tap
        until = time.monotonic() + max_wait
        while True:
            held = await tap.receive(min(max_messages, AT_ONCE), max(0.0, until - time.monotonic()))
            self.require_open()
            deliveries = await self._settling.accept(queue, held)
            # What nobody can read was dead-lettered, and the receiver has still time to wait.
            if deliveries or not held:
                return deliveries

    # --- settling ---

    async def _complete(self, deliveries: Sequence[Delivery]) -> None:
        await self._receiving.connection()
        await self._settling.complete(deliveries)

    async def _abandon(self, deliveries: Sequence[Delivery], delay: float, counted: bool) -> None:
        await self._receiving.connection()
        try:
            await self._settling.abandon(deliveries, delay, counted=counted)
        except QueueNotFoundError as error:
            self._of(error.queue).delays.forget()  # it may be one of those that the server has deleted
            raise

    async def _dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None:
        await self._receiving.connection()
        await self._settling.dead_letter(deliveries, reason, detail)

    async def _renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        await self._receiving.connection()
        return await self._settling.renew(deliveries)

    # --- dead letters ---

    async def _dead_letters(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        with _naming(queue):
            return await self._of(queue).dead_letters.page(limit, after)

    async def _redrive(self, queue: str, keys: Sequence[str] | None) -> int:

        async def send_again(letters: list[tuple[DeliveredMessage, Message]]) -> None:
            now = time.time()
            await self._publisher.publish(
                [
                    Copy(
                        names.lane_name(self._prefix, queue, lane_of(message.priority)),
                        one.body,
                        again(one.header.properties, message.id, before=0, now=now),
                    )
                    for one, message in letters
                ]
            )

        with _naming(queue):
            await self._receiving.count(names.lane_name(self._prefix, queue, NORMAL))
            return await self._of(queue).dead_letters.take(keys, send_again)

    async def _purge(self, queue: str, keys: Sequence[str] | None) -> int:

        async def nothing(_: list[tuple[DeliveredMessage, Message]]) -> None: ...

        with _naming(queue):
            await self._receiving.count(names.lane_name(self._prefix, queue, NORMAL))
            return await self._of(queue).dead_letters.take(keys, nothing)

    # --- request and reply ---

    async def _open_inbox(self) -> Inbox:
        inbox = RabbitmqInbox(self._prefix, self._receiving, require_open=self.require_open)
        await inbox.open()
        self._inboxes = [one for one in self._inboxes if one.is_open]
        self._inboxes.append(inbox)
        return inbox

    async def _reply(self, address: str, messages: Sequence[Message]) -> None:
        copies = []
        for message in messages:
            properties = properties_of(message)
            properties.delivery_mode = 1
            copies.append(Copy(address, message.body, properties))
        try:
            await self._publisher.publish(copies)
        except (MissingQueueError, ValueError):  # no queue's name is that long
            raise InboxGoneError(address) from None

    # --- inside ---

    def _of(self, queue: str) -> _Queue:
        found = self._queues.get(queue)
        if found is None:
            lanes = names.lane_names(self._prefix, queue)
            found = self._queues[queue] = _Queue(
                Tap(queue, lanes, self._receiving, self._settling.put_back_uncounted),
                DeadLetters(queue, names.dead_name(self._prefix, queue), self._receiving),
                Delays(self._prefix, queue, self._receiving, self._publisher),
            )
        return found

    async def _name_of_delay(self, queue: str, lane: int, delay: float) -> str:
        return await self._of(queue).delays.name_for(lane, delay)

    async def _publish_to(
        self, queue: str, messages: Sequence[tuple[int, bytes, Basic.Properties]], delay: float
    ) -> None:
        delays, copies = self._of(queue).delays, []
        await self._check_kind(queue, {lane for lane, _, _ in messages})
        for lane, body, properties in messages:
            name = names.lane_name(self._prefix, queue, lane) if delay <= 0 else await delays.name_for(lane, delay)
            copies.append(Copy(name, body, properties))
        try:
            await self._publisher.publish(copies)
        except MissingQueueError:
            delays.forget()
            self._of(queue).checked.clear()
            raise

    async def _check_kind(self, queue: str, lanes: set[int]) -> None:
        """Raise OtherKindError, and MissingQueueError, unless the *lanes* of *queue* are as create_queue() makes them.

        Of another kind no worker takes anything: whoever sends there would wait in vain.
        """
        checked = self._of(queue).checked
        for lane in sorted(lanes - checked):
            name = names.lane_name(self._prefix, queue, lane)
            await self._receiving.count(name)  # to declare one that is not there would make it
            refusal = await self._receiving.declare(name, names.QUORUM)
            if refusal is not None:
                raise OtherKindError(self._told_of_other_kind(name, refusal))
            checked.add(lane)

    def _told_of_other_kind(self, name: str, refusal: PreconditionError) -> str:
        return (
            f"{self._location.shown} has a queue {name!r} already, and it is another kind: {refusal}; "
            f"delete it when it is empty (rabbitmqctl delete_queue {name}), or choose another ?prefix="
        )


@contextlib.contextmanager
def _naming(queue: str) -> Iterator[None]:
    """A physical queue that is missing means that *queue* is."""
    try:
        yield
    except MissingQueueError:
        raise QueueNotFoundError(queue) from None
