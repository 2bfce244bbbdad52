"""A request is over when it is answered, or can be answered no more; not when whoever asked has gone."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.answers import succeeded
from dumbwaiter.asking import Asker, Patience
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import BrokerUnavailableError, QueueNotFoundError
from dumbwaiter.message import Message, Timings
from dumbwaiter.testing import eventually
from echo_worker import serving

pytestmark = pytest.mark.anyio


class HungUpError(Exception):
    pass


@pytest.fixture
async def broker():
    async with MemoryBroker() as broker:
        await broker.create_queue("echo")
        yield broker


async def begun(asker, over, queue="echo", patience=1000.0):
    """A request on its way, and whoever waits for it gone by the time that this returns."""
    patience = Patience(patience)
    pending = await asker.begin(queue, Message(id="r1", body=b"soup"), timeout=patience)
    asker.when_over(pending, patience, lambda: over.append("over"))
    return pending, asyncio.create_task(pending.head(patience))


async def hung_up(pending, waiting):
    pending.fail(HungUpError())
    with pytest.raises(HungUpError):
        await waiting


async def is_in(broker):
    return (await broker.stats("echo")).ready == 1


async def test_a_request_whose_asker_has_gone_is_over_when_it_is_answered_and_not_before(broker):
    over = []
    async with Asker(broker) as asker:
        pending, waiting = await begun(asker, over)
        await eventually(lambda: is_in(broker))
        await hung_up(pending, waiting)
        assert asker.waiting() == set()
        assert over == []
        async with serving(broker):
            await eventually(lambda: over)
        assert over == ["over"]
        assert asker.late == 1


async def test_a_request_that_is_answered_is_over_once(broker):
    over = []
    async with serving(broker), Asker(broker) as asker:
        _, waiting = await begun(asker, over)
        await waiting
        assert over == ["over"]
        assert not asker._endings  # the end of patience comes for nobody


async def test_a_request_that_was_never_sent_is_over(broker):
    over = []
    async with Asker(broker) as asker:
        # The inbox is open, so that nothing is waited for before the message lies in the outbox.
        pending = await asker.begin("echo", Message(id="opens it"), timeout=1)
        pending.forget()
        await hung_up(*await begun(asker, over))
        await eventually(lambda: over)
    assert (await broker.stats("echo")).ready == 1


async def test_a_request_that_nobody_answers_is_over_when_its_patience_is(broker):
    over = []
    async with Asker(broker) as asker:
        pending, waiting = await begun(asker, over, patience=0.3)
        await eventually(lambda: is_in(broker))
        await hung_up(pending, waiting)
        assert over == []
        await eventually(lambda: over)


async def test_a_request_that_could_not_be_sent_is_over_though_nobody_waits(broker):
    gate = asyncio.Event()
    over = []

    async def refuse(queue, messages, *, delay=0.0):
        await gate.wait()
        raise QueueNotFoundError(queue)

    broker.send = refuse
    async with Asker(broker) as asker:
        pending, waiting = await begun(asker, over)
        await asyncio.sleep(0)
        await hung_up(pending, waiting)
        assert over == []
        gate.set()
        await eventually(lambda: over)


async def test_when_a_queue_is_given_up_its_requests_are_over_and_no_others(broker):
    over = []
    async with Asker(broker) as asker:
        pending, waiting = await begun(asker, over)
        await eventually(lambda: is_in(broker))
        await hung_up(pending, waiting)
        asker.fail_waiting(BrokerUnavailableError("down"), queue="another")
        assert over == []
        asker.fail_waiting(BrokerUnavailableError("down"), queue="echo")
        assert over == ["over"]
        late = succeeded(Message(id="r1"), body=b"", content_type="a/b", timings=Timings())
        asker._deliver([late])
        assert over == ["over"]


async def test_what_is_asked_about_when_it_is_over_is_told_at_once(broker):
    over = []
    async with Asker(broker) as asker:
        pending = await asker.begin("echo", Message(id="r1"), timeout=5)
        pending.fail(HungUpError())
        asker.when_over(pending, Patience(1000.0), lambda: over.append("over"))
        assert over == ["over"]
