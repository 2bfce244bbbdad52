"""Adapters whose locks do not lock, or whose settling does not settle."""

from __future__ import annotations

import contextlib
import time

from breaking import ONE, Breaks, PutsLast, QueueBroker
from msgspec.structs import replace

from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.brokers.memory_queue import MemoryQueue, _Place
from dumbwaiter.errors import LockLostError

breaks = Breaks()

# --- locks ---

RUNS_OUT = "test_a_lock_that_runs_out_frees_the_message_with_its_count_raised"
KEEPS = "test_renewing_keeps_the_lock_beyond_its_first_length"
RENEWS_SEVERAL = "test_renewing_several_renews_those_that_are_still_held_and_names_the_lost"


@breaks(RUNS_OUT)
class LocksForever(QueueBroker):
    class state(MemoryQueue):  # noqa: N801 - an attribute of QueueBroker
        def _lock(self, entry, lock_duration, now):
            super()._lock(entry, 1e6, now)


@breaks(RUNS_OUT)
class LocksForHalfTheTime(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def _lock(self, entry, lock_duration, now):
            super()._lock(entry, lock_duration / 2, now)


@breaks(RUNS_OUT)
class DoesNotCountDeliveriesThatRanOut(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def _advance(self, now):
            due = [e for line in self._locks.values() for e in line.values() if e.locked_until <= now]
            super()._advance(now)
            for entry in due:
                entry.count -= 1


@breaks("test_a_lock_that_runs_out_wakes_a_receiver_that_waits_already")
class DoesNotWakeWhenALockRunsOut(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def next_event(self):
            return self._delayed[0][0] if self._delayed else None


@breaks("test_another_broker_object_settles_nothing_of_what_it_did_not_receive")
class SettlesForOthersThoughItSaysThatItCannot(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, portable_tokens=False)


@breaks(KEEPS)
class RenewsInNameOnly(MemoryBroker):
    async def renew_lock(self, deliveries):
        return [replace(one, locked_until=time.monotonic() + self.lock_duration) for one in deliveries]


@breaks(KEEPS)
class DoesNotTellTheNewEndOfALock(MemoryBroker):
    async def renew_lock(self, deliveries):
        await super().renew_lock(deliveries)
        return list(deliveries)


@breaks(KEEPS)
class AddsUpRenewals(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def _lock(self, entry, lock_duration, now):
            super()._lock(entry, lock_duration, max(now, entry.locked_until))


@breaks("test_renewing_keeps_the_lock_token")
class RenewsUnderAnotherToken(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def renew(self, delivery, *, lock_duration, now):
            renewed = super().renew(delivery, lock_duration=lock_duration, now=now)
            if renewed is None:
                return None
            entry = self._by_token.pop(delivery.lock_token)
            entry.token = f"{entry.token}+"
            self._by_token[entry.token] = entry
            return self._delivery(entry)


@breaks("test_renewing_after_the_lock_ran_out_raises_lock_lost")
class RenewsWhatRanOut(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def renew(self, delivery, *, lock_duration, now):
            entry = self._by_token.get(delivery.lock_token)
            if entry is not None and entry.place is _Place.READY:
                return delivery
            return super().renew(delivery, lock_duration=lock_duration, now=now)


class Renewing(MemoryBroker):
    def lost(self, deliveries, error):
        return error

    async def renew_lock(self, deliveries):
        try:
            return await super().renew_lock(deliveries)
        except LockLostError as error:
            raise self.lost(deliveries, error) from None


@breaks(RENEWS_SEVERAL)
class CallsAllLostWhenOneIs(Renewing):
    def lost(self, deliveries, error):
        return LockLostError(deliveries)


@breaks(RENEWS_SEVERAL)
class DoesNotTellWhatItRenewedBesideTheLost(Renewing):
    def lost(self, deliveries, error):
        return LockLostError(error.deliveries)


@breaks("test_renewing_after_the_lock_ran_out_raises_lock_lost")
class DoesNotTellWhatIsLost(Renewing):
    def lost(self, deliveries, error):
        return LockLostError([])


class BelievesIds(MemoryQueue):
    """Finds what to settle by message id, as if every token were good."""

    def latest(self, delivery):
        tokens = [e.token for e in self._by_token.values() if e.message.id == delivery.message.id]
        return replace(delivery, lock_token=tokens[0]) if tokens else delivery


@breaks("test_a_stale_token_does_not_complete_the_next_holders_copy")
class CompletesByMessageId(QueueBroker):
    class state(BelievesIds):  # noqa: N801
        def complete(self, delivery, *, now):
            return super().complete(self.latest(delivery), now=now)


@breaks("test_a_stale_token_does_not_complete_the_next_holders_copy")
class RefusesStaleTokensInSilence(MemoryBroker):
    def _settle(self, deliveries, settle):
        with contextlib.suppress(LockLostError):
            super()._settle(deliveries, settle)


@breaks("test_a_stale_token_does_not_abandon_the_next_holders_copy")
class AbandonsByMessageId(QueueBroker):
    class state(BelievesIds):  # noqa: N801
        def abandon(self, delivery, **how):
            return super().abandon(self.latest(delivery), **how)


@breaks("test_a_stale_token_does_not_dead_letter_the_next_holders_copy")
class DeadLettersByMessageId(QueueBroker):
    class state(BelievesIds):  # noqa: N801
        def dead_letter(self, delivery, **why):
            return super().dead_letter(self.latest(delivery), **why)


@breaks("test_a_stale_token_does_not_renew_the_next_holders_copy")
class RenewsByMessageId(QueueBroker):
    class state(BelievesIds):  # noqa: N801
        def renew(self, delivery, **how):
            return super().renew(self.latest(delivery), **how)


@breaks("test_a_token_is_stale_for_its_own_holder_too_after_an_abandon")
class HasOneTokenForAllDeliveriesOfAMessage(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def _delivery(self, entry):
            self._by_token[f"token-{entry.seq}"] = entry
            return replace(super()._delivery(entry), lock_token=f"token-{entry.seq}")


@breaks("test_a_stale_delivery_does_not_keep_the_others_of_its_batch_from_being_completed")
class SettlesNothingOfABatchWithOneStaleDelivery(MemoryBroker):
    async def complete(self, deliveries):
        known = [self._queue(one.queue).state._by_token for one in deliveries]
        lost = [one for one, tokens in zip(deliveries, known, strict=True) if one.lock_token not in tokens]
        if lost:
            raise LockLostError(lost)
        await super().complete(deliveries)


@breaks("test_a_stale_delivery_does_not_keep_the_others_of_its_batch_from_being_abandoned")
class AbandonsUpToTheFirstStaleDelivery(MemoryBroker):
    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        for one in deliveries:
            await super().abandon([one], delay=delay, counted=counted)


@breaks("test_a_stale_delivery_does_not_keep_the_others_of_its_batch_from_being_dead_lettered")
class DeadLettersUpToTheFirstStaleDelivery(MemoryBroker):
    async def dead_letter(self, deliveries, *, reason, detail=""):
        for one in deliveries:
            await super().dead_letter([one], reason=reason, detail=detail)


class NamesTokens(MemoryQueue):
    """Hands out tokens that token_of() makes."""

    def take(self, max_messages, **where):
        entries = [self._by_token.pop(one.lock_token) for one in super().take(max_messages, **where)]
        for entry in entries:
            entry.token = self.token_of(entry)
            self._by_token[entry.token] = entry
        return [self._delivery(entry) for entry in entries]


@breaks("test_a_token_from_before_an_uncounted_abandon_is_stale")
class FencesByDeliveryCount(QueueBroker):
    class state(NamesTokens):  # noqa: N801
        def token_of(self, entry):
            return f"{entry.seq}.{entry.count}"


REDRIVEN = "test_a_token_from_before_a_redrive_settles_neither_the_redriven_message_nor_its_next_delivery"


@breaks(REDRIVEN)
class CountsTokensAnewAfterARedrive(QueueBroker):
    class state(NamesTokens):  # noqa: N801
        def token_of(self, entry):
            return f"{entry.message.id}.{entry.handed_out}"


@breaks(REDRIVEN)
class CompletesWhatWasRedrivenSince(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def complete(self, delivery, *, now):
            done = super().complete(delivery, now=now)
            waiting = [entry for heap in self._heaps.values() for _, _, entry in heap if entry.place is _Place.READY]
            if any(entry.message.id == delivery.message.id and not entry.handed_out for entry in waiting):
                (redriven,) = self.take(1, lock_duration=60.0, owner=None, now=now)
                return super().complete(redriven, now=now)
            return done


@breaks("test_a_stale_delivery_of_a_message_that_is_dead_by_now_leaves_the_dead_letter_alone")
class CompletesDeadLetters(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def complete(self, delivery, *, now):
            self.purge([letter.key for letter in self._dead.values() if letter.message.id == delivery.message.id])
            return super().complete(delivery, now=now)


@breaks("test_a_receivers_close_hands_back_at_once_what_it_held")
class KeepsItsLocksWhenClosed(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def release(self, owner, *, now):
            pass


@breaks("test_closing_one_broker_leaves_the_others_of_its_server_alone")
class HandsBackTheLocksOfAllWhenClosed(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def release(self, owner, *, now):
            for holder in {entry.owner for line in self._locks.values() for entry in line.values()}:
                super().release(holder, now=now)


# --- complete and abandon ---

RETURNS = "test_an_abandoned_message_returns_at_once_with_its_count_raised"


@breaks("test_a_completed_message_never_comes_back", keeps=ONE)
class CompletesNothing(MemoryBroker):
    async def complete(self, deliveries):
        self._check_open()


@breaks("test_completing_twice_is_no_error")
class RaisesOnTheSecondComplete(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def complete(self, delivery, *, now):
            return delivery.lock_token in self._by_token and super().complete(delivery, now=now)


@breaks("test_completing_one_message_leaves_the_others_of_its_batch_locked")
class CompletesAllUpToTheGivenOne(MemoryBroker):
    async def complete(self, deliveries):
        for one in deliveries:
            locks = self._queue(one.queue).state._locks.values()
            held = [self._queue(one.queue).state._delivery(entry) for line in locks for entry in line.values()]
            await super().complete(held or [one])


@breaks("test_deliveries_of_several_queues_can_be_settled_in_one_call")
class SettlesAllInTheQueueOfTheFirst(MemoryBroker):
    async def complete(self, deliveries):
        await super().complete([replace(one, queue=deliveries[0].queue) for one in deliveries])


@breaks(RETURNS)
class LosesWhatIsAbandoned(MemoryBroker):
    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        await self.complete(deliveries)


@breaks(RETURNS)
class LeavesAbandonedMessagesToTheirLock(MemoryBroker):
    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        self._check_open()


@breaks(RETURNS)
class CountsNoAbandonedDelivery(MemoryBroker):
    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        await super().abandon(deliveries, delay=delay, counted=False)


@breaks("test_an_uncounted_abandon_takes_the_count_back")
class CountsEveryAbandonedDelivery(MemoryBroker):
    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        await super().abandon(deliveries, delay=delay)


@breaks("test_an_uncounted_abandon_with_a_delay_takes_the_count_back_too")
class CountsWhatIsAbandonedWithADelay(MemoryBroker):
    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        await super().abandon(deliveries, delay=delay, counted=counted or delay > 0)


@breaks("test_a_message_abandoned_for_long_stays_away")
class IgnoresDelaysOfAMinuteAndMore(MemoryBroker):
    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        await super().abandon(deliveries, delay=delay if delay < 60 else 0.0, counted=counted)


@breaks("test_an_abandoned_message_is_served_by_its_priority")
class ServesAbandonedMessagesLast(QueueBroker):
    class state(PutsLast):  # noqa: N801
        def is_put_last(self, entry):
            return entry.handed_out > 0


@breaks("test_an_abandoned_message_wakes_a_receiver_that_waits")
class DoesNotWakeForAbandonedMessages(MemoryBroker):
    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        for one in deliveries:
            state = self._queue(one.queue).state
            state.abandon(one, delay=delay, counted=counted, now=time.monotonic())


@breaks("test_a_message_abandoned_with_a_delay_returns_after_it")
class IgnoresTheDelayOfAbandon(MemoryBroker):
    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        await super().abandon(deliveries, counted=counted)


@breaks("test_an_abandoned_message_comes_back_at_its_old_place")
class AbandonsToTheEndOfTheLine(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def abandon(self, delivery, *, now, **how):
            self._by_token[delivery.lock_token].since = now
            return super().abandon(delivery, now=now, **how)


@breaks("test_what_a_closing_broker_hands_back_was_not_counted_as_a_delivery")
class CountsWhatItHandsBackWhenItCloses(QueueBroker):
    class state(MemoryQueue):  # noqa: N801
        def release(self, owner, *, now):
            for line in self._locks.values():
                for entry in line.values():
                    entry.count += entry.owner is owner
            super().release(owner, now=now)


@breaks("test_handing_back_never_fails_for_its_delay")
class TakesWholeMillisecondsOnly(MemoryBroker):
    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        await super().abandon(deliveries, delay=round(delay * 1000) / 1000, counted=counted)
