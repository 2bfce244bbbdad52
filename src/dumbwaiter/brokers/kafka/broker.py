"""Apache Kafka without consumer groups: ``kafka://host:9092?option=value``; see location.py for all of it.

Each queue is three topics of messages, one a lane of priority; one of dead letters; and a ledger, a topic of one
partition that says who holds what. Whoever serves the queue reads the ledger, writes there what it wants to take or to
settle, and finds its outcome by its place among what others wrote: see ledger.py. So a lock is one message's, whatever
partition that lies in, and workers come and go without a rebalance.

Whoever knows nothing of dumbwaiter sends a value to the topic ``dumbwaiter.<queue>``.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Capabilities, Inbox
from dumbwaiter.brokers.kafka.examining import examine, largest_batch
from dumbwaiter.brokers.kafka.holding import Holding
from dumbwaiter.brokers.kafka.inbox import Inboxes
from dumbwaiter.brokers.kafka.link import Link
from dumbwaiter.brokers.kafka.location import USUAL_LIMIT, location_of
from dumbwaiter.brokers.kafka.names import LEDGER, topic_of
from dumbwaiter.brokers.kafka.queue import Queue
from dumbwaiter.brokers.kafka.reader import Reader
from dumbwaiter.brokers.kafka.reception import Reception
from dumbwaiter.brokers.kafka.replica import Replica
from dumbwaiter.brokers.kafka.tail import Tail
from dumbwaiter.brokers.kafka.telling import Telling
from dumbwaiter.brokers.kafka.topics import Topics
from dumbwaiter.brokers.kafka.wire import Record, headers_of, largest_body, message_nbytes
from dumbwaiter.brokers.served import ServedBroker
from dumbwaiter.errors import BrokerClosedError, BrokerError, BrokerUnavailableError, QueueNotFoundError
from dumbwaiter.policies.lanes import lane_of
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from dumbwaiter.brokers.findings import Finding
    from dumbwaiter.message import DeadLetter, Delivery, Message, QueueStats

_CLOSE_WITHIN = 10.0
"""Seconds that close() takes at most to hand back what is held."""


class KafkaBroker(ServedBroker):
    """Queues in Kafka. See the module text for *url*, and docs/brokers/kafka.md for what it can and cannot do."""

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
        portable_tokens=True,
        lists_queues=True,
        counts_ready=True,
        counts_dead=True,
        counts_locked=True,
        knows_gone_inboxes=False,  # a topic is there whoever reads it
        oldest_age=True,
        queue_position=False,
        killed_holder="taken_back",
        max_message_nbytes=largest_body(USUAL_LIMIT),
    )

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        self._location = location_of(url)
        super().__init__(url, lock_duration=lock_duration)
        self._limit(self._location.max_message_size or USUAL_LIMIT)
        self._opening: dict[str, asyncio.Task[Queue]] = {}

    def _limit(self, size: int) -> None:
        self.capabilities = msgspec.structs.replace(
            type(self).capabilities,
            max_message_nbytes=largest_body(size),
            ordered=self._location.partitions == 1,
        )

    # --- open and close ---

    async def _connect(self) -> None:
        self._link = Link(self._location, on_down=self._on_down)
        self._unsure: set[str] = set()
        self._tail = Tail(self._link, on_fault=self._on_fault)
        self._reader = Reader(self._link)
        self._topics = Topics(self._link)
        self._telling = Telling(self._link)
        self._inboxes = Inboxes(self._link, self._tail, self._topics, require_open=self.require_open)
        self._holding = Holding(
            self._link,
            self._reader,
            lock_duration=self.lock_duration,
            replica_of=self._replica_of,
            deliveries_of=self.deliveries_of,
        )
        await self._link.open()
        if self._location.max_message_size is None:
            try:
                self._link.largest = await largest_batch(self._link)
                self._limit(self._link.largest)
            except BaseException:
                await self._link.close()
                raise

    async def _disconnect(self) -> None:
        closed = BrokerClosedError()
        queues = [opening.result() for opening in self._opening.values() if _is_open(opening)]
        try:
            await end([opening for opening in self._opening.values() if not opening.done()])
            for queue in queues:
                await queue.reception.close(closed)
            await self._inboxes.close()
            with contextlib.suppress(TimeoutError):  # what could not be handed back is free when its lock ends
                async with asyncio.timeout(_CLOSE_WITHIN):
                    await self._holding.close()
        finally:
            for queue in queues:
                queue.replica.close(closed)
            self._opening.clear()
            await self._reader.close()
            await self._tail.close()
            await self._link.close()

    def _on_down(self, error: BrokerError) -> None:
        self._topics.lost()
        for queue in [queue for queue, opening in self._opening.items() if _is_open(opening)]:
            self._drop(queue, error)
        self._inboxes.fail(error)

    def _on_fault(self, topic: str) -> None:
        for queue, opening in list(self._opening.items()):
            if _is_open(opening) and topic == opening.result().replica.topics[LEDGER]:
                self._drop(queue, BrokerUnavailableError(f"{topic} cannot be read on; it is read anew"))

    def _drop(self, queue: str, error: BrokerError) -> None:
        """Know nothing of *queue* any more: whoever asks next reads its ledger anew."""
        dropped = self._opening.pop(queue).result()
        dropped.replica.close(error)
        dropped.reception.fail(error)

    async def _check(self) -> None:
        await self._inboxes.write_nothing()

    async def _examine(self, longest_run: float | None) -> list[Finding]:
        return await examine(self._link, await self._topics.queues(), lock=self.lock_duration, longest_run=longest_run)

    # --- queues ---

    async def _create_queue(self, queue: str) -> None:
        await self._topics.create(queue)

    async def _queue_names(self) -> list[str]:
        return await self._topics.queues()

    async def _has_queue(self, queue: str) -> bool:
        return await self._topics.has(queue)

    async def _queue(self, name: str) -> Queue:
        """The queue, its ledger read."""
        self.require_open()  # what goes on beside the verbs opens none once they are over
        await self._topics.require(name)
        opening = self._opening.get(name)
        if opening is None or (opening.done() and not _is_open(opening)):
            opening = self._opening[name] = asyncio.get_running_loop().create_task(self._open_queue(name))
            opening.add_done_callback(_seen)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled():
                raise BrokerClosedError from None
            raise

    async def _open_queue(self, name: str) -> Queue:
        replica = Replica(
            name,
            self._link,
            self._tail,
            # Of each its own: the calls of one that was dropped stand in the ledger, and are none of this one's.
            owner=secrets.token_hex(6),
            unsure=self._unsure,
            spawn=self._holding.spawn,
            stray=self._holding.give_back_stray,
        )
        try:
            await replica.open()
        except QueueNotFoundError:
            self._topics.forget(name)
            raise
        except BaseException:
            replica.close(BrokerClosedError())
            raise
        reception = Reception(
            replica,
            lock_duration=self.lock_duration,
            accept=self._holding.accept,
            give_back=self._holding.give_back,
        )
        return Queue(replica, self._reader, reception)

    async def _replica_of(self, queue: str) -> Replica:
        opening = self._opening.get(queue)
        if opening is not None and _is_open(opening):
            return opening.result().replica
        return (await self._queue(queue)).replica

    # --- sending ---

    def nbytes_of(self, message: Message) -> int:
        return message_nbytes(message)

    async def _send(self, queue: str, messages: Sequence[Message], delay: float) -> None:
        await self._topics.require(queue)
        until = time.time() + delay if delay > 0 else None
        lanes = [lane_of(message.priority) for message in messages]
        topics = {lane: topic_of(self._location.prefix, queue, lane) for lane in set(lanes)}
        places = await self._link.write(
            [
                Record(topics[lane], message.body, headers_of(message, due=until))
                for lane, message in zip(lanes, messages, strict=True)
            ]
        )
        positions = [(lane, *place) for lane, place in zip(lanes, places, strict=True)]
        if until is None:
            self._telling.sent(queue, positions)
        else:
            self._telling.postponed(queue, positions, until)

    # --- receiving and settling ---

    async def _receive(self, queue: str, max_messages: int, max_wait: float) -> list[Delivery]:
        return await (await self._queue(queue)).reception.receive(max_messages, max_wait)

    async def _complete(self, deliveries: Sequence[Delivery]) -> None:
        await self._holding.complete(deliveries)

    async def _abandon(self, deliveries: Sequence[Delivery], delay: float, counted: bool) -> None:
        await self._holding.abandon(deliveries, delay, counted=counted)

    async def _dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None:
        await self._holding.dead_letter(deliveries, reason, detail)

    async def _renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return await self._holding.renew(deliveries)

    # --- looking ---

    async def _stats(self, queue: str) -> QueueStats:
        return await (await self._queue(queue)).stats()

    async def _dead_letters(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        return await (await self._queue(queue)).dead_letters(limit, after)

    async def _is_dead_letter(self, queue: str, key: str) -> bool:
        return await (await self._queue(queue)).is_dead_letter(key)

    async def _redrive(self, queue: str, keys: Sequence[str] | None) -> int:
        return await (await self._queue(queue)).redrive(keys)

    async def _purge(self, queue: str, keys: Sequence[str] | None) -> int:
        return await (await self._queue(queue)).purge(keys)

    # --- request-reply ---

    async def _open_inbox(self) -> Inbox:
        return await self._inboxes.open()

    async def _reply(self, address: str, messages: Sequence[Message]) -> None:
        await self._inboxes.reply(address, messages)


def _is_open(opening: asyncio.Task[Queue]) -> bool:
    return opening.done() and not opening.cancelled() and opening.exception() is None


def _seen(opening: asyncio.Task[Queue]) -> None:
    """Whoever asked for it may have left."""
    if not opening.cancelled():
        opening.exception()
