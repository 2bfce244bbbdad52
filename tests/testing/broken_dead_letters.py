"""Adapters that spoil their dead letters."""

from __future__ import annotations

import time

from breaking import Breaks, PutsLast, QueueBroker
from msgspec.structs import replace

from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.brokers.memory_queue import MemoryQueue

breaks = Breaks()

MOVES = "test_a_dead_lettered_message_moves_with_its_reason_and_detail"
READS = "test_dead_letters_can_be_read_again_and_counted"
COMES_BACK = "test_redriven_dead_letters_come_back_with_a_fresh_count"
PAGES = "test_dead_letters_can_be_read_page_by_page"
ANEW = "test_a_purged_message_id_may_be_sent_anew"
PURGES = "test_purging_deletes_dead_letters_only"


class Letters(MemoryBroker):
    """Shows dead letters as they come out of change()."""

    def change(self, letter):
        return letter

    async def dead_letters(self, queue, *, limit=100, after=None):
        return [self.change(letter) for letter in await super().dead_letters(queue, limit=limit, after=after)]


@breaks(MOVES)
class DeadLettersHaveNoReason(Letters):
    def change(self, letter):
        return replace(letter, reason="rejected")


@breaks(MOVES)
class DeadLettersHaveNoDetail(Letters):
    def change(self, letter):
        return replace(letter, detail="")


@breaks(MOVES)
class DeadLettersHaveNoCount(Letters):
    def change(self, letter):
        return replace(letter, delivery_count=1)


@breaks(MOVES)
class DeadLettersDieByTheMonotonicClock(Letters):
    def change(self, letter):
        return replace(letter, dead_at=time.monotonic())


@breaks(MOVES)
class DeletesWhatIsDeadLettered(MemoryBroker):
    async def dead_letter(self, deliveries, *, reason, detail=""):
        await self.complete(deliveries)


@breaks(READS)
class ConsumesDeadLettersOnReading(MemoryBroker):
    async def dead_letters(self, queue, *, limit=100, after=None):
        letters = await super().dead_letters(queue, limit=limit, after=after)
        await self.purge(queue, [letter.key for letter in letters])
        return letters


@breaks(READS)
class IgnoresTheLimitOfDeadLetters(MemoryBroker):
    async def dead_letters(self, queue, *, limit=100, after=None):
        return await super().dead_letters(queue, after=after)


@breaks("test_the_oldest_dead_letters_come_first")
class ShowsTheNewestDeadLettersFirst(MemoryBroker):
    async def dead_letters(self, queue, *, limit=100, after=None):
        return list(reversed(await super().dead_letters(queue, after=after)))[:limit]


@breaks(PAGES)
class ShowsTheFirstPageAgainAndAgain(MemoryBroker):
    async def dead_letters(self, queue, *, limit=100, after=None):
        return await super().dead_letters(queue, limit=limit)


@breaks(PAGES)
class StartsOverWhenTheKeyIsGone(MemoryBroker):
    async def dead_letters(self, queue, *, limit=100, after=None):
        keys = [letter.key for letter in await super().dead_letters(queue)]
        return await super().dead_letters(queue, limit=limit, after=after if after in keys else None)


@breaks(PAGES)
class TakesAnyTextForAKey(MemoryBroker):
    async def dead_letters(self, queue, *, limit=100, after=None):
        if after is not None and not after.isdecimal():
            return []
        return await super().dead_letters(queue, limit=limit, after=after)


@breaks(COMES_BACK)
class KeepsTheCountOnRedrive(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def redrive(self, keys, *, now):
            counts = {letter.message.id: letter.delivery_count for letter in self._dead.values()}
            redriven = super().redrive(keys, now=now)
            for _, _, entry in [item for heap in self._heaps.values() for item in heap]:
                entry.count = counts.get(entry.message.id, entry.count)
            return redriven


@breaks(COMES_BACK)
class DropsAttributesOnRedrive(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def _take_dead(self, keys):
            bare = {"extensions": {}, "tenant": None}
            return [replace(one, message=replace(one.message, **bare)) for one in super()._take_dead(keys)]


@breaks(COMES_BACK)
class DropsRedrivenMessagesAsKnown(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def redrive(self, keys, *, now):
            letters = self._take_dead(keys)
            self.send([letter.message for letter in letters], delay=0.0, now=now)
            return len(letters)


@breaks("test_a_redriven_dead_letter_is_served_by_its_priority")
class ServesRedrivenMessagesLast(QueueBroker):
    class state(PutsLast):  # noqa: N801
        def is_put_last(self, entry):
            return entry.message.id in vars(self).get("died", ())

        def dead_letter(self, delivery, **why):
            vars(self).setdefault("died", set()).add(delivery.message.id)
            return super().dead_letter(delivery, **why)


@breaks("test_redriving_by_key_moves_only_those")
class RedrivesAllWhateverTheKeys(MemoryBroker):
    async def redrive(self, queue, keys=None):
        return await super().redrive(queue)


@breaks("test_a_dead_letter_can_be_asked_for_until_it_is_redriven_or_purged")
class RemembersKeysForEver(MemoryBroker):
    async def is_dead_letter(self, queue, key):
        return key.isdecimal()


@breaks("test_redriving_or_purging_an_empty_list_of_keys_touches_nothing")
class TakesNoKeysForAllKeys(MemoryBroker):
    async def redrive(self, queue, keys=None):
        return await super().redrive(queue, keys or None)


@breaks("test_a_redriven_dead_letter_wakes_a_receiver_that_waits")
class DoesNotWakeForRedrivenMessages(MemoryBroker):
    async def redrive(self, queue, keys=None):
        return self._queue(queue).state.redrive(keys, now=time.monotonic())


@breaks(PURGES)
class PurgesAllWhateverTheKeys(MemoryBroker):
    async def purge(self, queue, keys=None):
        return await super().purge(queue)


@breaks(PURGES)
class PurgesWhatIsReadyToo(MemoryBroker):
    async def purge(self, queue, keys=None):
        purged = await super().purge(queue, keys)
        ready = await self.receive(queue, max_messages=100, max_wait=0.0)
        await self.complete(ready)
        return purged


@breaks(ANEW)
class RemembersWhatWasPurged(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def purge(self, keys):
            ids = [letter.message.id for letter in self._dead.values()]
            purged = super().purge(keys)
            for message_id in ids:
                self._remember(message_id, time.monotonic())
            return purged


@breaks("test_a_second_send_of_an_id_that_is_dead_by_now_is_dropped")
class ForgetsTheIdsOfTheDead(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def dead_letter(self, delivery, **why):
            self._present.pop(delivery.message.id, None)
            return super().dead_letter(delivery, **why)
