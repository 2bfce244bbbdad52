"""The broker is away for a while, or slow: the worker waits, says so, and goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kitchen import QUEUE, kitchen

from dumbwaiter import holding
from dumbwaiter.blobs import BlobStore, open_store
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import BrokerUnavailableError, InboxGoneError, MessageTooLargeError, QueueNotFoundError
from dumbwaiter.message import Delivery, Message
from dumbwaiter.testing import eventually
from dumbwaiter.worker.settling import _AT_ONCE

pytestmark = pytest.mark.anyio

SHOUT = """
class Model:
    def __call__(self, text: str) -> str:
        return text.upper()
"""
SLOW = """
import time

class Model:
    def __call__(self, text: str) -> str:
        time.sleep(1.5)
        return text.upper()
"""


class Away(MemoryBroker):
    """*down* verbs raise BrokerUnavailableError as often as told, what is *gone* QueueNotFoundError, the *inbox*
    InboxGoneError, and what is *strange* another one; complete() waits while *gate* is shut.
    """

    def __init__(self, lock_duration: float = 30.0, **down: int) -> None:
        super().__init__("memory:", lock_duration=lock_duration)
        self.down = down
        self.longest_wait = 60.0
        self.gate = asyncio.Event()
        self.gate.set()

    async def create_queue(self, queue: str) -> None:
        self._enter("create_queue")
        await super().create_queue(queue)

    async def receive(self, queue: str, **how: Any) -> list[Delivery]:
        self._enter("receive")
        self._lose(queue, "gone")
        if self.down.get("strange", 0):
            self.down["strange"] -= 1
            raise MessageTooLargeError(2, 1)
        return await super().receive(queue, **{**how, "max_wait": min(how["max_wait"], self.longest_wait)})

    async def renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        self._enter("renew_lock")
        self._lose(QUEUE, "renew_gone")
        return await super().renew_lock(deliveries)

    async def reply(self, address: str, messages: Sequence[Message]) -> None:
        self._enter("reply")
        if self.down.get("inbox", 0):
            self.down["inbox"] -= 1
            raise InboxGoneError(address)
        await super().reply(address, messages)

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        await self.gate.wait()
        await super().complete(deliveries)

    def _lose(self, queue: str, what: str) -> None:
        if self.down.get(what, 0):
            self.down[what] -= 1
            raise QueueNotFoundError(queue)

    def _enter(self, verb: str) -> None:
        if self.down.get(verb, 0):
            self.down[verb] -= 1
            raise BrokerUnavailableError("the broker takes a nap")


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "back_off", lambda *_, **__: 0.001)


async def test_a_broker_that_is_away_is_tried_again_until_it_is_back(tmp_path, caplog, in_a_hurry) -> None:
    broker = Away(create_queue=3, receive=12)
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        assert await it.output("soup") == "SOUP"
    told = [record for record in caplog.records if "the broker is unavailable" in record.message]
    assert [record.args[0].args[0] for record in told] == ["the broker takes a nap"] * 3, "the 1st and the 10th failure"


async def test_whatever_the_broker_fails_with_ends_no_worker(tmp_path, caplog, in_a_hurry) -> None:
    """It would meet the same again when it is started again, and so would each of its queue."""
    broker = Away(strange=12)
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        assert await it.output("soup") == "SOUP"
    assert broker.down == {"strange": 0}
    assert sum("nothing can be received, trying again: Message" in one.message for one in caplog.records) == 2


async def test_a_queue_that_is_gone_is_made_again_and_work_goes_on(tmp_path, caplog, in_a_hurry) -> None:
    broker = Away()
    broker.longest_wait = 0.1
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        assert await it.output("soup") == "SOUP"
        for dish in ("pie", "cake"):
            del broker._server.queues[QUEUE]
            await eventually(lambda: broker.has_queue(QUEUE))
            assert await it.output(dish) == dish.upper()
    told = [record for record in caplog.records if "is gone, as a whole or in part" in record.message]
    assert len(told) == 2, "once each time"


async def test_a_queue_that_is_gone_as_soon_as_it_is_made_makes_no_busy_loop(tmp_path, caplog, monkeypatch) -> None:
    pauses: list[int] = []
    monkeypatch.setattr(holding, "back_off", lambda failures, **_: pauses.append(failures) or 0.001)
    broker = Away(gone=12)
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        assert await it.output("soup") == "SOUP"
    assert pauses == list(range(1, 13)), "each pause is longer than the one before"
    assert sum("is gone" in record.message for record in caplog.records) == 2, "the 1st and the 10th time"


async def test_what_is_in_hand_when_its_queue_goes_is_finished(tmp_path, caplog) -> None:
    broker = Away(lock_duration=1.0, renew_gone=2)
    async with kitchen(tmp_path, SLOW, broker=broker) as it:
        assert await it.output("soup") == "SOUP"
        assert broker.down == {"renew_gone": 0}


async def test_locks_that_could_not_be_renewed_once_are_renewed_the_next_time(tmp_path) -> None:
    broker = Away(lock_duration=1.0, renew_lock=1)
    async with kitchen(tmp_path, SLOW, broker=broker) as it:
        assert await it.output("soup") == "SOUP"
        assert broker.down == {"renew_lock": 0}
        await eventually(lambda: _ended(it.broker))
        assert (await it.broker.stats(QUEUE)).dead == 0


async def test_a_worker_that_was_behind_with_settling_pulls_again_when_it_has_caught_up(tmp_path) -> None:
    """The runner has nothing left to say by then, so it must be the settling that wakes it."""
    broker = Away()
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        broker.gate.clear()
        for number in range(3 * _AT_ONCE):
            message = Message(body=b"soup", content_type="text/plain", id=f"dish-{number}")
            await it.broker.send(QUEUE, [message])
            if not it.consumer._settler.behind:
                await eventually(lambda: it.consumer._hand.in_runner == 0)
                await eventually(lambda count=number: it.consumer._settler.behind or len(it.consumer._hand) > count)
        assert it.consumer._settler.behind
        broker.gate.set()
        await eventually(lambda: _ended(it.broker))
        assert await it.output("pie") == "PIE"


@pytest.mark.parametrize("noticed_by", ["receive", "reply"])
async def test_after_an_outage_an_answer_waits_for_its_caller_to_open_the_inbox_again(
    tmp_path: Path, noticed_by: str
) -> None:
    broker = Away()
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        assert await it.output("pie") == "PIE"
        broker.down = {noticed_by: 1, "inbox": 2}
        assert await it.output("soup") == "SOUP"
        assert broker.down["inbox"] == 0


async def test_without_an_outage_an_inbox_that_is_gone_stays_so_and_its_message_is_completed(tmp_path: Path) -> None:
    broker = Away()
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        broker.down = {"inbox": 2}
        asking = asyncio.create_task(it.ask("soup"))
        await eventually(lambda: broker.down["inbox"] == 1)
        await eventually(lambda: _ended(broker))
        asking.cancel()
        assert broker.down["inbox"] == 1, "it was tried once"


async def test_stopping_while_a_claim_check_is_fetched_hands_the_message_back_uncounted(tmp_path: Path) -> None:
    store = SlowStore(open_store(f"file://{tmp_path}/blobs"))
    async with kitchen(tmp_path, SHOUT, store=store) as it:
        await store.put("claims/soup", b"soup")
        message = Message(id="one", content_type="text/plain", data_ref="blob:claims/soup")
        await it.broker.send(QUEUE, [message])
        await asyncio.wait_for(store.asked.wait(), 10)
        it.stop.set()
        await it.running
        (again,) = await it.broker.receive(QUEUE, max_messages=1, max_wait=5)
        assert (again.message.id, again.delivery_count) == ("one", 1)


class SlowStore:
    """A store that never finds a claim check."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self.asked = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, key: str) -> bytes:
        if key.startswith("claims/"):
            self.asked.set()
            await asyncio.Event().wait()
        return await self._store.get(key)


async def _ended(broker: MemoryBroker) -> bool:
    stats = await broker.stats(QUEUE)
    return stats.ready + stats.locked + stats.delayed == 0
