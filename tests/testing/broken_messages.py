"""Adapters that break what they are given to send, or hand it out wrongly."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from breaking import ONE, Breaks, QueueBroker
from msgspec.structs import replace

from dumbwaiter.brokers.memory import MemoryBroker, _SharedQueue
from dumbwaiter.brokers.memory_queue import MemoryQueue, _Place
from dumbwaiter.errors import BrokerError, MessageTooLargeError
from dumbwaiter.message import Message

breaks = Breaks()


class Sending(MemoryBroker):
    """Sends what becomes of each message in change()."""

    def change(self, message):
        return message

    async def send(self, queue, messages, *, delay=0.0):
        await super().send(queue, [self.change(message) for message in messages], delay=delay)


@breaks("test_a_message_arrives_unchanged_with_a_non_utf8_body_and_all_attributes")
class DecodesBodiesAsUtf8(Sending):
    def change(self, message):
        return replace(message, body=message.body.decode("utf-8", "replace").encode())


@breaks("test_a_message_arrives_unchanged_with_a_non_utf8_body_and_all_attributes")
class DropsExtensions(Sending):
    def change(self, message):
        return replace(message, extensions={})


@breaks("test_a_message_arrives_unchanged_with_a_non_utf8_body_and_all_attributes")
class RoundsTimesToSeconds(Sending):
    def change(self, message):
        return replace(message, deadline=message.deadline and float(int(message.deadline)))


@breaks("test_a_message_arrives_unchanged_with_a_non_utf8_body_and_all_attributes")
class TellsTheEndOfLocksByTheWallClock(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        deliveries = await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        return [replace(delivery, locked_until=delivery.locked_until + 1.7e9) for delivery in deliveries]


@breaks("test_a_message_without_attributes_arrives_unchanged_with_an_empty_body")
class TurnsAbsentAttributesIntoEmptyText(Sending):
    def change(self, message):
        return replace(message, subject=message.subject or "")


ANY_CONTENT_TYPE = "test_any_content_type_arrives_unchanged_and_harms_no_other_message_of_its_batch"


@breaks(ANY_CONTENT_TYPE)
class DropsContentTypesThatAreNotAscii(Sending):
    def change(self, message):
        is_odd = not (message.content_type or "").isascii()
        return replace(message, content_type=None) if is_odd else message


@breaks(ANY_CONTENT_TYPE)
class MakesOneMessageOfABatchWithAnOddContentType(MemoryBroker):
    async def send(self, queue, messages, *, delay=0.0):
        if not all((one.content_type or "").isascii() for one in messages):
            messages = [replace(messages[0], body=b"".join(one.body for one in messages))]
        await super().send(queue, messages, delay=delay)


@breaks("test_an_empty_batch_is_a_no_op_for_every_verb")
class SendsAnEmptyBatchAsAnEmptyMessage(MemoryBroker):
    async def send(self, queue, messages, *, delay=0.0):
        await super().send(queue, messages or [Message()], delay=delay)


@breaks("test_a_batch_of_messages_arrives_whole_and_once", keeps=ONE)
class LosesTheLastOfABatch(MemoryBroker):
    async def send(self, queue, messages, *, delay=0.0):
        await super().send(queue, messages[: max(len(messages) - 1, 1)], delay=delay)


@breaks("test_a_send_of_several_hundred_messages_arrives_whole")
class SendsAtMostAHundredInOneGo(MemoryBroker):
    async def send(self, queue, messages, *, delay=0.0):
        await super().send(queue, messages[:100], delay=delay)


@breaks("test_a_body_of_1_mib_arrives_unchanged")
class CutsBodiesAt256KiB(Sending):
    def change(self, message):
        return replace(message, body=message.body[: 256 * 1024])


class Limited(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, max_message_nbytes=1000)


OVER_THE_LIMIT = "test_a_message_over_the_limit_raises_and_nothing_of_its_batch_is_sent"


@breaks(OVER_THE_LIMIT)
class AcceptsWhatIsOverItsLimit(Limited):
    async def send(self, queue, messages, *, delay=0.0):
        with self._queue(queue).line.lock:
            self._queue(queue).state.send(messages, delay=delay, now=asyncio.get_running_loop().time())


@breaks(OVER_THE_LIMIT)
class SendsABatchUpToTheOneThatIsTooLarge(Limited):
    async def send(self, queue, messages, *, delay=0.0):
        for message in messages:
            await super().send(queue, [message], delay=delay)


@breaks(OVER_THE_LIMIT)
class DoesNotTellItsLimit(Limited):
    async def send(self, queue, messages, *, delay=0.0):
        try:
            await super().send(queue, messages, delay=delay)
        except MessageTooLargeError:
            raise MessageTooLargeError(0, 0) from None


@breaks("test_messages_of_equal_priority_come_in_the_order_in_which_they_were_sent")
class ServesTheNewestFirst(QueueBroker):
    class state(MemoryQueue):  # noqa: N801 - an attribute of QueueBroker
        def _append(self, message, since, now):
            super()._append(message, min(since, now - self._seq), now)


@breaks("test_a_larger_priority_is_served_first_whenever_it_was_sent")
class ServesTheSmallestPriorityFirst(Sending):
    async def receive(self, queue, *, max_messages, max_wait):
        deliveries = await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        return [replace(one, message=replace(one.message, priority=-one.message.priority)) for one in deliveries]

    def change(self, message):
        return replace(message, priority=-message.priority)


@breaks("test_a_message_sent_with_a_delay_comes_after_it")
class IgnoresTheDelayOfSend(MemoryBroker):
    async def send(self, queue, messages, *, delay=0.0):
        await super().send(queue, messages)


@breaks("test_a_delay_that_ends_wakes_a_waiting_receiver")
class DoesNotWakeWhenADelayEnds(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def next_event(self):
            return None


@breaks("test_a_second_send_of_the_same_message_id_is_dropped")
class DeduplicatesOnlyWhatStillWaits(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def _remember(self, message_id, now):
            self._present.pop(message_id, None)


@breaks("test_an_id_that_comes_twice_in_one_send_is_one_message")
class DeduplicatesOnlyAcrossSends(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def send(self, messages, *, delay, now):
            unknown = [one for one in messages if one.id not in self._present and one.id not in self._gone]
            for message in unknown:
                self._present.pop(message.id, None)
                super().send([message], delay=delay, now=now)


@breaks("test_the_same_message_id_may_travel_in_two_queues")
class DeduplicatesAcrossQueues(QueueBroker):
    async def create_queue(self, queue):
        await super().create_queue(queue)
        self._server.queues[queue].state._present = vars(self._server).setdefault("ids", {})


@breaks("test_two_queues_do_not_mix")
class MixesQueues(MemoryBroker):
    async def create_queue(self, queue):
        self._check_open()
        everything = next(iter(self._server.queues.values()), None) or _SharedQueue(queue)
        self._server.queues.setdefault(queue, everything)


@breaks("test_receive_never_returns_more_than_was_asked_for")
class ReturnsOneMoreThanAskedFor(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        return await super().receive(queue, max_messages=max_messages + 1, max_wait=max_wait)


@breaks("test_receive_returns_early_with_what_there_is")
class WaitsToFillTheBatch(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        give_up_at = asyncio.get_running_loop().time() + max_wait
        deliveries = []
        while (missing := max_messages - len(deliveries)) > 0:
            left = give_up_at - asyncio.get_running_loop().time()
            deliveries += await super().receive(queue, max_messages=missing, max_wait=left)
            if left <= 0:
                break
        return deliveries


@breaks("test_receive_waits_at_most_max_wait_and_no_less")
class GivesUpTooEarly(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        return await super().receive(queue, max_messages=max_messages, max_wait=max_wait / 4)


@breaks("test_receive_waits_at_most_max_wait_and_no_less")
class WaitsTooLong(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        return await super().receive(queue, max_messages=max_messages, max_wait=max_wait * 1000)


@breaks("test_receive_without_a_wait_returns_at_once")
class AlwaysWaits(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        return await super().receive(queue, max_messages=max_messages, max_wait=max_wait or 60.0)


@breaks("test_a_message_wakes_a_receiver_that_waits")
class LooksAgainOnlyWhenTheWaitIsOver(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        if not (deliveries := await super().receive(queue, max_messages=max_messages, max_wait=0.0)):
            await asyncio.sleep(max_wait)
            deliveries = await super().receive(queue, max_messages=max_messages, max_wait=0.0)
        return deliveries


@breaks("test_a_locked_message_is_hidden_from_competitors")
class HandsOutLockedMessages(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def take(self, max_messages, **where):
            locked = [self._delivery(entry) for entry in self._by_token.values() if entry.place is _Place.LOCKED]
            return super().take(max_messages, **where) or locked[:max_messages]


@breaks("test_each_message_goes_to_exactly_one_of_several_consumers")
class HandsOutABatchTwice(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def take(self, max_messages, *, owner, **where):
            before, taker = vars(self).get("taken", ([], owner))
            taken = super().take(max_messages, owner=owner, **where)
            self.taken = (taken, owner)
            return taken if taken or taker is owner else before[:max_messages]


@breaks("test_a_cancelled_receive_locks_nothing_that_comes_later")
class GoesOnReceivingWhenCancelled(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        receiving = asyncio.ensure_future(super().receive(queue, max_messages=max_messages, max_wait=max_wait))
        vars(self).setdefault("receiving", set()).add(receiving)
        return await asyncio.shield(receiving)

    async def close(self):
        await super().close()
        await asyncio.gather(*vars(self).get("receiving", ()), return_exceptions=True)


@breaks("test_a_receive_cancelled_while_messages_come_loses_none")
class KeepsTheLockWhenCancelledAtTheWrongMoment(MemoryBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        deliveries = await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        for _ in range(3):
            await asyncio.sleep(0)  # decodes the messages
        return deliveries


class WakesByHand(MemoryBroker):
    """Wakes receivers one by one, and forgets that those may have been cancelled since."""

    woken_by_batch: int | None = None

    def sleepers(self, queue):
        return vars(self._server).setdefault("sleepers", defaultdict(list))[queue]

    async def receive(self, queue, *, max_messages, max_wait):
        give_up_at = asyncio.get_running_loop().time() + max_wait
        while True:
            deliveries = await super().receive(queue, max_messages=max_messages, max_wait=0.0)
            left = give_up_at - asyncio.get_running_loop().time()
            if deliveries or left <= 0:
                return deliveries
            sleeper = asyncio.get_running_loop().create_future()
            self.sleepers(queue).append(sleeper)
            await asyncio.wait([sleeper], timeout=left)

    async def send(self, queue, messages, *, delay=0.0):
        await super().send(queue, messages, delay=delay)
        for _ in messages[: self.woken_by_batch]:
            if sleepers := self.sleepers(queue):
                sleepers.pop(0).set_result(None)


@breaks("test_a_receiver_cancelled_while_messages_come_leaves_them_to_the_next_that_waits")
class WakesThoseWhoHaveLeft(WakesByHand):
    pass


@breaks("test_a_batch_wakes_as_many_receivers_as_it_can_serve")
class WakesOneReceiverForAWholeBatch(WakesByHand):
    woken_by_batch = 1


class OneConnection(MemoryBroker):
    def __init__(self, url, *, lock_duration):
        super().__init__(url, lock_duration=lock_duration)
        self.connection = asyncio.Lock()


@breaks("test_a_receive_that_waits_holds_up_no_other_verb_of_its_broker")
class WaitsOnTheConnectionOfAllVerbs(OneConnection):
    async def receive(self, queue, *, max_messages, max_wait):
        async with self.connection:
            return await super().receive(queue, max_messages=max_messages, max_wait=max_wait)

    async def send(self, queue, messages, *, delay=0.0):
        async with self.connection:
            await super().send(queue, messages, delay=delay)


@breaks("test_every_verb_may_be_called_from_many_tasks_at_once")
class TakesTheAnswerOfAnotherCallForItsOwn(MemoryBroker):
    async def renew_lock(self, deliveries):
        self.answer = await super().renew_lock(deliveries)
        await asyncio.sleep(0)
        return self.answer


# --- delays that the product cannot keep ---

NO_DELAY = "test_a_delay_that_the_product_cannot_keep_is_none"


@breaks(NO_DELAY)
class RefusesADelayThatItCannotKeep(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, send_delay=False)

    async def send(self, queue, messages, *, delay=0.0):
        if delay:
            raise BrokerError("the product knows no delays")
        await super().send(queue, messages)


@breaks(NO_DELAY)
class LosesWhatItCannotDelay(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, abandon_delay=False)

    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        await (self.complete(deliveries) if delay else super().abandon(deliveries, counted=counted))


LANES = "test_priorities_that_are_lanes_serve_the_high_ones_mostly_and_the_low_ones_too"


@breaks(LANES)
class StarvesItsLowLanes(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, strict_priority=False)


@breaks(LANES)
class ServesAllLanesAlike(Sending):
    capabilities = replace(MemoryBroker.capabilities, strict_priority=False)

    def change(self, message):
        return replace(message, priority=0)
