"""Adapters that tell wrong things about their queues, do not close, or lose replies."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque

from breaking import Breaks, QueueBroker
from msgspec.structs import replace

from dumbwaiter.brokers.contract import Inbox
from dumbwaiter.brokers.memory import MemoryBroker, MemoryInbox, _SharedQueue
from dumbwaiter.brokers.memory_queue import MemoryQueue
from dumbwaiter.errors import BrokerClosedError, BrokerError, BrokerUnavailableError, InboxGoneError, QueueNotFoundError
from dumbwaiter.message import QueueStats

breaks = Breaks()

# --- queues and statistics ---

UNKNOWN = "test_an_unknown_queue_raises_naming_it"
COUNTS = "test_stats_count_what_is_ready_locked_delayed_and_dead"
AGE = "test_stats_tell_the_age_of_the_oldest_ready_message"


@breaks(UNKNOWN)
class TakesAnUnknownQueueForAnEmptyOne(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        try:
            return await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        except QueueNotFoundError:
            return []


@breaks("test_who_asks_for_no_message_gets_none_at_once_and_nothing_is_looked_at")
class LooksForTheQueueOfWhoAsksForNothing(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        self._queue(queue)
        return await super().receive(queue, max_messages=max_messages, max_wait=max_wait)


@breaks(UNKNOWN)
class CountsZeroInAnUnknownQueue(MemoryBroker):
    async def stats(self, queue):
        try:
            return await super().stats(queue)
        except QueueNotFoundError:
            return QueueStats(ready=0, locked=0, delayed=0, dead=0, oldest_age=0.0)


@breaks(UNKNOWN)
class CreatesQueuesOnSend(MemoryBroker):
    async def send(self, queue, messages, *, delay=0.0):
        await self.create_queue(queue)
        await super().send(queue, messages, delay=delay)


@breaks(UNKNOWN)
class RedrivesNothingFromAnUnknownQueue(MemoryBroker):
    async def redrive(self, queue, keys=None):
        return await super().redrive(queue, keys) if queue in self._server.queues else 0


@breaks(UNKNOWN)
class DoesNotNameTheUnknownQueue(MemoryBroker):
    def _queue(self, queue):
        try:
            return super()._queue(queue)
        except QueueNotFoundError:
            raise QueueNotFoundError("?") from None


@breaks("test_creating_a_queue_twice_keeps_what_it_holds")
class EmptiesAQueueThatIsCreatedAgain(MemoryBroker):
    async def create_queue(self, queue):
        self._check_open()
        self._server.queues[queue] = _SharedQueue(queue)


@breaks("test_queues_lists_all_names_in_order")
class ListsQueuesAsTheyWereMade(MemoryBroker):
    async def queues(self):
        return list(self._server.queues)


@breaks("test_queues_lists_all_names_in_order")
class ListsTheQueuesOfDeadLettersToo(MemoryBroker):
    async def queues(self):
        return sorted(name for queue in self._server.queues for name in (queue, f"{queue}.dead"))


@breaks("test_queue_names_may_hold_dots_dashes_and_capitals")
class KnowsQueuesBySmallLetters(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        deliveries = await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        return [replace(one, queue=one.queue.lower()) for one in deliveries]


LONG = "test_a_queue_name_may_be_as_long_as_the_contract_says"


@breaks(LONG)
class CutsLongNames(MemoryBroker):
    async def _create_queue(self, queue):
        await super()._create_queue(queue[:60])

    def _queue(self, queue):
        return super()._queue(queue[:60])


@breaks(LONG)
class TakesShortNamesOnly(MemoryBroker):
    async def _create_queue(self, queue):
        if len(queue) > 60:
            raise BrokerError("the product takes 60 characters")
        await super()._create_queue(queue)


@breaks("test_a_name_that_not_every_broker_takes_is_refused_for_a_queue")
class TakesAnyTextForAName(MemoryBroker):
    async def create_queue(self, queue):
        await self._create_queue(queue)


class Counting(MemoryBroker):
    """Tells of what it counted what becomes of it in change()."""

    def change(self, stats):
        return stats

    async def stats(self, queue):
        return self.change(await super().stats(queue))


@breaks(COUNTS)
class CountsLockedMessagesAsReadyToo(Counting):
    def change(self, stats):
        return replace(stats, ready=stats.ready + stats.locked)


@breaks(COUNTS)
class ForgetsWhatIsDelayed(Counting):
    def change(self, stats):
        return replace(stats, delayed=0)


@breaks(COUNTS)
class ForgetsWhatIsDead(Counting):
    def change(self, stats):
        return replace(stats, dead=0)


@breaks(COUNTS)
class CountsOnlyItsOwnLocks(QueueBroker):
    async def stats(self, queue):
        stats = await super().stats(queue)
        locks = self._queue(queue).state._locks.values()
        return replace(stats, locked=sum(entry.owner is self for line in locks for entry in line.values()))


@breaks(AGE)
class TellsAgesInMilliseconds(Counting):
    def change(self, stats):
        return replace(stats, oldest_age=stats.oldest_age * 1000)


@breaks(AGE)
class TellsTheAgeOfTheNewest(QueueBroker):
    class state(MemoryQueue):  # noqa: N801 - an attribute of QueueBroker
        def stats(self, *, now):
            ages = [now - since for heap in self._heaps.values() for since, _, _ in heap]
            return replace(super().stats(now=now), oldest_age=min(ages, default=0.0))


@breaks(AGE)
class TellsNoAge(Counting):
    def change(self, stats):
        return replace(stats, oldest_age=0.0)


@breaks("test_an_age_that_a_broker_cannot_tell_is_none_and_no_guess")
class GuessesAnAgeThatItCannotTell(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, oldest_age=False)


# --- check ---

CHECK = "test_a_check_of_a_broker_that_works_returns_and_changes_nothing"


@breaks(CHECK)
class ChecksWithAQueueOfItsOwn(MemoryBroker):
    async def check(self):
        await self.create_queue("health")


@breaks(CHECK)
class ChecksWithTheFirstMessageAtHand(MemoryBroker):
    async def check(self):
        for queue in await self.queues():
            await self.receive(queue, max_messages=1, max_wait=0.0)


@breaks(CHECK)
class IsNeverWell(MemoryBroker):
    async def check(self):
        raise BrokerUnavailableError("the product has no such call")


# --- closing ---


@breaks("test_every_verb_of_a_closed_broker_raises")
class LooksWellWhenClosed(MemoryBroker):
    async def check(self):
        pass


@breaks("test_every_verb_of_a_closed_broker_raises")
class WorksOnWhenClosed(MemoryBroker):
    async def close(self):
        await super().close()
        self._is_open = True


@breaks("test_every_verb_of_a_closed_broker_raises")
class CompletesInSilenceWhenClosed(MemoryBroker):
    async def complete(self, deliveries):
        with contextlib.suppress(BrokerClosedError):
            await super().complete(deliveries)


@breaks("test_closing_twice_is_no_error")
class RaisesOnTheSecondClose(MemoryBroker):
    async def close(self):
        self._check_open()
        await super().close()


@breaks("test_a_receiver_that_waits_learns_that_its_broker_was_closed")
class LeavesReceiversWaitingWhenClosed(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        with contextlib.suppress(BrokerClosedError):
            return await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        await asyncio.sleep(max_wait)
        return []


@breaks("test_a_receiver_that_waits_learns_that_its_broker_was_closed")
class ReturnsNothingToReceiversWhenClosed(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        try:
            return await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        except BrokerClosedError:
            return []


# --- inboxes ---

ROUND_TRIP = "test_a_reply_reaches_the_inbox_that_asked_with_its_correlation_id"
READ_ONCE = "test_a_reply_is_read_once_and_an_empty_inbox_waits_at_most_max_wait"


@breaks(ROUND_TRIP)
class LosesTheCorrelationId(MemoryBroker):
    async def reply(self, address, messages):
        await super().reply(address, [replace(message, correlation_id=None) for message in messages])


@breaks("test_a_reply_arrives_unchanged_with_all_attributes")
class DropsTheExtensionsOfReplies(MemoryBroker):
    async def reply(self, address, messages):
        await super().reply(address, [replace(message, extensions={}) for message in messages])


@breaks("test_many_replies_from_several_workers_all_arrive")
class KeepsFewReplies(MemoryBroker):
    async def open_inbox(self):
        inbox = await super().open_inbox()
        inbox._messages = deque(maxlen=50)
        return inbox


class InboxBroker(MemoryBroker):
    """A memory broker with a broken *inbox*."""

    inbox: type[MemoryInbox]

    async def open_inbox(self) -> Inbox:
        inbox = await super().open_inbox()
        inbox.__class__ = self.inbox
        inbox.broker = self
        return inbox


@breaks("test_two_inboxes_do_not_mix")
class HasOneInboxForAll(MemoryBroker):
    async def open_inbox(self):
        inbox = await super().open_inbox()
        inbox._messages = vars(self._server).setdefault("replies", inbox._messages)
        return inbox


@breaks("test_a_reply_of_1_mib_arrives_unchanged")
class CutsRepliesAt64KiB(MemoryBroker):
    async def reply(self, address, messages):
        await super().reply(address, [replace(message, body=message.body[: 64 * 1024]) for message in messages])


@breaks("test_a_reply_wakes_a_reader_that_waits")
class DoesNotWakeReaders(InboxBroker):
    class inbox(MemoryInbox):  # noqa: N801 - an attribute of InboxBroker
        def put(self, messages):
            self._messages.extend(messages)


@breaks(READ_ONCE)
class HandsOutRepliesTwice(InboxBroker):
    class inbox(MemoryInbox):  # noqa: N801
        def put(self, messages):
            super().put([*messages, *messages])


@breaks(READ_ONCE)
class ReturnsMoreRepliesThanAskedFor(InboxBroker):
    class inbox(MemoryInbox):  # noqa: N801
        async def receive(self, *, max_messages, max_wait):
            return await super().receive(max_messages=1000, max_wait=max_wait)


@breaks(READ_ONCE)
class GivesUpReadingTooEarly(InboxBroker):
    class inbox(MemoryInbox):  # noqa: N801
        async def receive(self, *, max_messages, max_wait):
            return await super().receive(max_messages=max_messages, max_wait=max_wait / 4)


@breaks("test_an_inbox_can_be_iterated")
class EndsIterationAfterTheFirst(InboxBroker):
    class inbox(MemoryInbox):  # noqa: N801
        async def __aiter__(self):
            for message in await self.receive(max_messages=1, max_wait=60.0):
                yield message


@breaks("test_a_cancelled_read_of_an_inbox_loses_no_reply")
class LosesRepliesWhenCancelledAtTheWrongMoment(InboxBroker):
    class inbox(MemoryInbox):  # noqa: N801
        async def receive(self, *, max_messages, max_wait):
            messages = await super().receive(max_messages=max_messages, max_wait=max_wait)
            for _ in range(3):
                await asyncio.sleep(0)  # decodes the replies
            return messages


@breaks("test_a_reply_to_a_closed_inbox_raises_inbox_gone")
class SwallowsRepliesToNobody(MemoryBroker):
    async def reply(self, address, messages):
        with contextlib.suppress(InboxGoneError):
            await super().reply(address, messages)


@breaks("test_a_reply_to_the_inbox_of_a_closed_broker_raises_inbox_gone")
class LeavesItsInboxesOpenWhenClosed(MemoryBroker):
    async def close(self):
        self._inboxes.clear()
        await super().close()


class Deaf(MemoryInbox):
    async def receive(self, *, max_messages, max_wait):
        with contextlib.suppress(BrokerClosedError):
            return await super().receive(max_messages=max_messages, max_wait=max_wait)
        await asyncio.sleep(max_wait)
        return []


@breaks("test_a_reader_that_waits_learns_that_its_inbox_was_closed")
class LeavesReadersOfAClosedInboxWaiting(InboxBroker):
    inbox = Deaf


@breaks("test_a_reader_that_waits_learns_that_its_broker_was_closed")
class LeavesReadersOfAClosedBrokerWaiting(InboxBroker):
    inbox = Deaf


EXAMINES = "test_an_examination_says_what_the_broker_guarantees_and_changes_nothing"


@breaks(EXAMINES)
class SaysNothingOfDurability(MemoryBroker):
    async def examine(self, *, longest_run=None):
        return []


@breaks(EXAMINES)
class WarnsWithoutARemedy(MemoryBroker):
    async def examine(self, *, longest_run=None):
        return [replace(one, remedy="") for one in await super().examine(longest_run=longest_run)]


@breaks("test_brokers_that_were_closed_leave_no_descriptor_open")
class KeepsAPipeOfEachConnection(MemoryBroker):
    async def open(self):
        await super().open()
        os.pipe()
