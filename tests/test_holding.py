"""What is in hand stays locked until its settlement begins; and an outage is waited for, within bounds."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from types import SimpleNamespace

import pytest

from dumbwaiter import holding
from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import BrokerClosedError, BrokerUnavailableError, QueueNotFoundError
from dumbwaiter.holding import Held, Outage, insist, insist_on_broker, keep_locks, renew
from dumbwaiter.message import Message

pytestmark = pytest.mark.anyio

QUEUE = "dish"
LENGTH = 12.0


@pytest.fixture(params=["memory", "sqlite"])
async def broker(request, tmp_path):
    url = f"memory://{secrets.token_hex(8)}" if request.param == "memory" else f"sqlite://{tmp_path}/queue.db"
    async with open_broker(url, lock_duration=LENGTH) as broker:
        await broker.create_queue(QUEUE)
        yield broker


async def taken(broker, count):
    await broker.send(QUEUE, [Message(id=str(number)) for number in range(count)])
    deliveries = await broker.receive(QUEUE, max_messages=count, max_wait=5.0)
    assert len(deliveries) == count
    return [Held(delivery) for delivery in deliveries]


async def counts(broker):
    stats = await broker.stats(QUEUE)
    return stats.ready, stats.locked, stats.dead


class EnoughError(Exception):
    """The end of what would go on for ever."""


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that were made, without making them; EnoughError after the fifth."""
    made = []

    async def sleep(seconds):
        made.append(seconds)
        if len(made) > 5:
            raise EnoughError
        await asyncio.sleep(0)

    monkeypatch.setattr(holding, "asyncio", SimpleNamespace(sleep=sleep))  # the broker sleeps as it likes
    return made


class Failing:
    """Says *errors*, one after the other, to a renewal, and passes the rest on; writes down whose were asked for."""

    def __init__(self, broker, *errors):
        self._broker, self.errors, self.asked = broker, list(errors), []
        self.lock_duration = broker.lock_duration

    async def renew_lock(self, deliveries):
        self.asked.append([delivery.message.id for delivery in deliveries])
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return await self._broker.renew_lock(deliveries)


# --- locks ---


async def test_a_renewed_delivery_takes_the_place_of_the_old_one(broker):
    held = await taken(broker, 2)
    before = [one.delivery for one in held]
    assert await renew(broker, held) == []
    assert [one.delivery.message.id for one in held] == ["0", "1"]
    assert all(one.delivery.locked_until > old.locked_until for one, old in zip(held, before, strict=True))
    assert all(one.is_ours for one in held)


async def test_when_some_locks_are_lost_the_others_are_renewed_all_the_same(broker):
    held = await taken(broker, 3)
    before = [one.delivery for one in held]
    await broker.abandon([before[1]])
    assert await renew(broker, held) == [held[1]]
    assert [one.lost for one in held] == [False, True, False]
    assert [one.is_ours for one in held] == [True, False, True]
    assert held[1].delivery is before[1]
    for number in (0, 2):
        assert held[number].delivery.message.id == str(number)
        assert held[number].delivery.locked_until > before[number].locked_until


async def test_that_a_lock_is_gone_is_no_news_once_the_message_is_being_settled(broker):
    held = await taken(broker, 2)
    await broker.complete([held[0].delivery])
    await broker.abandon([held[1].delivery])

    class Slow(Failing):
        async def renew_lock(self, deliveries):
            held[0].closing = True
            return await super().renew_lock(deliveries)

    assert await renew(Slow(broker), held) == [held[1]]
    assert (held[0].lost, held[1].lost) == (False, True)


async def test_with_nothing_in_hand_nobody_is_asked():
    class Nobody:
        pass

    assert await renew(Nobody(), []) == []


async def test_locks_are_renewed_every_third_of_their_length_and_again_soon_after_a_failure(broker, pauses, caplog):
    held = await taken(broker, 1)
    down = BrokerUnavailableError("the broker takes a nap")
    failing = Failing(broker, None, down, down)
    with pytest.raises(EnoughError):
        await keep_locks(failing, held)
    assert pauses == [LENGTH / 3, LENGTH / 3, LENGTH / 12, LENGTH / 12, LENGTH / 3, LENGTH / 3]
    assert failing.asked == [["0"]] * 5
    assert caplog.text.count("1 lock(s) could not be renewed, trying again soon: the broker takes a nap") == 2


async def test_only_what_is_ours_is_renewed_and_what_came_meanwhile_too(broker, pauses):
    lost, closing, kept, later = await taken(broker, 4)
    lost.lost = closing.closing = True
    hand = [lost, closing, kept]

    class Filling(Failing):
        async def renew_lock(self, deliveries):
            renewed = await super().renew_lock(deliveries)
            if later not in hand:
                hand.append(later)
            return renewed

    filling = Filling(broker)
    with pytest.raises(EnoughError):
        await keep_locks(filling, hand)
    assert filling.asked == [["2"]] + [["2", "3"]] * 4


async def test_whose_lock_is_lost_is_told_once_and_not_renewed_again(broker, pauses, caplog):
    one, two = held = await taken(broker, 2)
    await broker.abandon([one.delivery])
    told = []

    async def on_lost(lost):
        told.extend(lost)

    watched = Failing(broker)
    with pytest.raises(EnoughError):
        await keep_locks(watched, held, on_lost=on_lost)
    assert told == [one]
    assert watched.asked == [["0", "1"]] + [["1"]] * 4
    assert "1 lock(s) lost; others have these messages by now" in caplog.text
    assert two.is_ours


async def test_a_fault_of_the_broker_that_is_no_outage_ends_the_keeping(broker, pauses):
    held = await taken(broker, 1)
    with pytest.raises(BrokerClosedError):
        await keep_locks(Failing(broker, BrokerClosedError("closed")), held)


