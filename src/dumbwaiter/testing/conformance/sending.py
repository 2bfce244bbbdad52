"""Rules about sending: what goes in comes out, once, in order, and within the broker's limit."""

from __future__ import annotations

import asyncio
import time

import pytest

from dumbwaiter.errors import MessageTooLargeError
from dumbwaiter.message import Message
from dumbwaiter.testing.conformance.harness import Harness

MIB = 1024 * 1024
ODD_CONTENT_TYPES = (
    "image/t\xe9",
    "☕/☕; cup=☕",
    "text/plain; title=\"a; b, c='d'\"",
    f"x/{'y' * 300}",
    "no type at all %41",
)
"""Content types that no register knows: what a caller's header was read as."""


def message_with_everything() -> Message:
    """A message whose body is not UTF-8 and which has every attribute."""
    return Message(
        body=bytes(range(256)),
        id="an-id-of-its-own",
        content_type="image/jpeg",
        type="dumbwaiter.test",
        source="/conformance",
        subject="network",
        time=1_764_000_000.25,
        data_ref="blob:inputs/1",
        trace_parent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        correlation_id="correlation-1",
        reply_to="inbox-1",
        deadline=1_864_000_000.5,
        priority=7,
        tenant="café ☕",
        idempotency_key="key 1",
        extensions={"experiment": 'a=1; b="2"', "note": "naïve"},
    )


