"""A broker that writes down what is held through it."""

from __future__ import annotations

import errno
import logging
import math
import os
import time

import pytest
from holder import ClaimsEach
from msgspec.structs import replace

from dumbwaiter.brokers.contract import Broker
from dumbwaiter.brokers.sqlite import SqliteBroker
from dumbwaiter.errors import BrokerUnavailableError, LockLostError
from dumbwaiter.message import Message
from dumbwaiter.takeover.journal import Journal, read
from dumbwaiter.takeover.recording import Recorder, RecordingBroker, boot_clock_ahead
from dumbwaiter.takeover.slots import Slot, take_free

pytestmark = pytest.mark.anyio

BOOT = "this boot"


class CountingSlot(Slot):
    """A slot that counts its writes, and can be on a full disk."""

    writes = 0
    is_full = False

    def write(self, start, content):
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.writes += 1
        super().write(start, content)


class Desk:
    """A broker that records, and the slot that it writes to."""

    def __init__(self, inner, slot):
        self.inner = inner
        self.slot = slot
        self.recorder = Recorder(slot, Journal(BOOT, slot.file))
        self.broker = RecordingBroker(inner, self.recorder)

    async def take(self, count):
        """So many deliveries of new messages."""
        await self.broker.send("queue", [Message() for _ in range(count)])
        return await self.broker.receive("queue", max_messages=count, max_wait=1.0)

    @property
    def written(self):
        """Lock token and end of what lies in the file."""
        content = self.slot.read(100_000)
        return {
            entry.token: entry.until for entry in (read(content, boot=BOOT, file=self.slot.file) if content else [])
        }


@pytest.fixture
async def desk(tmp_path):
    (slot,) = take_free(tmp_path / "slots")
    async with ClaimsEach(f"sqlite://{tmp_path}/queue.db", lock_duration=30.0) as inner:
        await inner.create_queue("queue")
        slot.__class__ = CountingSlot
        it = Desk(inner, slot)
        yield it
        it.recorder.close()


def tokens(deliveries):
    return {one.lock_token for one in deliveries}


async def test_what_was_received_is_written_down_in_one_write_with_the_end_of_its_lock(desk):
    deliveries = await desk.take(5)
    assert desk.written.keys() == tokens(deliveries)
    assert desk.slot.writes == 1
    until = deliveries[0].locked_until + boot_clock_ahead()
    assert all(abs(one - until) < 1.0 for one in desk.written.values())


async def test_one_claim_to_all_is_written_before_the_first_receive_and_nothing_after_it(desk, monkeypatch):
    monkeypatch.setattr(ClaimsEach, "claim_to_all", SqliteBroker.claim_to_all)
    seen = []
    receive = desk.inner.receive

    async def look(*arguments, **how):
        seen.append(desk.written)
        return await receive(*arguments, **how)

    monkeypatch.setattr(desk.inner, "receive", look)
    first, second, _ = await desk.take(3)
    await desk.broker.complete(await desk.broker.renew_lock([first]))
    await desk.broker.abandon([second])
    await desk.broker.receive("queue", max_messages=1, max_wait=0.0)
    claim = desk.inner.claim_to_all("queue")
    assert seen == [{claim.token: math.inf}] * 2
    assert desk.written == seen[0]
    assert desk.slot.writes == 1
    await desk.broker.create_queue("other")
    await desk.broker.receive("other", max_messages=1, max_wait=0.0)
    assert len(read(desk.slot.read(1000), boot=BOOT, file=desk.slot.file)) == 2


async def test_a_receive_in_vain_writes_nothing(desk):
    assert await desk.broker.receive("queue", max_messages=5, max_wait=0.0) == []
    assert await desk.broker.renew_lock([]) == []
    assert desk.slot.writes == 0


async def test_what_is_renewed_is_written_down_with_its_new_end(desk):
    deliveries = await desk.take(3)
    before = desk.written
    await desk.broker.renew_lock(deliveries[:2])
    assert desk.slot.writes == 2
    later = {token for token, until in desk.written.items() if until > before[token]}
    assert later == tokens(deliveries[:2])


async def test_what_is_completed_or_dead_is_struck_out_with_the_next_write(desk):
    done, dead, held = await desk.take(3)
    await desk.broker.complete([done])
    await desk.broker.dead_letter([dead], reason="over")
    assert desk.slot.writes == 1
    more = await desk.take(1)
    assert desk.written.keys() == tokens([held, *more])
    assert desk.slot.writes == 2


