"""Adapters that tell wrong places in line."""

from __future__ import annotations

import contextlib

from breaking import Breaks, QueueBroker

from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.brokers.memory_queue import MemoryQueue
from dumbwaiter.errors import BrokerClosedError, QueueNotFoundError

breaks = Breaks()

COUNTS = "test_a_position_counts_the_messages_that_are_served_before"
PRIORITY = "test_a_position_follows_priority_and_then_the_order_of_sending"
NONE = "test_a_message_that_does_not_wait_has_no_position"
BACK = "test_a_message_that_comes_back_has_a_position_again"
UNKNOWN = "test_an_unknown_queue_raises_naming_it"
CLOSED = "test_every_verb_of_a_closed_broker_raises"


@breaks(COUNTS, keeps=BACK)
class AlwaysSaysThatItIsNext(MemoryBroker):
    async def position(self, queue, message_id):
        return None if await super().position(queue, message_id) is None else 0


@breaks(COUNTS)
class CountsFromOne(MemoryBroker):
    async def position(self, queue, message_id):
        position = await super().position(queue, message_id)
        return None if position is None else position + 1


@breaks(COUNTS)
class KnowsOnlyWhatItSentItself(MemoryBroker):
    async def send(self, queue, messages, *, delay=0.0):
        self.sent = {*getattr(self, "sent", ()), *(message.id for message in messages)}
        await super().send(queue, messages, delay=delay)

    async def position(self, queue, message_id):
        return await super().position(queue, message_id) if message_id in getattr(self, "sent", ()) else None


class ByArrival(MemoryQueue):
    def position(self, message_id, *, limit, now):
        waiting = [item for heap in self._heaps.values() for item in heap]
        ids = [entry.message.id for *_, entry in sorted(waiting, key=lambda item: item[:2])]
        return None if super().position(message_id, limit=limit, now=now) is None else ids.index(message_id)


@breaks(PRIORITY, keeps=COUNTS)
class CountsAllThatWereSentBefore(QueueBroker):
    state = ByArrival


@breaks(PRIORITY, keeps=COUNTS)
class CountsOnlyItsOwnPriority(QueueBroker):
    class state(MemoryQueue):  # noqa: N801 - an attribute of QueueBroker
        def position(self, message_id, *, limit, now):
            position = super().position(message_id, limit=limit, now=now)
            if position is None:
                return None
            own = self._present[message_id].message.priority
            return position - sum(len(heap) for priority, heap in self._heaps.items() if priority > own)


@breaks(NONE, keeps=COUNTS)
class TakesTheUnknownForTheNextOne(MemoryBroker):
    async def position(self, queue, message_id):
        return await super().position(queue, message_id) or 0


@breaks(NONE, keeps=COUNTS)
class CountsTheDelayedAsWaiting(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def position(self, message_id, *, limit, now):
            position = super().position(message_id, limit=limit, now=now)
            return None if position is None else position + len(self._delayed)


@breaks(NONE, keeps=COUNTS)
class LooksInAllQueues(MemoryBroker):
    async def position(self, queue, message_id):
        for name in [queue, *await self.queues()]:
            if (position := await super().position(name, message_id)) is not None:
                return position
        return None


@breaks(BACK, keeps=COUNTS)
class ForgetsThePlaceOfWhatWasDelivered(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def position(self, message_id, *, limit, now):
            position = super().position(message_id, limit=limit, now=now)
            return None if position is None or self._present[message_id].handed_out else position


@breaks(BACK, keeps=COUNTS)
class FreesLocksOnlyWhenSomebodyReceives(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def position(self, message_id, *, limit, now):
            return super().position(message_id, limit=limit, now=float("-inf"))


@breaks(UNKNOWN, keeps=COUNTS)
class NobodyWaitsInAnUnknownQueue(MemoryBroker):
    async def position(self, queue, message_id):
        with contextlib.suppress(QueueNotFoundError):
            return await super().position(queue, message_id)
        return None


@breaks(CLOSED, keeps=COUNTS)
class NobodyWaitsWhenClosed(MemoryBroker):
    async def position(self, queue, message_id):
        with contextlib.suppress(BrokerClosedError):
            return await super().position(queue, message_id)
        return None
