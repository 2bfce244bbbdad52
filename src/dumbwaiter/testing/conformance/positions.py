"""Rules about a message's place in line, where the broker knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dumbwaiter.message import Message
from dumbwaiter.testing.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.testing.conformance.harness import Harness


class PositionRules:
    """Each test is a rule."""

    async def test_a_position_counts_the_messages_that_are_served_before(self, harness: Harness) -> None:
        await harness.needs("queue_position")
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            messages = [Message() for _ in range(5)]
            for message in messages:
                await broker.send(queue, [message])
            if (await harness.capabilities()).ordered:
                await expect_positions(broker, queue, messages, [0, 1, 2, 3, 4])
            else:
                found = [await broker.position(queue, message.id) for message in messages]
                assert sorted(found, key=str) == [0, 1, 2, 3, 4]
            served = await harness.take_one(broker, queue)
            await broker.complete([served])
            rest = [message for message in messages if message.id != served.message.id]
            for watcher in (broker, other):
                found = [await watcher.position(queue, message.id) for message in rest]
                assert sorted(found, key=str) == [0, 1, 2, 3], f"positions are {found} once the first one was served"

    async def test_a_position_follows_priority_and_then_the_order_of_sending(self, harness: Harness) -> None:
        await harness.needs("queue_position")
        await harness.needs("priority")
        async with harness.connect_to_queue() as (broker, queue):
            messages = [Message(priority=priority) for priority in (0, 5, -5, 5)]
            for message in messages:
                await broker.send(queue, [message])
            if (await harness.capabilities()).ordered:
                await expect_positions(broker, queue, messages, [2, 0, 3, 1])
            else:
                await expect_positions(broker, queue, [messages[0], messages[2]], [2, 3])

    async def test_a_message_that_does_not_wait_has_no_position(self, harness: Harness) -> None:
        """One that is locked, dead, completed, delayed, in another queue or unknown; nor does it hold up others."""
        await harness.needs("queue_position")
        can_delay = (await harness.capabilities()).send_delay
        async with harness.connect_to_queue() as (broker, queue):
            elsewhere = harness.new_queue()
            await broker.create_queue(elsewhere)
            stranger, delayed, last = Message(), Message(priority=9), Message()
            await broker.send(elsewhere, [stranger])
            await broker.send(queue, [Message() for _ in range(3)])
            locked, dead, done = await harness.take(broker, queue, 3)
            await broker.dead_letter([dead], reason="counted")
            await broker.complete([done])
            if can_delay:
                await broker.send(queue, [delayed], delay=60.0)
            await broker.send(queue, [last])
            not_waiting = [locked.message, dead.message, done.message, delayed, stranger, Message()]
            await expect_positions(broker, queue, [last, *not_waiting], [0, *[None] * len(not_waiting)])
            await broker.complete([locked])

    async def test_a_message_that_comes_back_has_a_position_again(self, harness: Harness) -> None:
        """Abandoned, or because its lock ran out."""
        await harness.needs("queue_position")
        async with harness.connect_to_queue(harness.lock_duration) as (broker, queue):
            await broker.send(queue, [Message()])
            held = await harness.take_one(broker, queue)
            await broker.abandon([held])
            await expect_positions(broker, queue, [held.message], [0])
            held = await harness.take_one(broker, queue)
            await expect_positions(broker, queue, [held.message], [None])

            async def is_back() -> bool:
                return await broker.position(queue, held.message.id) == 0

            await eventually(is_back, within=harness.lock_duration + harness.slack, what="the position after the lock")


async def expect_positions(
    broker: Broker, queue: str, messages: Sequence[Message], positions: Sequence[int | None]
) -> None:
    """position() says *positions* of *messages*."""
    found = [await broker.position(queue, message.id) for message in messages]
    assert found == list(positions), f"positions are {found}, expected {list(positions)}"