async def large_body(harness: Harness) -> bytes:
    """1 MiB, or as many bytes as the broker takes where that is less."""
    limit = (await harness.capabilities()).max_message_nbytes
    size = MIB if limit is None else min(MIB, limit)
    return bytes(range(256)) * (size // 256) + b"x" * (size % 256)


class SendingRules:
    """Each test is a rule."""

    async def test_a_message_arrives_unchanged_with_a_non_utf8_body_and_all_attributes(self, harness: Harness) -> None:
        sent = message_with_everything()
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [sent])
            delivery = await harness.take_one(broker, queue)
            assert delivery.message == sent
            assert delivery.queue == queue
            assert delivery.delivery_count == 1
            assert delivery.lock_token
            assert 0 < delivery.locked_until - time.monotonic() < 10 * broker.lock_duration

    async def test_a_message_without_attributes_arrives_unchanged_with_an_empty_body(self, harness: Harness) -> None:
        sent = Message()
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [sent])
            assert (await harness.take_one(broker, queue)).message == sent

    async def test_any_content_type_arrives_unchanged_and_harms_no_other_message_of_its_batch(
        self, harness: Harness
    ) -> None:
        """Callers name it in an HTTP header, which may be any bytes: one caller's must not cost another's message."""
        types = ["text/plain", *ODD_CONTENT_TYPES, "text/plain"]
        messages = [Message(body=str(i).encode(), content_type=one) for i, one in enumerate(types)]
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, messages)
            deliveries = await harness.take(broker, queue, len(messages))
            arrived = {delivery.message.id: delivery.message for delivery in deliveries}
            assert [arrived[one.id].content_type for one in messages] == types
            assert [arrived[one.id].body for one in messages] == [one.body for one in messages]
            await broker.complete(deliveries)
            await harness.expect_stats(broker, queue)

    async def test_an_empty_batch_is_a_no_op_for_every_verb(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [])
            await broker.complete([])
            await broker.abandon([])
            await broker.dead_letter([], reason="none")
            assert await broker.renew_lock([]) == []
            await harness.expect_stats(broker, queue)

    async def test_a_batch_of_messages_arrives_whole_and_once(self, harness: Harness) -> None:
        messages = [Message(body=str(i).encode()) for i in range(100)]
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, messages)
            deliveries = await harness.take(broker, queue, 100)
            assert sorted(d.message.id for d in deliveries) == sorted(m.id for m in messages)
            assert {d.message.id: d.message.body for d in deliveries} == {m.id: m.body for m in messages}
            assert len({d.lock_token for d in deliveries}) == 100
            await broker.complete(deliveries)
            await harness.expect_stats(broker, queue)

    async def test_a_send_of_several_hundred_messages_arrives_whole(self, harness: Harness) -> None:
        """However many the product takes in one go."""
        messages = [Message(body=str(i).encode()) for i in range(300)]
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, messages)
            deliveries = await harness.take(broker, queue, 300)
            assert {d.message.id: d.message.body for d in deliveries} == {m.id: m.body for m in messages}
            await broker.complete(deliveries)
            await harness.expect_stats(broker, queue)

    async def test_a_body_of_1_mib_arrives_unchanged(self, harness: Harness) -> None:
        """Or of as many bytes as the broker takes, where that is less."""
        body = await large_body(harness)
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message(body=body)])
            assert (await harness.take_one(broker, queue)).message.body == body

    async def test_a_message_over_the_limit_raises_and_nothing_of_its_batch_is_sent(self, harness: Harness) -> None:
        limit = (await harness.capabilities()).max_message_nbytes
        if limit is None:
            pytest.skip(f"RULE NOT CHECKED: the adapter of {harness.place} declares max_message_nbytes=None: no limit")
        too_large = Message(body=bytes(limit + 1))
        async with harness.connect_to_queue() as (broker, queue):
            with pytest.raises(MessageTooLargeError) as caught:
                await broker.send(queue, [Message(), too_large])
            assert caught.value.limit == limit
            assert caught.value.nbytes > limit
            await harness.expect_nothing(broker, queue)

    async def test_messages_of_equal_priority_come_in_the_order_in_which_they_were_sent(self, harness: Harness) -> None:
        await harness.needs("ordered")
        messages = [Message() for _ in range(60)]
        async with harness.connect_to_queue() as (broker, queue):
            for start in range(0, 60, 7):
                await broker.send(queue, messages[start : start + 7])
            deliveries = [d for _ in range(20) for d in await harness.take(broker, queue, 3)]
            assert [d.message.id for d in deliveries] == [m.id for m in messages]

    async def test_an_abandoned_message_comes_back_at_its_old_place(self, harness: Harness) -> None:
        await harness.needs("ordered")
        messages = [Message() for _ in range(4)]
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, messages)
            held = await harness.take(broker, queue, 2)
            await broker.abandon(held[:1])
            again = await harness.take(broker, queue, 3)
            assert [d.message.id for d in again] == [messages[i].id for i in (0, 2, 3)]

    async def test_priorities_that_are_lanes_serve_the_high_ones_mostly_and_the_low_ones_too(
        self, harness: Harness
    ) -> None:
        await harness.needs("priority")
        if (await harness.capabilities()).strict_priority:
            pytest.skip(f"RULE NOT CHECKED: the adapter of {harness.place} declares strict_priority=True")
        high, low = [Message(priority=9) for _ in range(60)], [Message(priority=-9) for _ in range(60)]
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [*low, *high])
            served = [(await harness.take_one(broker, queue)).message.priority for _ in range(60)]
            assert 40 <= served.count(9) < 60, f"of 60 served with 60 of each waiting, {served.count(9)} were high ones"

    async def test_a_larger_priority_is_served_first_whenever_it_was_sent(self, harness: Harness) -> None:
        await harness.needs("strict_priority")
        priorities = [0, 5, 1, 9, 5, 0]
        messages = [Message(priority=priority) for priority in priorities]
        async with harness.connect_to_queue() as (broker, queue):
            for message in messages:
                await broker.send(queue, [message])
            deliveries = await harness.take(broker, queue, len(messages))
            assert [d.message.priority for d in deliveries] == sorted(priorities, reverse=True)
            if (await harness.capabilities()).ordered:
                assert [d.message.id for d in deliveries] == [messages[i].id for i in (3, 1, 4, 2, 0, 5)]

    async def test_a_message_sent_with_a_delay_comes_after_it(self, harness: Harness) -> None:
        await harness.needs("send_delay")
        delay = harness.lock_duration
        async with harness.connect_to_queue() as (broker, queue):
            sent_at = time.monotonic()
            await broker.send(queue, [Message()], delay=delay)
            await harness.expect_stats(broker, queue, delayed=1)
            await harness.take_one(broker, queue)
            assert time.monotonic() - sent_at >= delay * 0.9, "the message came before its delay was over"

    async def test_a_delay_that_ends_wakes_a_waiting_receiver(self, harness: Harness) -> None:
        await harness.needs("send_delay")
        async with harness.connect_to_queue() as (broker, queue):
            receiving = harness.start(broker.receive(queue, max_messages=1, max_wait=20 * harness.slack))
            await asyncio.sleep(harness.quiet / 4)
            await broker.send(queue, [Message()], delay=harness.lock_duration)
            async with asyncio.timeout(harness.lock_duration + harness.slack):
                assert len(await receiving) == 1

    async def test_a_delay_that_the_product_cannot_keep_is_none(self, harness: Harness) -> None:
        """The message is ready at once: handing back must not fail, and what waits for nothing must not be lost."""
        can = await harness.capabilities()
        if can.send_delay and can.abandon_delay:
            pytest.skip(f"RULE NOT CHECKED: the adapter of {harness.place} declares send_delay and abandon_delay")
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message()], delay=0.0 if can.send_delay else 1000.0)
            held = await harness.take(broker, queue)
            if not can.abandon_delay:
                await broker.abandon(held, delay=1000.0)
                assert (await harness.take_one(broker, queue)).message.id == held[0].message.id

    async def test_a_second_send_of_the_same_message_id_is_dropped(self, harness: Harness) -> None:
        """So that whoever is not sure that a send was confirmed may send again, also after the message was served."""
        await harness.needs("deduplication")
        message, other = Message(body=b"once"), Message(body=b"other")
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [message])
            await broker.send(queue, [message, other])
            await broker.complete(await harness.take(broker, queue, 2))
            await broker.send(queue, [message])
            await harness.expect_nothing(broker, queue)

    async def test_an_id_that_comes_twice_in_one_send_is_one_message(self, harness: Harness) -> None:
        await harness.needs("deduplication")
        message, other = Message(body=b"once"), Message(body=b"other")
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [message, other, message])
            held = await harness.take(broker, queue, 2)
            assert {d.message.id for d in held} == {message.id, other.id}
            await harness.expect_nothing(broker, queue)
            await harness.expect_stats(broker, queue, locked=2)
