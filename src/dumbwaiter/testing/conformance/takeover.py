"""Rules about what a killed process held, where that need not wait for its lock to end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from dumbwaiter.brokers.contract import Claim
from dumbwaiter.message import Message
from dumbwaiter.testing.conformance.harness import LONG_LOCK

if TYPE_CHECKING:
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.message import Delivery
    from dumbwaiter.testing.conformance.harness import Harness


class TakeoverRules:
    """Each test is a rule."""

    async def test_what_a_killed_process_held_is_ready_long_before_its_lock_ends(self, harness: Harness) -> None:
        await _needs(harness, "freed")
        queue, messages = harness.new_queue(), [Message(), Message()]
        await harness.hold_and_die(queue, messages)
        async with harness.connect() as broker:
            await _take_again(broker, queue, messages, harness)

    async def test_what_a_killed_process_held_is_kept_until_its_lock_ends(self, harness: Harness) -> None:
        """Where nobody can take it back: then nobody is to believe that he has."""
        await _needs(harness, "kept")
        await harness.needs("multi_process")
        queue = harness.new_queue()
        held = await harness.hold_and_die(queue, [Message()])
        assert (held.each, held.all_) == ([None], None), "a claim was made to what cannot be taken back"
        async with harness.connect() as broker:
            await harness.expect_nothing(broker, queue)
            assert await broker.take_back([Claim(queue, "any", time.monotonic() + LONG_LOCK)]) == 0
            await harness.expect_stats(broker, queue, locked=1)

    async def test_what_a_killed_process_held_is_taken_back_at_once_with_its_count_raised(
        self, harness: Harness
    ) -> None:
        await _needs(harness, "taken_back")
        queue, messages = harness.new_queue(), [Message(body=b"\xff"), Message(priority=9), Message(priority=-9)]
        claims = [_made(claim) for claim in (await harness.hold_and_die(queue, messages)).each]
        async with harness.connect() as broker, harness.connect() as other:
            await harness.expect_nothing(broker, queue)
            assert await other.take_back(claims[:2]) == 2
            assert await other.take_back(claims[2:]) == 1
            await _take_again(broker, queue, messages, harness)

    async def test_what_is_taken_back_wakes_a_receiver_that_waits(self, harness: Harness) -> None:
        await _needs(harness, "taken_back")
        queue, message = harness.new_queue(), Message()
        claims = [_made(claim) for claim in (await harness.hold_and_die(queue, [message])).each]
        async with harness.connect() as broker, harness.connect() as other:
            receiving = harness.start(broker.receive(queue, max_messages=1, max_wait=20 * harness.slack))
            await harness.let_run(None)
            await other.take_back(claims)
            async with asyncio.timeout(harness.slack):
                assert [d.message.id for d in await receiving] == [message.id]

    async def test_a_claim_to_all_that_a_killed_process_held_takes_nothing_from_others(self, harness: Harness) -> None:
        await _needs(harness, "taken_back")
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            if broker.claim_to_all(queue) is None:
                pytest.skip(f"RULE NOT CHECKED: the adapter of {harness.place} makes no claim to all that is held")
            await broker.send(queue, [Message()])
            mine = await harness.take_one(broker, queue)
            messages = [Message(), Message()]
            claim = _made((await harness.hold_and_die(queue, messages)).all_)
            assert await other.take_back([claim]) == len(messages)
            assert await other.take_back([claim]) == 0
            taken = await harness.take(other, queue, len(messages))
            assert {d.message.id: d.delivery_count for d in taken} == {message.id: 2 for message in messages}
            assert await broker.take_back([claim]) == 0, "others hold them by now"
            await _expect_still_held(broker, other, mine, harness)
            await other.complete(taken)

    async def test_a_claim_whose_time_is_over_takes_nothing_from_the_next_holder(self, harness: Harness) -> None:
        await _needs(harness, "taken_back")
        async with harness.connect_to_queue() as (broker, queue), harness.connect(harness.lock_duration) as holder:
            await broker.send(queue, [Message()])
            claim = _claim(holder, await harness.take_one(holder, queue))
            assert claim.held_until <= time.monotonic() + harness.lock_duration, "a claim may not outlast its lock"
            async with asyncio.timeout(harness.lock_duration + harness.slack):
                new = await _take_whenever(broker, queue, harness)
            assert await holder.take_back([claim]) == 0
            await _expect_still_held(broker, holder, new, harness)

    async def test_renewing_makes_a_claim_that_lasts_longer(self, harness: Harness) -> None:
        await _needs(harness, "taken_back")
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message()])
            delivery = await harness.take_one(broker, queue)
            first = _claim(broker, delivery)
            await asyncio.sleep(harness.quiet / 2)
            (renewed,) = await broker.renew_lock([delivery])
            assert _claim(broker, renewed).held_until >= first.held_until + harness.quiet / 4

    async def test_taking_back_what_is_settled_or_unknown_is_no_error(self, harness: Harness) -> None:
        await _needs(harness, "taken_back")
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [Message() for _ in range(3)])
            done, dead, held = await harness.take(broker, queue, 3)
            claims = [_claim(broker, done), _claim(broker, dead)]
            until = time.monotonic() + LONG_LOCK
            claims += [Claim(queue, token, until) for token in ("", "nonsense", "7.7", "ü|0-0|x")]
            claims += [msgspec.structs.replace(claims[0], queue=harness.new_queue())]
            if (all_ := other.claim_to_all(queue)) is not None:
                claims += [all_, *(Claim(queue, f"{all_.token}{more}", until) for more in ("x", "0" * 30))]
                claims += [msgspec.structs.replace(all_, queue=harness.new_queue())]
            await broker.complete([done])
            await broker.dead_letter([dead], reason="over")
            await other.take_back(claims)
            await other.take_back([])
            await harness.expect_stats(broker, queue, locked=1, dead=1)
            await _expect_still_held(broker, other, held, harness)

    async def test_a_claim_from_before_an_abandon_takes_nothing_from_the_next_holder(self, harness: Harness) -> None:
        """Where tokens are fenced. Elsewhere whoever wrote it down has struck it out before."""
        await _needs(harness, "taken_back")
        await harness.needs("portable_tokens")
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [Message()])
            old = await harness.take_one(broker, queue)
            claim = _claim(broker, old)
            await broker.abandon([old])
            new = await harness.take_one(broker, queue)
            assert await other.take_back([claim]) == 0
            await _expect_still_held(broker, other, new, harness)


async def _needs(harness: Harness, fate: str) -> None:
    declared = (await harness.capabilities()).killed_holder
    if declared != fate:
        pytest.skip(f"RULE NOT CHECKED: the adapter of {harness.place} declares killed_holder={declared!r}")


def _claim(broker: Broker, delivery: Delivery) -> Claim:
    return _made(broker.claim_of(delivery))


def _made(claim: Claim | None) -> Claim:
    assert claim is not None, "no claim was made to what is held"
    return claim


async def _take_whenever(broker: Broker, queue: str, harness: Harness) -> Delivery:
    while True:
        for delivery in await broker.receive(queue, max_messages=1, max_wait=harness.slack):
            return delivery


async def _take_again(broker: Broker, queue: str, messages: list[Message], harness: Harness) -> None:
    deliveries = await harness.take(broker, queue, len(messages))
    assert {d.message.id: d.message for d in deliveries} == {message.id: message for message in messages}
    assert [d.delivery_count for d in deliveries] == [2] * len(messages), "the killed process's delivery counts"
    await broker.complete(deliveries)
    await harness.expect_stats(broker, queue)


async def _expect_still_held(broker: Broker, other: Broker, delivery: Delivery, harness: Harness) -> None:
    await harness.expect_nothing(other, delivery.queue)
    await broker.complete(await broker.renew_lock([delivery]))
