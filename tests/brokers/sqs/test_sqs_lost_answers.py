"""Who handed a message back without hearing that it was done has it no more: somebody else may."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.sqs.api import UnaskedError, worst_of
from dumbwaiter.errors import BrokerUnavailableError, LockLostError
from dumbwaiter.message import Message

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["moto", "ministack"])
def emulator(request):
    """One takes a handle also from whoever had the message before, as SQS does; the other refuses it."""
    return request.getfixturevalue(request.param)


@asynccontextmanager
async def three(emulator, **former):
    """One that hands a message back, one that gets it, and one that must not."""
    url = emulator.url(prefix=f"p{secrets.token_hex(4)}")
    async with open_broker(url, **former) as first, open_broker(url) as second, open_broker(url) as third:
        await first.create_queue("q")
        await first.send("q", [Message()])
        yield first, second, third


async def answer_is_lost(broker, delivery, done):
    with pytest.raises(BrokerUnavailableError, match="the answer was lost"):
        await broker.abandon([delivery])
    assert done.is_set()


async def caller_leaves(broker, delivery, done):
    abandoning = asyncio.create_task(broker.abandon([delivery]))
    await done.wait()
    abandoning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await abandoning


async def handed_back_unheard(broker, how, monkeypatch):
    """What *broker* received and handed back: SQS has done that, and nobody heard of it."""
    (delivery,) = await broker.receive("q", max_messages=1, max_wait=10.0)
    ask, done = broker._api.ask, asyncio.Event()

    async def does_not_say(verb, **parameters):
        answer = await ask(verb, **parameters)
        if verb != "change_message_visibility_batch":
            return answer
        done.set()
        if how is caller_leaves:
            await asyncio.Event().wait()
        raise BrokerUnavailableError("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(broker._api, "ask", does_not_say)
        await how(broker, delivery, done)
    return delivery


async def complete(broker, delivery):
    with pytest.raises(LockLostError):
        await broker.complete([delivery])


async def abandon(broker, delivery):
    with pytest.raises(LockLostError):
        await broker.abandon([delivery])


async def abandon_uncounted(broker, delivery):
    with pytest.raises(LockLostError):
        await broker.abandon([delivery], counted=False)


async def dead_letter(broker, delivery):
    with pytest.raises(LockLostError):
        await broker.dead_letter([delivery], reason="over")


async def renew(broker, delivery):
    with pytest.raises(LockLostError):
        await broker.renew_lock([delivery])


async def close(broker, delivery):
    await broker.close()


HOW_AND_DEED = [
    *((answer_is_lost, deed) for deed in (complete, abandon, abandon_uncounted, dead_letter, renew, close)),
    *((caller_leaves, deed) for deed in (complete, close)),
]


@pytest.mark.parametrize(("how", "deed"), HOW_AND_DEED)
async def test_whoever_was_not_told_that_it_handed_back_touches_nothing_of_the_next_holder(
    emulator, how, deed, monkeypatch
):
    async with three(emulator) as (former, holder, third):
        delivery = await handed_back_unheard(former, how, monkeypatch)
        (held,) = await holder.receive("q", max_messages=1, max_wait=10.0)
        assert (held.message.id, held.delivery_count) == (delivery.message.id, 2)
        await deed(former, delivery)
        assert await third.receive("q", max_messages=1, max_wait=0.5) == []
        await holder.abandon(await holder.renew_lock([held]))
        (again,) = await third.receive("q", max_messages=1, max_wait=10.0)
        assert (again.message.id, again.delivery_count) == (delivery.message.id, 3)
        await third.complete([again])
        assert (await third.stats("q")).dead == 0


async def test_nor_does_it_when_its_own_lock_ends(emulator, monkeypatch):
    async with three(emulator, lock_duration=1.0) as (former, holder, third):
        await handed_back_unheard(former, answer_is_lost, monkeypatch)
        (held,) = await holder.receive("q", max_messages=1, max_wait=10.0)
        assert await third.receive("q", max_messages=1, max_wait=2.0) == []
        await holder.complete(await holder.renew_lock([held]))


async def test_what_sqs_was_surely_not_asked_to_hand_back_is_held_still(emulator):
    async with three(emulator) as (former, holder, _):
        (delivery,) = await former.receive("q", max_messages=1, max_wait=10.0)
        emulator.wire.cut()
        try:
            for _ in range(2):
                with pytest.raises(BrokerUnavailableError, match="cannot reach"):
                    await former.abandon([delivery])
        finally:
            emulator.wire.join()
        await former.abandon(await former.renew_lock([delivery]))
        (held,) = await holder.receive("q", max_messages=1, max_wait=10.0)
        assert (held.message.id, held.delivery_count) == (delivery.message.id, 2)
        await holder.complete([held])


async def test_what_sqs_may_have_handed_back_comes_when_its_lock_ends_if_it_has_not(emulator, monkeypatch):
    async with three(emulator, lock_duration=1.0) as (former, holder, _):
        (delivery,) = await former.receive("q", max_messages=1, max_wait=10.0)

        async def breaks_off(*_, **__):
            raise BrokerUnavailableError("broken off")

        with monkeypatch.context() as patch:
            patch.setattr(former._api, "ask", breaks_off)
            with pytest.raises(BrokerUnavailableError):
                await former.abandon([delivery])
        await abandon(former, delivery)
        (held,) = await holder.receive("q", max_messages=1, max_wait=10.0)
        assert (held.message.id, held.delivery_count) == (delivery.message.id, 2)
        await holder.complete([held])


def test_that_nothing_was_done_is_said_only_where_that_is_so_for_all():
    unasked, cut_off = UnaskedError("no connection"), BrokerUnavailableError("cut off")
    assert worst_of([unasked, unasked], 2) is unasked
    assert worst_of([unasked, cut_off], 2) is cut_off
    some_done = worst_of([unasked], 2)
    assert isinstance(some_done, BrokerUnavailableError)
    assert not isinstance(some_done, UnaskedError)
