"""Rules about locks: they run out, they can be renewed, and a stale one settles nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from dumbwaiter.errors import LockLostError
from dumbwaiter.message import Delivery, Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.testing.conformance.harness import Harness


class LockingRules:
    """Each test is a rule."""

    async def test_a_lock_that_runs_out_frees_the_message_with_its_count_raised(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (competitor, queue), harness.connect(harness.lock_duration) as holder:
            message = Message(body=b"\xff body", subject="kept")
            await holder.send(queue, [message])
            taken_at = time.monotonic()
            first = await harness.take_one(holder, queue)
            async with asyncio.timeout(harness.lock_duration + harness.slack):
                second = await _take_whenever(competitor, queue, harness)
            assert time.monotonic() - taken_at >= harness.lock_duration * 0.9, "the lock did not hold"
            assert second.message == message
            assert second.delivery_count == 2
            assert second.lock_token != first.lock_token

    async def test_a_lock_that_runs_out_wakes_a_receiver_that_waits_already(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (competitor, queue), harness.connect(harness.lock_duration) as holder:
            receiving = harness.start(competitor.receive(queue, max_messages=1, max_wait=20 * harness.slack))
            await asyncio.sleep(harness.quiet / 4)
            await holder.send(queue, [Message(), Message()])
            async with asyncio.timeout(harness.slack):
                await receiving
            held = await harness.take(holder, queue, 1)
            receiving = harness.start(competitor.receive(queue, max_messages=1, max_wait=20 * harness.slack))
            async with asyncio.timeout(harness.lock_duration + harness.slack):
                freed = await receiving
            assert [d.message.id for d in freed] == [d.message.id for d in held]

    async def test_renewing_keeps_the_lock_beyond_its_first_length(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (competitor, queue), harness.connect(harness.lock_duration) as holder:
            await holder.send(queue, [Message(), Message()])
            held = await harness.take(holder, queue, 2)
            watching = harness.start(harness.expect_nothing(competitor, queue, during=2.5 * harness.lock_duration))
            while not watching.done():
                before = held
                await asyncio.wait([watching], timeout=harness.lock_duration / 4)
                held = await holder.renew_lock(held)
                assert [d.message.id for d in held] == [d.message.id for d in before]
                assert all(new.locked_until > old.locked_until for new, old in zip(held, before, strict=True))
                assert all(d.delivery_count == 1 for d in held)
                latest = time.monotonic() + 2 * harness.lock_duration
                assert all(d.locked_until < latest for d in held), "a renewed lock lasts lock_duration from now"
            await watching
            await holder.complete(held)
            await harness.expect_stats(competitor, queue)

    async def test_renewing_keeps_the_lock_token(self, harness: Harness) -> None:
        """Whoever settles with the delivery from before need not know that it was renewed meanwhile."""
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message() for _ in range(4)])
            first, second, third, fourth = await harness.take(broker, queue, 4)
            renewed = await broker.renew_lock(await broker.renew_lock([first, second, third, fourth]))
            old = [first.lock_token, second.lock_token, third.lock_token, fourth.lock_token]
            assert [d.lock_token for d in renewed] == old
            assert [d.lock_token for d in await broker.renew_lock([first])] == old[:1]
            await broker.complete([first])
            await broker.dead_letter([second], reason="renewed meanwhile")
            await broker.abandon([third, fourth])
            await harness.expect_stats(broker, queue, ready=2, dead=1)

    async def test_renewing_after_the_lock_ran_out_raises_lock_lost(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (competitor, queue), harness.connect(harness.lock_duration) as holder:
            await holder.send(queue, [Message()])
            old = await harness.take_one(holder, queue)
            await harness.expect_stats(competitor, queue, ready=1)
            can = competitor.capabilities
            if not can.counts_ready or can.ready_includes_locked:  # only the time can tell then
                await asyncio.sleep(harness.lock_duration + harness.quiet)
            with pytest.raises(LockLostError) as caught:
                await holder.renew_lock([old])
            assert [d.message.id for d in caught.value.deliveries] == [old.message.id]
            await harness.take_one(competitor, queue)

    async def test_renewing_several_renews_those_that_are_still_held_and_names_the_lost(self, harness: Harness) -> None:
        async with _stale(harness) as (old, new, holder, competitor):
            with pytest.raises(LockLostError) as caught:
                await competitor.renew_lock([old, new])
            assert [d.lock_token for d in caught.value.deliveries] == [old.lock_token]
            assert [d.message.id for d in caught.value.renewed] == [new.message.id]
            await competitor.complete(caught.value.renewed)
            await harness.expect_stats(holder, new.queue)

    async def test_a_stale_token_does_not_complete_the_next_holders_copy(self, harness: Harness) -> None:
        await _expect_refusal(harness, lambda broker, old: broker.complete([old]))

    async def test_a_stale_token_does_not_abandon_the_next_holders_copy(self, harness: Harness) -> None:
        await _expect_refusal(harness, lambda broker, old: broker.abandon([old]))

    async def test_a_stale_token_does_not_dead_letter_the_next_holders_copy(self, harness: Harness) -> None:
        await _expect_refusal(harness, lambda broker, old: broker.dead_letter([old], reason="stale"))

    async def test_a_stale_token_does_not_renew_the_next_holders_copy(self, harness: Harness) -> None:
        await _expect_refusal(harness, lambda broker, old: broker.renew_lock([old]))

    async def test_a_token_is_stale_for_its_own_holder_too_after_an_abandon(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message()])
            old = await harness.take_one(broker, queue)
            await broker.abandon([old])
            new = await harness.take_one(broker, queue)
            with pytest.raises(LockLostError):
                await broker.complete([old])
            await harness.expect_stats(broker, queue, locked=1)
            await broker.complete([new])

    async def test_a_stale_delivery_does_not_keep_the_others_of_its_batch_from_being_completed(
        self, harness: Harness
    ) -> None:
        async with _stale(harness) as (old, new, holder, competitor):
            other = Message()
            await competitor.send(new.queue, [other])
            good = await harness.take_one(competitor, new.queue)
            with pytest.raises(LockLostError) as caught:
                await competitor.complete([old, good])
            assert [d.message.id for d in caught.value.deliveries] == [old.message.id]
            await harness.expect_stats(holder, new.queue, locked=1)

    async def test_a_stale_delivery_does_not_keep_the_others_of_its_batch_from_being_abandoned(
        self, harness: Harness
    ) -> None:
        await _expect_others_settled(harness, lambda broker, batch: broker.abandon(batch), ready=2)

    async def test_a_stale_delivery_does_not_keep_the_others_of_its_batch_from_being_dead_lettered(
        self, harness: Harness
    ) -> None:
        await _expect_others_settled(harness, lambda broker, batch: broker.dead_letter(batch, reason="over"), dead=2)

    async def test_another_broker_object_settles_nothing_of_what_it_did_not_receive(self, harness: Harness) -> None:
        """Where tokens are good for their receiver only. Elsewhere others settle as well as it does."""
        if (await harness.capabilities()).portable_tokens:
            pytest.skip(f"RULE NOT CHECKED: the adapter of {harness.place} declares portable_tokens=True")
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [Message()])
            held = await harness.take_one(broker, queue)
            for settle in _ways_to_settle(other):
                with pytest.raises(LockLostError) as caught:
                    await settle([held])
                assert [d.lock_token for d in caught.value.deliveries] == [held.lock_token]
            await harness.expect_stats(broker, queue, locked=1)
            await broker.complete(await broker.renew_lock([held]))
            await harness.expect_stats(broker, queue)

    async def test_a_token_from_before_an_uncounted_abandon_is_stale(self, harness: Harness) -> None:
        """Although the next delivery has the same count: tokens tell deliveries apart, counts do not."""
        await harness.needs("uncounted_abandon")
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [Message()])
            old = await harness.take_one(broker, queue)
            await broker.abandon([old], counted=False)
            new = await harness.take_one(other, queue)
            for settle in _ways_to_settle(broker):
                with pytest.raises(LockLostError):
                    await settle([old])
            await harness.expect_stats(broker, queue, locked=1)
            await other.complete(await other.renew_lock([new]))
            await harness.expect_stats(broker, queue)

    async def test_a_token_from_before_a_redrive_settles_neither_the_redriven_message_nor_its_next_delivery(
        self, harness: Harness
    ) -> None:
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [Message()])
            old = await harness.take_one(broker, queue)
            await broker.dead_letter([old], reason="too early")
            assert await broker.redrive(queue) == 1
            await _settle_in_vain(broker, old)
            await harness.expect_stats(broker, queue, ready=1)
            new = await harness.take_one(other, queue)
            assert new.delivery_count == 1
            await _settle_in_vain(broker, old)
            await harness.expect_stats(broker, queue, locked=1)
            await other.complete(await other.renew_lock([new]))
            await harness.expect_stats(broker, queue)

    async def test_a_stale_delivery_of_a_message_that_is_dead_by_now_leaves_the_dead_letter_alone(
        self, harness: Harness
    ) -> None:
        async with _stale(harness) as (old, new, holder, competitor):
            await competitor.dead_letter([new], reason="verdict")
            await _settle_in_vain(holder, old)
            await _settle_in_vain(competitor, new)
            await harness.expect_stats(competitor, new.queue, dead=1)
            (letter,) = await competitor.dead_letters(new.queue)
            assert (letter.message, letter.reason) == (new.message, "verdict")

    async def test_a_receivers_close_hands_back_at_once_what_it_held(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (competitor, queue):
            async with harness.connect() as holder:
                await holder.send(queue, [Message(), Message()])
                await harness.take(holder, queue, 2)
                waiting = harness.start(harness.take(competitor, queue, 2))
                await asyncio.sleep(0)
            await waiting

    async def test_what_a_closing_broker_hands_back_was_not_counted_as_a_delivery(self, harness: Harness) -> None:
        await harness.needs("uncounted_abandon")
        async with harness.connect_to_queue() as (competitor, queue):
            async with harness.connect() as holder:
                await holder.send(queue, [Message()])
                await harness.take_one(holder, queue)
            assert (await harness.take_one(competitor, queue)).delivery_count == 1


async def _take_whenever(broker: Broker, queue: str, harness: Harness) -> Delivery:
    while True:
        for delivery in await broker.receive(queue, max_messages=1, max_wait=harness.slack):
            return delivery


@contextlib.asynccontextmanager
async def _stale(harness: Harness) -> AsyncIterator[tuple[Delivery, Delivery, Broker, Broker]]:
    """A delivery whose lock ran out, the next holder's of the same message, and both their brokers."""
    async with harness.connect_to_queue() as (competitor, queue), harness.connect(harness.lock_duration) as holder:
        await holder.send(queue, [Message()])
        old = await harness.take_one(holder, queue)
        async with asyncio.timeout(harness.lock_duration + harness.slack):
            new = await _take_whenever(competitor, queue, harness)
        assert new.message.id == old.message.id
        yield old, new, holder, competitor


