"""Rules about request and reply."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from dumbwaiter.errors import BrokerClosedError, InboxGoneError
from dumbwaiter.message import Message
from dumbwaiter.testing.conformance.looking import error_of
from dumbwaiter.testing.conformance.sending import large_body, message_with_everything

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dumbwaiter.brokers.contract import Inbox
    from dumbwaiter.testing.conformance.harness import Harness


class InboxRules:
    """Each test is a rule."""

    async def test_a_reply_reaches_the_inbox_that_asked_with_its_correlation_id(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (asker, queue), harness.connect() as worker:
            inbox = await asker.open_inbox()
            request = Message(body=b"question", reply_to=inbox.address)
            await asker.send(queue, [request])
            delivery = await harness.take_one(worker, queue)
            assert delivery.message.reply_to == inbox.address
            answer = Message(body=b"\xff answer", correlation_id=delivery.message.id)
            await worker.reply(inbox.address, [answer])
            await worker.complete([delivery])
            assert await _read(inbox, harness) == [answer]
            assert answer.correlation_id == request.id

    async def test_a_reply_arrives_unchanged_with_all_attributes(self, harness: Harness) -> None:
        answers = [message_with_everything(), Message()]
        async with harness.connect() as broker:
            inbox = await broker.open_inbox()
            await broker.reply(inbox.address, answers)
            assert await _read(inbox, harness, 2) == answers

    async def test_a_reply_of_1_mib_arrives_unchanged(self, harness: Harness) -> None:
        """Or of as many bytes as the broker takes, where that is less."""
        answer = Message(body=await large_body(harness))
        async with harness.connect() as broker:
            inbox = await broker.open_inbox()
            await broker.reply(inbox.address, [answer])
            assert await _read(inbox, harness) == [answer]

    async def test_a_reply_wakes_a_reader_that_waits(self, harness: Harness) -> None:
        async with harness.connect() as broker, harness.connect() as worker:
            inbox = await broker.open_inbox()
            reading = harness.start(inbox.receive(max_messages=5, max_wait=20 * harness.slack))
            await asyncio.sleep(harness.quiet / 2)
            await worker.reply(inbox.address, [Message()])
            async with asyncio.timeout(harness.slack):
                assert len(await reading) == 1

    async def test_a_reply_is_read_once_and_an_empty_inbox_waits_at_most_max_wait(self, harness: Harness) -> None:
        max_wait = 2 * harness.quiet
        async with harness.connect() as broker:
            inbox = await broker.open_inbox()
            answers = [Message() for _ in range(3)]
            await broker.reply(inbox.address, answers)
            first = await inbox.receive(max_messages=2, max_wait=harness.slack)
            assert len(first) <= 2
            read = first + await _read(inbox, harness, 3 - len(first))
            assert sorted(message.id for message in read) == sorted(answer.id for answer in answers)
            started = time.monotonic()
            async with asyncio.timeout(max_wait + harness.slack):
                assert await inbox.receive(max_messages=1, max_wait=max_wait) == []
            assert time.monotonic() - started >= max_wait * 0.8, "an empty list came before max_wait was over"

    async def test_two_inboxes_do_not_mix(self, harness: Harness) -> None:
        async with harness.connect() as broker, harness.connect() as other:
            inboxes = [await broker.open_inbox(), await broker.open_inbox(), await other.open_inbox()]
            assert len({inbox.address for inbox in inboxes}) == 3
            answers = [Message() for _ in inboxes]
            # The other way round, so that one inbox under three names does not get them right by chance.
            for inbox, answer in reversed(list(zip(inboxes, answers, strict=True))):
                await other.reply(inbox.address, [answer])
            for inbox, answer in zip(inboxes, answers, strict=True):
                assert await _read(inbox, harness) == [answer]

    async def test_many_replies_from_several_workers_all_arrive(self, harness: Harness) -> None:
        answers = [Message(body=bytes([i])) for i in range(200)]
        async with harness.connect() as asker, harness.connect() as one, harness.connect() as two:
            inbox = await asker.open_inbox()
            sends = [(one, two)[i % 2].reply(inbox.address, answers[i : i + 5]) for i in range(0, 200, 5)]
            await asyncio.gather(*sends)
            assert {message.id for message in await _read(inbox, harness, 200)} == {a.id for a in answers}

    async def test_an_inbox_can_be_iterated(self, harness: Harness) -> None:
        answers = [Message() for _ in range(3)]
        async with harness.connect() as broker:
            inbox = await broker.open_inbox()
            await broker.reply(inbox.address, answers)
            read: list[str] = []
            async with asyncio.timeout(harness.slack):
                async for message in inbox:
                    read.append(message.id)
                    if len(read) == len(answers):
                        break
            assert sorted(read) == sorted(answer.id for answer in answers)

    async def test_a_cancelled_read_of_an_inbox_loses_no_reply(self, harness: Harness) -> None:
        async with harness.connect() as broker:
            inbox = await broker.open_inbox()
            for round_ in range(20):
                reading = harness.start(inbox.receive(max_messages=1, max_wait=60.0))
                await asyncio.sleep(0.0 if round_ % 2 else harness.quiet / 40)
                answer = Message()
                replying = harness.start(broker.reply(inbox.address, [answer]))
                for _ in range(round_ // 2):
                    await asyncio.sleep(0)
                reading.cancel()
                (outcome,) = await asyncio.gather(reading, return_exceptions=True)
                await replying
                read = await _read(inbox, harness) if isinstance(outcome, BaseException) else outcome
                assert [message.id for message in read] == [answer.id]

    async def test_a_reply_to_a_closed_inbox_raises_inbox_gone(self, harness: Harness) -> None:
        await harness.needs("knows_gone_inboxes")
        async with harness.connect() as asker, harness.connect() as worker:
            inbox = await asker.open_inbox()
            await worker.reply(inbox.address, [Message()])
            await inbox.close()
            with pytest.raises(InboxGoneError) as caught:
                await worker.reply(inbox.address, [Message()])
            assert caught.value.address == inbox.address

    async def test_a_reply_to_the_inbox_of_a_closed_broker_raises_inbox_gone(self, harness: Harness) -> None:
        await harness.needs("knows_gone_inboxes")
        async with harness.connect() as worker:
            async with harness.connect() as asker:
                inbox = await asker.open_inbox()
            with pytest.raises(InboxGoneError):
                await worker.reply(inbox.address, [Message()])

    async def test_a_reader_that_waits_learns_that_its_inbox_was_closed(self, harness: Harness) -> None:
        async with harness.connect() as broker:
            for turns in (0, 1, 2, 3, None):
                inbox = await broker.open_inbox()
                await _expect_closed(inbox, harness, inbox.close, turns)

    async def test_a_reader_that_waits_learns_that_its_broker_was_closed(self, harness: Harness) -> None:
        for turns in (0, 1, 2, 3, None):
            async with harness.connect() as broker:
                await _expect_closed(await broker.open_inbox(), harness, broker.close, turns)


async def _expect_closed(
    inbox: Inbox, harness: Harness, close: Callable[[], Awaitable[object]], turns: int | None
) -> None:
    reading = harness.start(inbox.receive(max_messages=1, max_wait=20 * harness.slack))
    await harness.let_run(turns)
    await close()
    await error_of("the inbox's receive", lambda: reading, BrokerClosedError, within=harness.slack)


async def _read(inbox: Inbox, harness: Harness, count: int = 1) -> list[Message]:
    messages: list[Message] = []
    while len(messages) < count:
        async with asyncio.timeout(2 * harness.slack):
            some = await inbox.receive(max_messages=count - len(messages), max_wait=harness.slack)
        assert some, f"only {len(messages)} of {count} replies came within {harness.slack} s"
        messages += some
    return messages