# --- insisting ---


def failing(*errors):
    """Raises *errors* one after the other, then returns how often it was called."""
    left, count = list(errors), 0

    async def call(*_batch):
        nonlocal count
        count += 1
        if left:
            raise left.pop(0)
        return count

    return call


async def test_what_may_pass_is_tried_again_until_it_works(pauses):
    call = failing(OSError("one"), OSError("two"))
    assert await insist(call, within=60.0, may_pass=lambda error: isinstance(error, OSError)) == 3
    assert pauses == [holding.RETRY_EVERY] * 2


async def test_what_does_not_pass_is_raised_at_once(pauses):
    with pytest.raises(ValueError, match="for good"):
        await insist(failing(ValueError("for good")), within=60.0, may_pass=lambda error: isinstance(error, OSError))
    assert pauses == []


async def test_when_time_is_up_the_last_error_is_raised(pauses):
    with pytest.raises(OSError, match="one"):
        await insist(failing(OSError("one"), OSError("two")), within=-1.0, may_pass=lambda error: True)
    assert pauses == []


async def test_a_verb_is_called_again_while_the_broker_is_unavailable(broker, pauses):
    held = await taken(broker, 2)
    down = failing(BrokerUnavailableError("one"), BrokerUnavailableError("two"))

    async def complete(batch):
        await down()
        await broker.complete(batch)

    assert await insist_on_broker(complete, [one.delivery for one in held], within=60.0) == []
    assert await counts(broker) == (0, 0, 0)
    assert len(pauses) == 2


async def test_an_outage_that_lasts_too_long_is_raised(pauses):
    verb = failing(*[BrokerUnavailableError("the broker takes a nap")] * 3)
    with pytest.raises(BrokerUnavailableError, match="takes a nap"):
        await insist_on_broker(verb, ["one"], within=-1.0)
    assert pauses == []


async def test_a_closed_broker_is_not_insisted_on(pauses):
    with pytest.raises(BrokerClosedError):
        await insist_on_broker(failing(BrokerClosedError("closed")), ["one"], within=60.0)
    assert pauses == []


async def test_those_that_others_hold_are_returned_and_the_rest_is_settled(broker, pauses):
    held = await taken(broker, 2)
    lost = held[0].delivery
    await broker.abandon([lost])
    assert await insist_on_broker(broker.complete, [lost, held[1].delivery], within=60.0) == [lost]
    assert await counts(broker) == (1, 0, 0)
    assert pauses == []


async def test_nobody_is_called_with_an_empty_batch():
    assert await insist_on_broker(failing(RuntimeError("called")), [], within=60.0) == []


@pytest.mark.parametrize("verb", ["complete", "abandon", "dead_letter"])
async def test_what_is_renewed_while_the_broker_is_insisted_on_is_settled_all_the_same(broker, pauses, verb):
    """The renewal was under way when the settlement began."""
    (one,) = held = await taken(broker, 1)
    call = getattr(broker, verb)
    call = partial(call, reason="over") if verb == "dead_letter" else call
    down = [BrokerUnavailableError("the broker takes a nap")]

    async def settle(batch):
        if down:
            await renew(broker, held)
            raise down.pop()
        await call(batch)

    assert await insist_on_broker(settle, [one.delivery], within=60.0) == []
    ended = {"complete": (0, 0, 0), "abandon": (1, 0, 0), "dead_letter": (0, 0, 1)}
    assert await counts(broker) == ended[verb]


# --- outages ---


async def test_an_outage_is_logged_now_and_then_and_its_pauses_grow_up_to_a_limit(pauses, caplog):
    outage = Outage()
    for _ in range(5):
        await outage.pause(BrokerUnavailableError("the broker takes a nap"))
    assert pauses == sorted(pauses)
    assert len(set(pauses)) == 5
    assert caplog.text.count("the broker is unavailable, trying again: the broker takes a nap") == 1
    pauses.clear()
    outage.over()
    await outage.pause(BrokerUnavailableError("the broker takes a nap"))
    for _ in range(99):
        pauses.clear()
        await outage.pause(BrokerUnavailableError("the broker takes a nap"))
    assert pauses[0] <= holding.LONGEST_PAUSE
    assert caplog.text.count("the broker is unavailable") == 4, "the 1st before, and the 1st, 10th and 100th after it"


async def test_settling_what_lay_in_a_queue_that_is_gone_is_no_fault_but_sending_there_is(broker):
    held = await taken(broker, 2)

    async def gone(_batch):
        raise QueueNotFoundError(QUEUE)

    deliveries = [one.delivery for one in held]
    assert await insist_on_broker(gone, deliveries, within=1.0) == deliveries
    with pytest.raises(QueueNotFoundError):
        await insist_on_broker(gone, [Message(id="new")], within=1.0)


async def test_a_queue_that_turns_out_to_be_gone_when_the_broker_is_back_is_told(pauses, caplog):
    outage = Outage()
    for error in (BrokerUnavailableError("away"), BrokerUnavailableError("away"), *[QueueNotFoundError(QUEUE)] * 2):
        await outage.pause(error)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert f"the queue '{QUEUE}' is gone" in caplog.records[1].getMessage()


async def test_that_the_broker_is_back_is_logged_once(pauses, caplog):
    caplog.set_level("INFO", logger="dumbwaiter")
    outage = Outage()
    outage.over()
    assert caplog.records == [], "it never was away"
    for _ in range(3):
        await outage.pause(BrokerUnavailableError("away"))
    outage.over()
    outage.over()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.records[1].getMessage() == "the broker is back: it works again after 3 failed call(s)"