async def _expect_refusal(harness: Harness, settle: Callable[[Broker, Delivery], Awaitable[object]]) -> None:
    async with _stale(harness) as (old, new, holder, competitor):
        with pytest.raises(LockLostError) as caught:
            await settle(holder, old)
        assert [d.message.id for d in caught.value.deliveries] == [old.message.id]
        await harness.expect_stats(competitor, new.queue, locked=1)
        renewed = await competitor.renew_lock([new])
        await competitor.complete(renewed)
        await harness.expect_stats(competitor, new.queue)


async def _expect_others_settled(
    harness: Harness, settle: Callable[[Broker, list[Delivery]], Awaitable[object]], **counts: int
) -> None:
    """The stale one stands between two that are held, so that neither those before nor those behind are forgotten."""
    async with _stale(harness) as (old, new, holder, competitor):
        await competitor.send(new.queue, [Message(), Message()])
        first, last = await harness.take(competitor, new.queue, 2)
        with pytest.raises(LockLostError) as caught:
            await settle(competitor, [first, old, last])
        assert [d.lock_token for d in caught.value.deliveries] == [old.lock_token]
        await harness.expect_stats(holder, new.queue, locked=1, **counts)


def _ways_to_settle(broker: Broker) -> list[Callable[[list[Delivery]], Awaitable[object]]]:
    return [broker.complete, broker.abandon, partial(broker.dead_letter, reason="stale"), broker.renew_lock]


async def _settle_in_vain(broker: Broker, old: Delivery) -> None:
    """By every verb. Not every product can tell a message that is dead from one that is gone, so silence will do."""
    for settle in _ways_to_settle(broker):
        with contextlib.suppress(LockLostError):
            await settle([old])
