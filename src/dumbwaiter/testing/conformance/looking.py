"""Rules about queues and statistics, and about brokers that are closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from dumbwaiter.errors import BrokerClosedError, QueueNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.testing.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.message import Delivery
    from dumbwaiter.testing.conformance.harness import Harness


class LookingRules:
    """Each test is a rule."""

    async def test_an_unknown_queue_raises_naming_it(self, harness: Harness) -> None:
        queue = harness.new_queue()
        async with harness.connect() as broker:
            verbs: list[Callable[[], Awaitable[object]]] = [
                lambda: broker.send(queue, [Message()]),
                lambda: broker.receive(queue, max_messages=1, max_wait=harness.quiet),
                lambda: broker.stats(queue),
                lambda: broker.dead_letters(queue),
                lambda: broker.redrive(queue),
                lambda: broker.purge(queue),
            ]
            for verb in verbs:
                with pytest.raises(QueueNotFoundError, match=queue) as caught:
                    async with asyncio.timeout(harness.slack + harness.quiet):
                        await verb()
                assert caught.value.queue == queue
            assert queue not in await broker.queues()

    async def test_creating_a_queue_twice_keeps_what_it_holds(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [Message(), Message()])
            held = await harness.take_one(broker, queue)
            await broker.create_queue(queue)
            await other.create_queue(queue)
            await harness.expect_stats(other, queue, ready=1, locked=1)
            await broker.complete([held])

    async def test_queues_lists_all_names_in_order(self, harness: Harness) -> None:
        names = sorted(harness.new_queue() for _ in range(3))
        async with harness.connect() as broker, harness.connect() as other:
            for name in reversed(names):
                await broker.create_queue(name)
            listed = await other.queues()
            assert listed == sorted(listed)
            assert [name for name in listed if name in names] == names

    async def test_queue_names_may_hold_dots_dashes_and_capitals(self, harness: Harness) -> None:
        queue = f"{harness.new_queue()}.Resnet-50_v2"
        async with harness.connect() as broker:
            await broker.create_queue(queue)
            await broker.send(queue, [Message()])
            assert (await harness.take_one(broker, queue)).queue == queue

    async def test_two_queues_do_not_mix(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, one):
            two = harness.new_queue()
            await broker.create_queue(two)
            mine, yours = Message(body=b"one"), Message(body=b"two")
            await broker.send(one, [mine])
            await broker.send(two, [yours])
            first = await harness.take_one(broker, one)
            second = await harness.take_one(broker, two)
            assert (first.message.id, second.message.id) == (mine.id, yours.id)
            await harness.expect_nothing(broker, one)
            await broker.dead_letter([first], reason="over")
            assert await broker.dead_letters(two) == []
            await harness.expect_stats(broker, one, dead=1)
            await harness.expect_stats(broker, two, locked=1)

    async def test_deliveries_of_several_queues_can_be_settled_in_one_call(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, one):
            two = harness.new_queue()
            await broker.create_queue(two)
            await broker.send(one, [Message()])
            await broker.send(two, [Message()])
            held = [await harness.take_one(broker, one), await harness.take_one(broker, two)]
            await broker.complete(await broker.renew_lock(held))
            await harness.expect_stats(broker, one)
            await harness.expect_stats(broker, two)

    async def test_the_same_message_id_may_travel_in_two_queues(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, one):
            two = harness.new_queue()
            await broker.create_queue(two)
            message = Message()
            for queue in (one, two):
                await broker.send(queue, [message])
                assert (await harness.take_one(broker, queue)).message.id == message.id

    async def test_stats_count_what_is_ready_locked_delayed_and_dead(self, harness: Harness) -> None:
        delayed = 1 if harness.capabilities.send_delay else 0
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [Message() for _ in range(6)])
            held = await harness.take(broker, queue, 3)
            await broker.dead_letter(held[:1], reason="counted")
            if delayed:
                await broker.send(queue, [Message()], delay=60.0)
            for watcher in (broker, other):
                await harness.expect_stats(watcher, queue, ready=3, locked=2, delayed=delayed, dead=1)

    async def test_stats_tell_the_age_of_the_oldest_ready_message(self, harness: Harness) -> None:
        pause = harness.stats_age + harness.quiet
        async with harness.connect_to_queue() as (broker, queue):
            assert (await broker.stats(queue)).oldest_age == 0.0
            await broker.send(queue, [Message()])
            await asyncio.sleep(pause)
            await broker.send(queue, [Message()])

            async def of_the_older_one() -> bool:
                age = (await broker.stats(queue)).oldest_age
                assert age >= pause * 0.8, f"oldest_age is {age} s after {pause} s"
                assert age < pause + 2 * harness.slack + harness.stats_age
                return True

            await eventually(of_the_older_one, within=harness.stats_age + harness.slack)
            await broker.complete(await harness.take(broker, queue, 2))

            async def gone() -> bool:
                return (await broker.stats(queue)).oldest_age == 0.0

            await eventually(gone, within=harness.stats_age + harness.slack, what="oldest_age 0.0 without messages")

    async def test_every_verb_of_a_closed_broker_raises(self, harness: Harness) -> None:
        broker = await harness.open(harness.lock_duration)
        queue = harness.new_queue()
        await broker.create_queue(queue)
        await broker.send(queue, [Message(), Message()])
        held = await harness.take(broker, queue)
        inbox = await broker.open_inbox()
        await broker.close()
        verbs = _verbs(broker, queue, held)
        verbs.append(lambda: inbox.receive(max_messages=1, max_wait=harness.quiet))
        for verb in verbs:
            with pytest.raises(BrokerClosedError):
                await verb()

    async def test_closing_twice_is_no_error(self, harness: Harness) -> None:
        async with harness.connect() as broker:
            await broker.close()
            await broker.close()

    async def test_a_receiver_that_waits_learns_that_its_broker_was_closed(self, harness: Harness) -> None:
        broker = await harness.open(harness.lock_duration)
        queue = harness.new_queue()
        await broker.create_queue(queue)
        receiving = asyncio.create_task(broker.receive(queue, max_messages=1, max_wait=20 * harness.slack))
        await asyncio.sleep(harness.quiet / 2)
        await broker.close()
        with pytest.raises(BrokerClosedError):
            async with asyncio.timeout(harness.slack):
                await receiving

    async def test_closing_one_broker_leaves_the_others_of_its_server_alone(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            async with harness.connect() as other:
                await other.send(queue, [Message()])
            await broker.complete([await harness.take_one(broker, queue)])


def _verbs(broker: Broker, queue: str, held: list[Delivery]) -> list[Callable[[], Awaitable[object]]]:
    return [
        lambda: broker.create_queue(queue),
        broker.queues,
        lambda: broker.send(queue, [Message()]),
        lambda: broker.receive(queue, max_messages=1, max_wait=0.1),
        lambda: broker.complete(held),
        lambda: broker.abandon(held),
        lambda: broker.dead_letter(held, reason="closed"),
        lambda: broker.renew_lock(held),
        lambda: broker.stats(queue),
        lambda: broker.dead_letters(queue),
        lambda: broker.redrive(queue),
        lambda: broker.purge(queue),
        broker.open_inbox,
        lambda: broker.reply("anywhere", [Message()]),
    ]
