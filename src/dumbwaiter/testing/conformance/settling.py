"""Rules about settling: complete, abandon, dead-letter; and what can be done with dead letters."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

import pytest

from dumbwaiter.errors import DeadLetterNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.testing.conformance.looking import error_of
from dumbwaiter.testing.conformance.sending import message_with_everything

if TYPE_CHECKING:
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.testing.conformance.harness import Harness


class SettlingRules:
    """Each test is a rule."""

    async def test_a_completed_message_never_comes_back(self, harness: Harness) -> None:
        async with harness.connect_to_queue(harness.lock_duration) as (broker, queue):
            await broker.send(queue, [Message(), Message()])
            await broker.complete(await harness.take(broker, queue, 2))
            await harness.expect_nothing(broker, queue, during=harness.lock_duration + harness.quiet)
            await harness.expect_stats(broker, queue)

    async def test_completing_twice_is_no_error(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [Message()])
            deliveries = await harness.take(broker, queue)
            await broker.complete(deliveries)
            await broker.complete(deliveries)
            if broker.capabilities.portable_tokens:
                await other.complete(deliveries)
            await harness.expect_stats(broker, queue)

    async def test_completing_one_message_leaves_the_others_of_its_batch_locked(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message() for _ in range(3)])
            held = await harness.take(broker, queue, 3)
            await broker.complete([held[1]])
            await harness.expect_stats(broker, queue, locked=2)
            await broker.abandon([held[0], held[2]])
            again = await harness.take(broker, queue, 2)
            assert {d.message.id for d in again} == {held[0].message.id, held[2].message.id}

    async def test_an_abandoned_message_returns_at_once_with_its_count_raised(self, harness: Harness) -> None:
        message = message_with_everything()
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [message])
            for count in (1, 2, 3):
                delivery = await harness.take_one(broker if count % 2 else other, queue)
                assert delivery.delivery_count == count
                assert delivery.message == message
                await (broker if count % 2 else other).abandon([delivery])
            await harness.expect_stats(broker, queue, ready=1)

    async def test_an_abandoned_message_wakes_a_receiver_that_waits(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [Message()])
            held = await harness.take(broker, queue)
            receiving = harness.start(other.receive(queue, max_messages=1, max_wait=20 * harness.slack))
            await asyncio.sleep(harness.quiet / 2)
            await broker.abandon(held)
            async with asyncio.timeout(harness.slack):
                assert [d.message.id for d in await receiving] == [held[0].message.id]

    async def test_a_message_abandoned_with_a_delay_returns_after_it(self, harness: Harness) -> None:
        await harness.needs("abandon_delay")
        delay = harness.lock_duration
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message()])
            held = await harness.take(broker, queue)
            abandoned_at = time.monotonic()
            await broker.abandon(held, delay=delay)
            await harness.expect_stats(broker, queue, delayed=1)
            again = await harness.take_one(broker, queue)
            assert time.monotonic() - abandoned_at >= delay * 0.9, "the message came before its delay was over"
            assert again.delivery_count == 2

    async def test_a_message_abandoned_for_long_stays_away(self, harness: Harness) -> None:
        """A delay beyond what the product keeps by itself is not passed over."""
        await harness.needs("abandon_delay")
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message(), Message()])
            minute, hour = await harness.take(broker, queue, 2)
            await broker.abandon([minute], delay=60.0)
            await broker.abandon([hour], delay=3600.0)
            await harness.expect_nothing(broker, queue)
            await harness.expect_stats(broker, queue, delayed=2)

    async def test_handing_back_never_fails_for_its_delay(self, harness: Harness) -> None:
        """Whoever computed it may have divided by nothing. What is no delay is none."""
        async with harness.connect_to_queue() as (broker, queue):
            for delay in (math.nan, -1.0, 1e12, 1e300, math.inf):
                await broker.send(queue, [Message()])
                held = await harness.take(broker, queue)
                try:
                    await broker.abandon(held, delay=delay)
                except (ArithmeticError, ValueError, TypeError, OSError) as error:
                    pytest.fail(f"abandon with a delay of {delay} raised {error!r}")
                if not delay > 0:
                    await broker.complete(await harness.take(broker, queue))

    async def test_an_abandoned_message_is_served_by_its_priority(self, harness: Harness) -> None:
        await harness.needs("strict_priority")
        messages = [Message(priority=priority) for priority in (1, 5, 9)]
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [messages[0], messages[2]])
            await broker.abandon(await harness.take(broker, queue, 2))
            await broker.send(queue, [messages[1]])
            assert await _take_in_order(harness, broker, queue, 3) == messages[::-1]

    async def test_an_uncounted_abandon_takes_the_count_back(self, harness: Harness) -> None:
        await harness.needs("uncounted_abandon")
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message()])
            for _ in range(3):
                held = await harness.take(broker, queue)
                assert held[0].delivery_count == 1
                await broker.abandon(held, counted=False)
            await broker.abandon(await harness.take(broker, queue))
            assert (await harness.take_one(broker, queue)).delivery_count == 2

    async def test_an_uncounted_abandon_with_a_delay_takes_the_count_back_too(self, harness: Harness) -> None:
        await harness.needs("uncounted_abandon")
        delay = harness.lock_duration if (await harness.capabilities()).abandon_delay else 0.0
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message()])
            held = await harness.take(broker, queue)
            abandoned_at = time.monotonic()
            await broker.abandon(held, delay=harness.lock_duration, counted=False)
            assert (await harness.take_one(broker, queue)).delivery_count == 1
            assert time.monotonic() - abandoned_at >= delay * 0.9, "the message came before its delay was over"

    async def test_a_dead_lettered_message_moves_with_its_reason_and_detail(self, harness: Harness) -> None:
        message = message_with_everything()
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [message])
            await broker.abandon(await harness.take(broker, queue))
            before = time.time()
            detail = "Traceback …\n  ValueError: naïve"
            await broker.dead_letter(await harness.take(broker, queue), reason="model-error", detail=detail)
            await harness.expect_nothing(broker, queue)
            letters = await broker.dead_letters(queue)
            assert [letter.message for letter in letters] == [message]
            letter = letters[0]
            assert (letter.queue, letter.reason, letter.detail) == (queue, "model-error", detail)
            assert letter.delivery_count == 2
            assert abs(letter.dead_at - before) < 10 * harness.slack, "dead_at is in seconds since the Unix epoch"

    async def test_dead_letters_can_be_read_again_and_counted(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            buried = await _bury(harness, broker, queue, [Message(body=b"\xff" + bytes([i])) for i in range(5)])
            await harness.expect_stats(broker, queue, dead=5)
            for _ in range(2):
                letters = await broker.dead_letters(queue)
                assert {letter.message.id: letter.message for letter in letters} == {m.id: m for m in buried}
                assert len({letter.key for letter in letters}) == 5
            assert len(await broker.dead_letters(queue, limit=2)) == 2

    async def test_the_oldest_dead_letters_come_first(self, harness: Harness) -> None:
        await harness.needs("ordered")
        async with harness.connect_to_queue() as (broker, queue):
            buried = [(await _bury(harness, broker, queue, [Message()]))[0].id for _ in range(4)]
            assert [letter.message.id for letter in await broker.dead_letters(queue, limit=3)] == buried[:3]

    async def test_dead_letters_can_be_read_page_by_page(self, harness: Harness) -> None:
        """Also when the one that ended a page is gone before the next page is read."""
        async with harness.connect_to_queue() as (broker, queue):
            await _bury(harness, broker, queue, [Message() for _ in range(5)])
            everyone = [letter.key for letter in await broker.dead_letters(queue)]
            pages: list[list[str]] = []
            after = None
            while letters := await broker.dead_letters(queue, limit=2, after=after):
                assert len(pages) < 3, f"no end of pages: {pages}"
                pages.append([letter.key for letter in letters])
                after = letters[-1].key
                assert await broker.purge(queue, [after]) == 1
            assert pages == [everyone[:2], everyone[2:4], everyone[4:]]
            await error_of(
                "dead_letters(after='no key')",
                lambda: broker.dead_letters(queue, after="no key"),
                DeadLetterNotFoundError,
                within=harness.slack,
            )

    async def test_redriven_dead_letters_come_back_with_a_fresh_count(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            buried = await _bury(harness, broker, queue, [message_with_everything(), Message(), Message(), Message()])
            assert await broker.redrive(queue) == 4
            again = await harness.take(broker, queue, 4)
            assert {d.message.id: d.message for d in again} == {message.id: message for message in buried}
            assert {d.delivery_count for d in again} == {1}
            assert await broker.dead_letters(queue) == []
            await broker.complete(again)
            await harness.expect_stats(broker, queue)

    async def test_a_redriven_dead_letter_is_served_by_its_priority(self, harness: Harness) -> None:
        await harness.needs("strict_priority")
        messages = [Message(priority=priority) for priority in (1, 5, 9)]
        async with harness.connect_to_queue() as (broker, queue):
            await _bury(harness, broker, queue, [messages[0], messages[2]])
            assert await broker.redrive(queue) == 2
            await broker.send(queue, [messages[1]])
            assert await _take_in_order(harness, broker, queue, 3) == messages[::-1]

    async def test_redriving_by_key_moves_only_those(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            await _bury(harness, broker, queue, [Message() for _ in range(3)])
            letters = await broker.dead_letters(queue)
            assert await broker.redrive(queue, [letters[1].key]) == 1
            assert (await harness.take_one(broker, queue)).message.id == letters[1].message.id
            left = [letter.key for letter in await broker.dead_letters(queue)]
            assert left == [letters[0].key, letters[2].key]
            await harness.expect_stats(broker, queue, locked=1, dead=2)

    async def test_a_dead_letter_can_be_asked_for_until_it_is_redriven_or_purged(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            await _bury(harness, broker, queue, [Message() for _ in range(3)])
            keys = [letter.key for letter in await broker.dead_letters(queue)]
            assert [await broker.is_dead_letter(queue, key) for key in keys] == [True, True, True]
            await broker.redrive(queue, keys[:1])
            await broker.purge(queue, keys[1:2])
            assert [await broker.is_dead_letter(queue, key) for key in keys] == [False, False, True]
            assert not await broker.is_dead_letter(queue, "no key at all")

    async def test_redriving_or_purging_an_empty_list_of_keys_touches_nothing(self, harness: Harness) -> None:
        """An empty list is not None: whoever picked no dead letters did not mean all of them."""
        async with harness.connect_to_queue() as (broker, queue):
            await _bury(harness, broker, queue, [Message() for _ in range(2)])
            assert await broker.redrive(queue, []) == 0
            assert await broker.purge(queue, []) == 0
            await harness.expect_stats(broker, queue, dead=2)

    async def test_a_redriven_dead_letter_wakes_a_receiver_that_waits(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            await _bury(harness, broker, queue, [Message()])
            receiving = harness.start(broker.receive(queue, max_messages=1, max_wait=20 * harness.slack))
            await asyncio.sleep(harness.quiet / 2)
            await broker.redrive(queue)
            async with asyncio.timeout(harness.slack):
                assert len(await receiving) == 1

    async def test_purging_deletes_dead_letters_only(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            await _bury(harness, broker, queue, [Message() for _ in range(3)])
            await broker.send(queue, [Message()])
            letters = await broker.dead_letters(queue)
            assert await broker.purge(queue, [letters[0].key]) == 1
            await harness.expect_stats(broker, queue, ready=1, dead=2)
            assert await broker.purge(queue) == 2
            await harness.expect_stats(broker, queue, ready=1)
            assert await broker.dead_letters(queue) == []

    async def test_a_second_send_of_an_id_that_is_dead_by_now_is_dropped(self, harness: Harness) -> None:
        """Its message is still here, and a redrive would double it."""
        await harness.needs("deduplication")
        async with harness.connect_to_queue() as (broker, queue):
            (message,) = await _bury(harness, broker, queue, [Message()])
            await broker.send(queue, [message])
            await harness.expect_nothing(broker, queue)
            await harness.expect_stats(broker, queue, dead=1)

    async def test_a_purged_message_id_may_be_sent_anew(self, harness: Harness) -> None:
        """Whoever deleted it for good has ended that wish; sending it again is a new one."""
        await harness.needs("forgets_purged")
        message, again = Message(id="the-same", body=b"first"), Message(id="the-same", body=b"second")
        async with harness.connect_to_queue() as (broker, queue):
            await _bury(harness, broker, queue, [message])
            assert await broker.purge(queue) == 1
            await broker.send(queue, [again])
            assert (await harness.take_one(broker, queue)).message == again


async def _bury(harness: Harness, broker: Broker, queue: str, messages: list[Message]) -> list[Message]:
    """Send *messages* and dead-letter them."""
    await broker.send(queue, messages)
    await broker.dead_letter(await harness.take(broker, queue, len(messages)), reason="buried")
    return messages


async def _take_in_order(harness: Harness, broker: Broker, queue: str, count: int) -> list[Message]:
    """The next *count* messages, one by one."""
    return [(await harness.take_one(broker, queue)).message for _ in range(count)]
