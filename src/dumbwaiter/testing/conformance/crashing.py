"""Rules about kill -9: of whoever holds the messages, and of a server while brokers are connected to it."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING

import pytest

from dumbwaiter.errors import BrokerError, BrokerUnavailableError, LockLostError
from dumbwaiter.message import Message
from dumbwaiter.testing.conformance.harness import ServerHarness
from dumbwaiter.testing.conformance.looking import claims_to, error_of, verbs_of
from dumbwaiter.testing.conformance.sending import message_with_everything
from dumbwaiter.testing.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.message import Delivery
    from dumbwaiter.testing.conformance.harness import Harness


class CrashingRules:
    """Each test is a rule."""

    async def test_confirmed_messages_survive_kill_9_and_restart(self, harness: Harness) -> None:
        await harness.needs("durable")
        queue = harness.new_queue()
        messages = [message_with_everything(), *(Message(body=bytes([i])) for i in range(20))]
        await harness.send_and_crash(queue, messages)
        async with harness.connect() as broker:
            deliveries = await harness.take(broker, queue, len(messages))
            received = {d.message.id: d.message for d in deliveries}
            assert received == {message.id: message for message in messages}
            await broker.complete(deliveries)
            await harness.expect_stats(broker, queue)

    async def test_messages_locked_by_a_killed_process_come_back(self, harness: Harness) -> None:
        await harness.needs("multi_process")
        await _expect_all_again(harness, harness.send_and_die)

    async def test_messages_that_were_locked_when_their_server_died_come_back(self, harness: Harness) -> None:
        await harness.needs("durable")
        _server_of(harness)
        await _expect_all_again(harness, harness.send_and_crash)

    async def test_a_server_that_is_killed_among_a_thousand_messages_costs_none_of_them(self, harness: Harness) -> None:
        """One may come twice, for nobody knows whether what was under way was done."""
        await harness.needs("durable")
        server = _server_of(harness)
        messages = [Message(body=bytes([i % 256])) for i in range(1000)]
        came: set[str] = set()
        async with harness.connect_to_queue() as (producer, queue), harness.connect(harness.lock_duration) as consumer:
            sending = harness.start(_send_all(producer, queue, messages, harness))
            killing = harness.start(_restart(server, after=lambda: len(came) > len(messages) // 4))
            async with asyncio.timeout(15 * harness.slack):
                while len(came) < len(messages):
                    came |= await _complete_some(consumer, queue, harness)
                await asyncio.gather(sending, killing)
                while not await _is_empty(producer, queue, harness):
                    await _complete_some(consumer, queue, harness)
        assert came == {message.id for message in messages}

    async def test_every_verb_raises_while_the_server_is_down(self, harness: Harness) -> None:
        """A failed look-up is an error: stats never guess 0, and receive never says that the queue is empty."""
        server = _server_of(harness)
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message(), Message(), Message()])
            held = await harness.take(broker, queue)
            await broker.dead_letter(await harness.take(broker, queue), reason="poison")
            (letter,) = await eventually(lambda: broker.dead_letters(queue), within=5 * harness.slack)
            address, claims = (await broker.open_inbox()).address, claims_to(broker, held)
            await server.stop_server()
            try:
                verbs = verbs_of(broker, queue, held, address, max_wait=harness.quiet, claims=claims)
                verbs["open"] = lambda: harness.open(harness.lock_duration)
                verbs["is_dead_letter"] = lambda: broker.is_dead_letter(queue, letter.key)
                for name, verb in verbs.items():
                    await error_of(name, verb, BrokerUnavailableError, within=5 * harness.slack)
            finally:
                await server.start_server()

    async def test_what_could_not_be_settled_while_the_server_was_down_is_settled_later_by_the_same_call(
        self, harness: Harness
    ) -> None:
        """Or its lock is lost, and whoever receives the message again settles it."""
        await harness.needs("durable")
        server = _server_of(harness)
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message() for _ in range(3)])
            held = {d.message.id: d for d in await harness.take(broker, queue, 3)}
            done, dead, back = held
            verbs: dict[str, Callable[[list[Delivery]], Awaitable[None]]] = {
                done: broker.complete,
                dead: partial(broker.dead_letter, reason="over"),
                back: broker.abandon,
            }
            await server.stop_server()
            try:
                for id_, settle in verbs.items():
                    call = partial(settle, [held[id_]])
                    await error_of(str(settle), call, BrokerUnavailableError, within=5 * harness.slack)
            finally:
                await server.start_server()
            async with asyncio.timeout(15 * harness.slack):
                for id_, settle in verbs.items():
                    await _settle_at_last(broker, queue, settle, held, id_, harness)
            await harness.expect_stats(broker, queue, ready=1, dead=1)
            assert [letter.message.id for letter in await broker.dead_letters(queue)] == [dead]
            again = await harness.take_one(broker, queue)
            assert again.message.id == back
            assert again.delivery_count >= 2, "the delivery that was handed back counts"
            await broker.complete([again])

    async def test_a_receive_that_waits_while_the_server_dies_raises_or_gets_what_comes_later(
        self, harness: Harness
    ) -> None:
        """An empty list would say that the queue stayed silent, and nobody knows that."""
        server = _server_of(harness)
        async with harness.connect_to_queue() as (broker, queue):
            receiving = harness.start(broker.receive(queue, max_messages=1, max_wait=20 * harness.slack))
            await asyncio.sleep(harness.quiet / 2)
            await server.stop_server()
            await server.start_server()
            async with harness.connect() as producer:
                await producer.create_queue(queue)
                message = Message()
                await producer.send(queue, [message])
            try:
                async with asyncio.timeout(5 * harness.slack):
                    assert [d.message.id for d in await receiving] == [message.id]
            except BrokerError:
                pass  # it is unavailable, or its queue is not there yet: an honest answer both

    async def test_a_broker_reconnects_by_itself_after_its_server_restarts(self, harness: Harness) -> None:
        server = _server_of(harness)
        async with harness.connect_to_queue() as (broker, queue):
            await server.stop_server()
            await server.start_server()

            async def goes_round() -> bool:
                try:
                    await broker.check()
                    await broker.create_queue(queue)
                    await broker.send(queue, [Message()])
                    return await _completes_one(broker, queue, harness) and await _answers_one(broker, harness)
                except BrokerUnavailableError:
                    return False

            await eventually(goes_round, within=5 * harness.slack, every=0.05, what="a send and receive after restart")


def _server_of(harness: Harness) -> ServerHarness:
    if not isinstance(harness, ServerHarness):
        pytest.skip(f"RULE NOT CHECKED: the harness of {harness.place} has no server to stop (it is no ServerHarness)")
    return harness


async def _expect_all_again(harness: Harness, send_and_end: Callable[..., Awaitable[None]]) -> None:
    """Three messages, of which two are locked when whoever holds them ends, come to whoever asks next."""
    queue = harness.new_queue()
    messages = [Message(), Message(), Message()]
    await send_and_end(queue, messages, take=2)
    async with harness.connect() as broker:
        async with asyncio.timeout(harness.lock_duration + 3 * harness.slack):
            deliveries = [await harness.take_one(broker, queue) for _ in messages]
        assert {d.message.id for d in deliveries} == {message.id for message in messages}


async def _settle_at_last(
    broker: Broker,
    queue: str,
    settle: Callable[[list[Delivery]], Awaitable[None]],
    held: dict[str, Delivery],
    id_: str,
    harness: Harness,
) -> None:
    """*settle* the message *id_* of those *held*: again and again, and once more when it was lost and is back."""
    while True:
        try:
            return await settle([held[id_]])
        except BrokerUnavailableError:
            await asyncio.sleep(harness.quiet)
        except LockLostError:
            before = held[id_]
            while held[id_] is before:
                with contextlib.suppress(BrokerUnavailableError):
                    came = await broker.receive(queue, max_messages=3, max_wait=harness.quiet)
                    held.update((d.message.id, d) for d in came)


async def _send_all(broker: Broker, queue: str, messages: Sequence[Message], harness: Harness) -> None:
    """Send *messages* in small batches, each again and again until it is confirmed."""
    for start in range(0, len(messages), 20):
        while True:
            try:
                await broker.send(queue, messages[start : start + 20])
            except BrokerUnavailableError:
                await asyncio.sleep(harness.quiet)
            else:
                break


async def _complete_some(broker: Broker, queue: str, harness: Harness) -> set[str]:
    """The ids of what came. Nobody knows whether it was completed, where the server died meanwhile."""
    deliveries: list[Delivery] = []
    try:
        deliveries = await broker.receive(queue, max_messages=20, max_wait=harness.quiet)
        await broker.complete(deliveries)
    except LockLostError:
        pass  # those come again
    except BrokerUnavailableError:
        await asyncio.sleep(harness.quiet)
    return {d.message.id for d in deliveries}


async def _is_empty(broker: Broker, queue: str, harness: Harness) -> bool:
    """Whether nothing is left; where the product does not count, whether nothing comes until all locks have run out."""
    stats = await broker.stats(queue)
    if stats.ready or stats.locked or stats.delayed:
        return False
    if broker.capabilities.counts_ready:
        return True
    left = await broker.receive(queue, max_messages=20, max_wait=harness.lock_duration + harness.quiet)
    await broker.complete(left)
    return not left


async def _restart(server: ServerHarness, *, after: Callable[[], bool]) -> None:
    await eventually(after, within=20 * server.slack, every=0.01, what="the moment to kill the server")
    await server.stop_server()
    await server.start_server()


async def _answers_one(broker: Broker, harness: Harness) -> bool:
    inbox = await broker.open_inbox()
    await broker.reply(inbox.address, [Message()])
    return bool(await inbox.receive(max_messages=1, max_wait=harness.slack))


async def _completes_one(broker: Broker, queue: str, harness: Harness) -> bool:
    deliveries = await broker.receive(queue, max_messages=1, max_wait=harness.slack)
    await broker.complete(deliveries)
    return bool(deliveries)