async def test_what_is_handed_back_is_struck_out_before_the_broker_hears_of_it(desk, monkeypatch):
    first, second = await desk.take(2)
    seen = []

    async def abandon(deliveries, **how):
        seen.append(desk.written.keys())

    monkeypatch.setattr(desk.inner, "abandon", abandon)
    await desk.broker.abandon([first], delay=1.0, counted=False)
    assert seen == [{second.lock_token}]


async def test_what_could_not_be_completed_is_held_still(desk, monkeypatch):
    (delivery,) = await desk.take(1)

    async def down(deliveries):
        raise BrokerUnavailableError("down")

    with monkeypatch.context() as patch:
        patch.setattr(desk.inner, "complete", down)
        with pytest.raises(BrokerUnavailableError):
            await desk.broker.complete([delivery])
    more = await desk.take(1)
    assert desk.written.keys() == tokens([delivery, *more])


async def test_what_others_hold_by_now_is_struck_out(desk):
    lost, gone, held = await desk.take(3)
    await desk.inner.abandon([lost, gone])
    with pytest.raises(LockLostError) as caught:
        await desk.broker.renew_lock([lost, held])
    assert [one.lock_token for one in caught.value.renewed] == [held.lock_token]
    with pytest.raises(LockLostError):
        await desk.broker.dead_letter([gone], reason="late")
    await desk.broker.renew_lock([held])
    assert desk.written.keys() == {held.lock_token}


async def test_deliveries_that_cannot_be_taken_back_are_not_written_down(desk):
    desk.inner.capabilities = replace(desk.inner.capabilities, portable_tokens=False)
    (delivery,) = await desk.take(1)
    assert desk.broker.claim_of(delivery) is None
    assert desk.written == {}


async def test_on_a_full_disk_work_goes_on_and_nothing_old_is_left_and_that_is_said_once(desk, caplog):
    caplog.set_level(logging.WARNING, "dumbwaiter.takeover")
    first = await desk.take(2)
    desk.slot.is_full = True
    second = await desk.take(2)
    await desk.broker.complete([*first, *await desk.broker.renew_lock(second)])
    desk.slot.is_full = False
    await desk.take(1)
    assert desk.written == {}
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()


async def test_a_closed_recorder_leaves_an_empty_slot_that_is_free(desk):
    deliveries = await desk.take(2)
    desk.recorder.close()
    (slot,) = take_free(desk.slot.path.parent)
    assert (slot.path, slot.read(10)) == (desk.slot.path, b"")
    await desk.broker.renew_lock(deliveries)
    assert slot.read(10) == b""
    slot.close()


async def test_the_two_clocks_differ_by_the_time_in_suspend():
    assert boot_clock_ahead() >= -0.001
    assert abs(time.monotonic() + boot_clock_ahead() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1.0


async def test_all_other_verbs_are_those_of_the_broker_beneath(desk):
    broker = desk.broker
    assert (broker.url, broker.lock_duration) == (desk.inner.url, 30.0)
    assert broker.capabilities == desk.inner.capabilities
    await broker.check()
    assert await broker.examine()
    await broker.create_queue("other")
    assert await broker.queues() == ["other", "queue"]
    assert await broker.has_queue("other")
    await broker.send("other", [Message(id="a"), Message(id="b")])
    assert await broker.position("other", "b") == 1
    (delivery,) = await broker.receive("other", max_messages=1, max_wait=1.0)
    await broker.dead_letter([delivery], reason="over")
    (letter,) = await broker.dead_letters("other")
    assert await broker.is_dead_letter("other", letter.key)
    assert await broker.redrive("other", [letter.key]) == 1
    assert await broker.purge("other") == 0
    assert (await broker.stats("other")).ready == 2
    (delivery,) = await broker.receive("other", max_messages=1, max_wait=1.0)
    claim = broker.claim_of(delivery)
    assert claim is not None
    assert await broker.take_back([claim]) == 1
    inbox = await broker.open_inbox()
    await broker.reply(inbox.address, [Message(body=b"answer")])
    assert [one.body for one in await inbox.receive(max_messages=2, max_wait=1.0)] == [b"answer"]
    await broker.close()
    await broker.open()


def test_no_verb_of_the_contract_is_forgotten():
    """One with an implementation of the contract's own would otherwise pass by the adapter's."""
    own = {"create_queue"}  # by _create_queue
    verbs = {name for name in vars(Broker) if not name.startswith("_")} - own - {"capabilities"}
    assert verbs <= vars(RecordingBroker).keys()
