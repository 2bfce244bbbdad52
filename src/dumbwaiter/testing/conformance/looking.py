"""Rules about queues and statistics, and about brokers that are closed."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from dumbwaiter.errors import BrokerClosedError, BrokerError, InvalidQueueNameError, QueueNotFoundError
from dumbwaiter.message import MAX_QUEUE_NAME, Message
from dumbwaiter.testing.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from dumbwaiter.brokers.contract import Broker, Claim
    from dumbwaiter.message import Delivery
    from dumbwaiter.testing.conformance.harness import Harness

E = TypeVar("E", bound=BrokerError)
_ROUNDS = 3
"""Brokers that are opened and closed again: each leaves less than one descriptor."""


class LookingRules:
    """Each test is a rule."""

    async def test_an_unknown_queue_raises_naming_it(self, harness: Harness) -> None:
        queue = harness.new_queue()
        async with harness.connect() as broker:
            of_a_queue = ["send", "receive", "stats", "position", "dead_letters", "is_dead_letter", "redrive", "purge"]
            for name, verb in verbs_of(broker, queue, [], "", max_wait=harness.quiet).items():
                if name in of_a_queue:
                    error = await error_of(name, verb, QueueNotFoundError, within=harness.slack + harness.quiet)
                    assert error.queue == queue
                    assert queue in str(error)
            assert not await broker.has_queue(queue)

    async def test_creating_a_queue_twice_keeps_what_it_holds(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [Message(), Message()])
            held = await harness.take_one(broker, queue)
            await broker.create_queue(queue)
            await other.create_queue(queue)
            await harness.expect_stats(other, queue, ready=1, locked=1)
            await broker.complete([held])

    async def test_queues_lists_all_names_in_order(self, harness: Harness) -> None:
        await harness.needs("lists_queues")
        names = sorted(harness.new_queue() for _ in range(3))
        async with harness.connect() as broker, harness.connect() as other:
            for name in reversed(names):
                await broker.create_queue(name)
            listed = await other.queues()
            assert listed == sorted(listed)
            # Whatever else an adapter makes for a queue, such as its dead letters' own, is nobody's business.
            assert [listed_name for listed_name in listed if any(name in listed_name for name in names)] == names

    async def test_queue_names_may_hold_dots_dashes_and_capitals(self, harness: Harness) -> None:
        queue = f"{harness.new_queue()}.Resnet-50_v2"
        async with harness.connect() as broker:
            await broker.create_queue(queue)
            await broker.send(queue, [Message()])
            assert (await harness.take_one(broker, queue)).queue == queue

    async def test_a_queue_name_may_be_as_long_as_the_contract_says(self, harness: Harness) -> None:
        """And no two names become one where the product must shorten them."""
        start = harness.new_queue().ljust(MAX_QUEUE_NAME - 1, "x")
        async with harness.connect() as broker:
            for name in (f"{start}1", f"{start}2"):
                await broker.create_queue(name)
                await broker.send(name, [Message()])
                assert (await harness.take_one(broker, name)).queue == name
                assert await broker.has_queue(name)

    async def test_a_name_that_not_every_broker_takes_is_refused_for_a_queue(self, harness: Harness) -> None:
        names = ["", ".hidden", "-flag", "two words", "a/b", "naïve", "line\n", "x" * (MAX_QUEUE_NAME + 1)]
        async with harness.connect() as broker:
            for name in names:
                create = partial(broker.create_queue, name)
                error = await error_of(f"create_queue({name!r})", create, InvalidQueueNameError, within=harness.slack)
                assert error.name == name
                assert not await broker.has_queue(name)

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
        delayed = 1 if (await harness.capabilities()).send_delay else 0
        async with harness.connect_to_queue() as (broker, queue), harness.connect() as other:
            await broker.send(queue, [Message() for _ in range(6)])
            held = await harness.take(broker, queue, 3)
            await broker.dead_letter(held[:1], reason="counted")
            if delayed:
                await broker.send(queue, [Message()], delay=60.0)
            for watcher in (broker, other):
                await harness.expect_stats(watcher, queue, ready=3, locked=2, delayed=delayed, dead=1)

    async def test_stats_tell_the_age_of_the_oldest_ready_message(self, harness: Harness) -> None:
        await harness.needs("oldest_age")
        pause = harness.stats_age + harness.quiet
        async with harness.connect_to_queue() as (broker, queue):
            assert (await broker.stats(queue)).oldest_age == 0.0
            await broker.send(queue, [Message()])
            sent_at = time.monotonic()
            await asyncio.sleep(pause)
            await broker.send(queue, [Message()])

            async def of_the_older_one() -> bool:
                waited = time.monotonic() - sent_at
                age = (await broker.stats(queue)).oldest_age
                assert age is not None, "capabilities.oldest_age says that the age is known"
                # The younger one's age never comes within this, however late we look.
                assert age >= waited - harness.stats_age - harness.quiet / 2, f"oldest_age is {age} s after {waited} s"
                assert age < waited + 2 * harness.slack + harness.stats_age
                return True

            await eventually(of_the_older_one, within=harness.stats_age + harness.slack)
            await broker.complete(await harness.take(broker, queue, 2))

            async def gone() -> bool:
                return (await broker.stats(queue)).oldest_age == 0.0

            await eventually(gone, within=harness.stats_age + harness.slack, what="oldest_age 0.0 without messages")

    async def test_an_age_that_a_broker_cannot_tell_is_none_and_no_guess(self, harness: Harness) -> None:
        if (await harness.capabilities()).oldest_age:
            pytest.skip(f"RULE NOT CHECKED: the adapter of {harness.place} declares oldest_age=True")
        async with harness.connect_to_queue() as (broker, queue):
            assert (await broker.stats(queue)).oldest_age is None
            await broker.send(queue, [Message()])
            assert (await broker.stats(queue)).oldest_age is None

    async def test_a_check_of_a_broker_that_works_returns_and_changes_nothing(self, harness: Harness) -> None:
        """No message, queue or lock, that is. It tries the write path too: an adapter whose server may be full writes
        something of its own, and its tests fill the disk.
        """
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message(), Message()])
            held = await harness.take(broker, queue)
            lists = broker.capabilities.lists_queues
            before = await broker.queues() if lists else []
            async with asyncio.timeout(harness.slack):
                for _ in range(3):
                    await broker.check()
            assert (await broker.queues() if lists else []) == before
            await harness.expect_stats(broker, queue, ready=1, locked=1)
            await broker.complete(held)

    async def test_an_examination_says_what_the_broker_guarantees_and_changes_nothing(self, harness: Harness) -> None:
        """Each finding in a sentence; and what should be changed, with the line to change."""
        async with harness.connect_to_queue() as (broker, queue):
            await broker.send(queue, [Message()])
            findings = await broker.examine(longest_run=1.0)
            assert [one for one in findings if one.subject == "durability"], f"not a word of durability: {findings}"
            assert all(one.text and one.subject for one in findings)
            assert all(one.remedy for one in findings if one.level in {"warning", "danger"})
            await harness.expect_stats(broker, queue, ready=1)

    async def test_every_verb_of_a_closed_broker_raises(self, harness: Harness) -> None:
        broker = await harness.open(harness.lock_duration)
        queue = harness.new_queue()
        await broker.create_queue(queue)
        await broker.send(queue, [Message(), Message()])
        held = await harness.take(broker, queue)
        inbox, claims = await broker.open_inbox(), claims_to(broker, held)
        await broker.close()
        assert not claims_to(broker, held), "a closed broker holds nothing"
        verbs = verbs_of(broker, queue, held, inbox.address, max_wait=harness.quiet, claims=claims)
        verbs["the inbox's receive"] = lambda: inbox.receive(max_messages=1, max_wait=harness.quiet)
        for name, verb in verbs.items():
            await error_of(name, verb, BrokerClosedError, within=harness.slack + harness.quiet)

    async def test_closing_twice_is_no_error(self, harness: Harness) -> None:
        async with harness.connect() as broker:
            await broker.close()
            await broker.close()

    async def test_brokers_that_were_closed_leave_no_descriptor_open(self, harness: Harness) -> None:
        """A program that connects now and then would run out of them."""
        before = 0
        for number in range(1 + _ROUNDS):
            if number == 1:  # what the first one has opened for the whole process stays
                await asyncio.sleep(harness.quiet)
                before = _open_descriptors()
            async with harness.connect_to_queue() as (broker, queue):
                await broker.open_inbox()
                await broker.send(queue, [Message()])
                await broker.complete(await harness.take(broker, queue))
        none_left = "as many open descriptors as before"
        await eventually(lambda: _open_descriptors() < before + _ROUNDS, within=harness.slack, what=none_left)

    async def test_a_receiver_that_waits_learns_that_its_broker_was_closed(self, harness: Harness) -> None:
        """Whether it has waited for long or has only just been called."""
        for turns in (0, 1, 2, 3, None):
            async with harness.connect_to_queue() as (broker, queue):
                receiving = harness.start(broker.receive(queue, max_messages=1, max_wait=20 * harness.slack))
                await harness.let_run(turns)
                await broker.close()
                with pytest.raises(BrokerClosedError):
                    async with asyncio.timeout(harness.slack):
                        await receiving

    async def test_closing_one_broker_leaves_the_others_of_its_server_alone(self, harness: Harness) -> None:
        async with harness.connect_to_queue() as (broker, queue):
            inbox = await broker.open_inbox()
            await broker.send(queue, [Message()])
            held = await harness.take(broker, queue)
            async with harness.connect() as other:
                await other.send(queue, [Message()])
            await harness.expect_stats(broker, queue, ready=1, locked=1)
            await broker.complete(held + await harness.take(broker, queue))
            await broker.reply(inbox.address, [Message()])
            assert len(await inbox.receive(max_messages=1, max_wait=harness.slack)) == 1


def _open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def verbs_of(
    broker: Broker,
    queue: str,
    held: list[Delivery],
    address: str,
    *,
    max_wait: float,
    claims: Sequence[Claim] = (),
) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every verb of *broker* but open and close, and what it declares not to have, ready to be called."""
    verbs: dict[str, Callable[[], Awaitable[object]]] = {
        "check": broker.check,
        "examine": broker.examine,
        "create_queue": lambda: broker.create_queue(queue),
        "has_queue": lambda: broker.has_queue(queue),
        "send": lambda: broker.send(queue, [Message()]),
        "receive": lambda: broker.receive(queue, max_messages=1, max_wait=max_wait),
        "complete": lambda: broker.complete(held),
        "abandon": lambda: broker.abandon(held),
        "dead_letter": lambda: broker.dead_letter(held, reason="closed"),
        "renew_lock": lambda: broker.renew_lock(held),
        "stats": lambda: broker.stats(queue),
        "dead_letters": lambda: broker.dead_letters(queue),
        "is_dead_letter": lambda: broker.is_dead_letter(queue, "any"),
        "redrive": lambda: broker.redrive(queue),
        "purge": lambda: broker.purge(queue),
        "open_inbox": broker.open_inbox,
        "reply": lambda: broker.reply(address, [Message()]),
    }
    if broker.capabilities.lists_queues:
        verbs["queues"] = broker.queues
    if broker.capabilities.queue_position:
        verbs["position"] = lambda: broker.position(queue, "any")
    if claims:
        verbs["take_back"] = lambda: broker.take_back(claims)
    return verbs


def claims_to(broker: Broker, held: Iterable[Delivery]) -> list[Claim]:
    """What takes *held* back from *broker* once it is dead, where something does."""
    if broker.capabilities.killed_holder != "taken_back":
        return []
    return [claim for claim in map(broker.claim_of, held) if claim is not None]


async def error_of(name: str, verb: Callable[[], Awaitable[object]], kind: type[E], *, within: float) -> E:
    """The error of *kind* that *verb* raises, at most *within* seconds later."""
    try:
        async with asyncio.timeout(within):
            result = await verb()
    except kind as error:
        return error
    except TimeoutError:
        pytest.fail(f"{name} was still running after {within} s; it must raise {kind.__name__}")
    pytest.fail(f"{name} returned {result!r}; it must raise {kind.__name__}")
