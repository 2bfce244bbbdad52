"""Inboxes of adapters: who waits hears of every failure once, and what came is read once."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from dumbwaiter.brokers.inboxes import LineInbox, PolledInbox
from dumbwaiter.errors import BrokerClosedError, BrokerUnavailableError
from dumbwaiter.message import Message
from dumbwaiter.testing.eventually import eventually

pytestmark = pytest.mark.anyio

LONG = 20.0
"""Seconds that nobody waits here unless something is broken."""


class PushedInbox(LineInbox):
    async def close(self):
        self.dismiss()


class AskedInbox(PolledInbox):
    """Its product answers with what a test puts into *answers*: replies, or an error."""

    def __init__(self):
        super().__init__("here", require_open=lambda: None)
        self.answers = asyncio.Queue()
        self.told = []
        self.pulls = 0
        self.tells = self.note

    async def open(self):
        """It is there."""

    async def close(self):
        await self.leave()

    async def note(self, keys):
        self.told += keys

    async def _pull(self):
        self.pulls += 1
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer, self.tells([key for key, _ in answer]) if answer else None


@pytest.fixture
async def pushed():
    inbox = PushedInbox("here", require_open=lambda: None)
    yield inbox
    await inbox.close()


@pytest.fixture
async def asked():
    inbox = AskedInbox()
    yield inbox
    await inbox.close()


async def waiting(inbox, count=1):
    """So many readers that stand in line."""
    readers = [asyncio.create_task(inbox.receive(max_messages=1, max_wait=LONG)) for _ in range(count)]
    await eventually(lambda: len(inbox._line._waiters) == count, within=LONG)
    return readers


async def errors_of(readers):
    async with asyncio.timeout(LONG / 2):
        return await asyncio.gather(*readers, return_exceptions=True)


async def test_who_asks_for_no_reply_gets_none_at_once(pushed, asked):
    pushed.put([Message()])
    for inbox in (pushed, asked):
        async with asyncio.timeout(LONG / 2):
            assert await inbox.receive(max_messages=0, max_wait=LONG) == []
    assert asked.pulls == 0
    assert len(await pushed.receive(max_messages=2, max_wait=0.0)) == 1


async def test_each_reader_hears_of_a_failure_by_an_error_of_its_own(pushed):
    readers = await waiting(pushed, 2)
    cause = BrokerUnavailableError("away")
    pushed.fail(cause)
    errors = await errors_of(readers)
    assert [str(error) for error in errors] == ["away", "away"]
    assert all(isinstance(error, BrokerUnavailableError) and error.__cause__ is cause for error in errors)
    assert errors[0] is not errors[1]


async def test_a_failure_of_before_is_no_news_to_who_reads_later(pushed):
    pushed.fail(BrokerUnavailableError("away"))
    assert await pushed.receive(max_messages=1, max_wait=0.0) == []


async def test_a_reader_that_comes_in_between_keeps_no_failure_from_another(pushed):
    (reader,) = await waiting(pushed)
    pushed.fail(BrokerUnavailableError("away"))
    assert await pushed.receive(max_messages=1, max_wait=0.0) == []
    assert [type(error) for error in await errors_of([reader])] == [BrokerUnavailableError]


async def test_what_came_before_a_failure_is_read_all_the_same(pushed):
    message = Message()
    pushed.put([message])
    pushed.fail(BrokerUnavailableError("away"))
    assert await pushed.receive(max_messages=1, max_wait=0.0) == [message]


async def test_readers_of_a_closed_inbox_or_broker_learn_it(pushed):
    readers = await waiting(pushed, 2)
    await pushed.close()
    assert [type(error) for error in await errors_of(readers)] == [BrokerClosedError] * 2
    assert not pushed.is_open

    def refuse():
        raise BrokerClosedError

    with pytest.raises(BrokerClosedError):
        await PushedInbox("here", require_open=refuse).receive(max_messages=1, max_wait=LONG)


@pytest.mark.parametrize("error", [BrokerUnavailableError("away"), RuntimeError("a client library stumbles")])
async def test_whatever_the_client_raises_readers_hear_of_it_at_once(asked, error):
    readers = await waiting(asked, 2)
    asked.answers.put_nowait(error)
    errors = await errors_of(readers)
    assert all(isinstance(one, BrokerUnavailableError) and str(error) in str(one) for one in errors)


async def test_the_product_is_asked_again_by_who_reads_after_a_failure(asked):
    readers = await waiting(asked)
    asked.answers.put_nowait(BrokerUnavailableError("away"))
    await errors_of(readers)
    message = Message()
    asked.answers.put_nowait([("1", message)])
    assert await asked.receive(max_messages=1, max_wait=LONG) == [message]


async def test_a_reader_that_joins_in_the_turn_of_a_failure_does_not_wait_while_nobody_asks(asked):
    readers = await waiting(asked)
    asked.answers.put_nowait(BrokerUnavailableError("away"))
    late = asyncio.create_task(asked.receive(max_messages=1, max_wait=LONG))
    await errors_of(readers)
    message = Message()
    asked.answers.put_nowait([("1", message)])
    async with asyncio.timeout(LONG / 2):
        with contextlib.suppress(BrokerUnavailableError):  # it stood in line already
            assert await late == [message]


async def test_a_reply_that_the_product_shows_twice_is_read_once_and_told_twice(asked):
    first, second = Message(), Message()
    asked.answers.put_nowait([("1", first)])
    asked.answers.put_nowait([("1", first), ("2", second)])
    came = []
    while len(came) < 2:
        came += await asked.receive(max_messages=5, max_wait=LONG)
    assert came == [first, second]
    await eventually(lambda: asked.told == ["1", "1", "2"], within=LONG)


async def test_a_product_that_cannot_be_told_costs_no_reply(asked):
    async def stumbles(_):
        raise RuntimeError("a client library stumbles")

    asked.tells = stumbles
    messages = [Message(), Message()]
    for key, message in enumerate(messages):
        asked.answers.put_nowait([(key, message)])
        assert await asked.receive(max_messages=5, max_wait=LONG) == [message]
    await eventually(lambda: not asked._beside, within=LONG)


async def test_the_product_is_asked_only_as_long_as_somebody_reads(asked):
    asked.answers.put_nowait([("1", Message())])
    await asked.receive(max_messages=1, max_wait=LONG)
    asked.answers.put_nowait([])
    await eventually(lambda: asked._reading is None, within=LONG)
    assert asked.pulls <= 2


async def test_closing_ends_what_asks_and_what_tells(asked):
    async def forever(_):
        await asyncio.Event().wait()

    asked.tells = forever
    asked.answers.put_nowait([("1", Message())])
    await asked.receive(max_messages=1, max_wait=LONG)
    readers = await waiting(asked)
    async with asyncio.timeout(LONG / 2):
        await asked.close()
    assert [type(error) for error in await errors_of(readers)] == [BrokerClosedError]
    assert asked._reading is None
    await eventually(lambda: not asked._beside, within=LONG)
