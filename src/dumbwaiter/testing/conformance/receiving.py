"""Rules about receiving: how many, how long, and to whom."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from dumbwaiter.message import Delivery, Message

if TYPE_CHECKING:
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.testing.conformance.harness import Harness


class ReceivingRules:
    """Each test is a rule."""

    async def test_receive_returns_early_with_what_there_is(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message() for _ in range(3)])
            async with asyncio.timeout(harness.slack):
                first = await broker.receive(queue, max_messages=10, max_wait=20 * harness.slack)
                rest = await harness.take(broker, queue, 3 - len(first)) if len(first) < 3 else []
            assert len(first + rest) == 3

    async def test_receive_never_returns_more_than_was_asked_for(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message() for _ in range(10)])
            deliveries = await broker.receive(queue, max_messages=3, max_wait=harness.slack)
            assert 1 <= len(deliveries) <= 3
            await harness.expect_stats(broker, queue, ready=10 - len(deliveries), locked=len(deliveries))

    async def test_receive_waits_at_most_max_wait_and_no_less(self, harness: Harness) -> None:
        max_wait = 2 * harness.quiet
        async with harness.connect_to_queue() as (broker, queue):
            started = time.monotonic()
            async with asyncio.timeout(max_wait + harness.slack):
                assert await broker.receive(queue, max_messages=1, max_wait=max_wait) == []
            assert time.monotonic() - started >= max_wait * 0.8, "an empty list came before max_wait was over"

    async def test_receive_without_a_wait_returns_at_once(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            async with asyncio.timeout(harness.slack):
                assert await broker.receive(queue, max_messages=1, max_wait=0.0) == []

    async def test_who_asks_for_no_message_gets_none_at_once_and_nothing_is_looked_at(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message()])
            async with asyncio.timeout(harness.slack):
                for max_messages in (0, -1):
                    for name in (queue, harness.new_queue()):
                        wait = 20 * harness.slack
                        assert await broker.receive(name, max_messages=max_messages, max_wait=wait) == []
            await harness.expect_stats(broker, queue, ready=1)

    async def test_a_message_wakes_a_receiver_that_waits(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as producer:
            receiving = harness.start(broker.receive(queue, max_messages=5, max_wait=20 * harness.slack))
            await asyncio.sleep(harness.quiet / 2)
            message = Message()
            await producer.send(queue, [message])
            async with asyncio.timeout(harness.slack):
                assert [d.message.id for d in await receiving] == [message.id]

    async def test_a_locked_message_is_hidden_from_competitors(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (holder, queue), harness.connect() as competitor:
            await holder.send(queue, [Message()])
            await harness.take_one(holder, queue)
            await harness.expect_nothing(competitor, queue)
            await harness.expect_nothing(holder, queue)

    async def test_each_message_goes_to_exactly_one_of_several_consumers(self, harness: Harness) -> None:
        messages = [Message() for _ in range(120)]
        async with contextlib.AsyncExitStack() as stack:
            producer, queue = await stack.enter_async_context(harness.connect_to_queue())
            consumers = [await stack.enter_async_context(harness.connect()) for _ in range(4)]
            all_sent = asyncio.Event()
            draining = [harness.start(_drain(one, queue, all_sent, harness.quiet)) for one in consumers]
            for start in range(0, len(messages), 10):
                await producer.send(queue, messages[start : start + 10])
            all_sent.set()
            hauls = await asyncio.gather(*draining)
            received = [delivery.message.id for haul in hauls for delivery in haul]
            assert sorted(received) == sorted(message.id for message in messages)
            for consumer, haul in zip(consumers, hauls, strict=True):
                await consumer.complete(haul)
            await harness.expect_stats(producer, queue)

    async def test_a_cancelled_receive_locks_nothing_that_comes_later(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            receiving = harness.start(broker.receive(queue, max_messages=10, max_wait=60.0))
            await asyncio.sleep(harness.quiet / 2)
            await _cancel(receiving)
            await broker.send(queue, [Message()])
            await harness.expect_stats(broker, queue, ready=1)
            assert (await harness.take_one(broker, queue)).delivery_count >= 1

    async def test_a_receive_cancelled_while_messages_come_loses_none(self, harness: Harness) -> None:
        """Cancelled at every moment that a race can hit: what it did not return must be there for the next."""
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as next_one:
            for round_ in range(30):
                message = Message()
                receiving = harness.start(broker.receive(queue, max_messages=10, max_wait=60.0))
                await asyncio.sleep(0.0 if round_ % 2 else harness.quiet / 40)
                sending = harness.start(broker.send(queue, [message]))
                for _ in range(round_ // 2):
                    await asyncio.sleep(0)
                returned = await _cancel(receiving)
                await sending
                if returned:
                    assert [d.message.id for d in returned] == [message.id]
                    await broker.complete(returned)
                else:
                    delivery = await harness.take_one(next_one, queue)
                    assert delivery.message.id == message.id
                    await next_one.complete([delivery])
            await harness.expect_stats(broker, queue)

    async def test_a_receiver_cancelled_while_messages_come_leaves_them_to_the_next_that_waits(
        self, harness: Harness
    ) -> None:
        """A wake-up that goes to somebody who has just left must not be lost."""
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as producer:
            for round_ in range(20):
                leaving, staying = (
                    harness.start(broker.receive(queue, max_messages=1, max_wait=20 * harness.slack)) for _ in range(2)
                )
                await asyncio.sleep(harness.quiet / 40)
                sending = harness.start(producer.send(queue, [Message()]))
                for _ in range(round_ // 2):
                    await asyncio.sleep(0)
                returned = await _cancel(leaving)
                await sending
                if returned:
                    await producer.send(queue, [Message()])
                async with asyncio.timeout(harness.slack):
                    await broker.complete(returned + await staying)
            await harness.expect_stats(broker, queue)

    async def test_a_batch_wakes_as_many_receivers_as_it_can_serve(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (one, queue), harness.connect() as two:
            receiving = [
                harness.start(broker.receive(queue, max_messages=1, max_wait=20 * harness.slack))
                for broker in (one, two, one)
            ]
            await asyncio.sleep(harness.quiet / 2)
            messages = [Message() for _ in receiving]
            await two.send(queue, messages)
            async with asyncio.timeout(harness.slack):
                received = await asyncio.gather(*receiving)
            assert sorted(d.message.id for haul in received for d in haul) == sorted(m.id for m in messages)

    async def test_a_receive_that_waits_holds_up_no_other_verb_of_its_broker(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            busy = harness.new_queue()
            await broker.create_queue(busy)
            receiving = harness.start(broker.receive(queue, max_messages=1, max_wait=20 * harness.slack))
            await asyncio.sleep(harness.quiet / 2)
            async with asyncio.timeout(harness.slack):
                await broker.send(busy, [Message()])
                await broker.complete(await broker.receive(busy, max_messages=1, max_wait=harness.slack))
                await broker.stats(busy)
                inbox = await broker.open_inbox()
                await broker.reply(inbox.address, [Message()])
                assert len(await inbox.receive(max_messages=1, max_wait=harness.slack)) == 1
            assert not receiving.done(), "a message of another queue ended the wait"
            assert await _cancel(receiving) == []

    async def test_every_verb_may_be_called_from_many_tasks_at_once(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):

            async def goes_round(i: int) -> Message:
                await broker.send(queue, [Message(body=bytes([i]))])
                (delivery,) = await harness.take(broker, queue)
                await broker.complete(await broker.renew_lock([delivery]))
                return delivery.message

            messages = await asyncio.gather(*(goes_round(i) for i in range(30)))
            assert sorted(message.body for message in messages) == [bytes([i]) for i in range(30)]
            await harness.expect_stats(broker, queue)


async def _drain(consumer: Broker, queue: str, all_sent: asyncio.Event, quiet: float) -> list[Delivery]:
    haul: list[Delivery] = []
    while True:
        was_last = all_sent.is_set()
        some = await consumer.receive(queue, max_messages=7, max_wait=quiet)
        if not some and was_last:
            return haul
        haul += some


async def _cancel(receiving: asyncio.Task[list[Delivery]]) -> list[Delivery]:
    """What *receiving* returned all the same; nothing if it was cancelled."""
    receiving.cancel()
    try:
        return await receiving
    except asyncio.CancelledError:
        return []
