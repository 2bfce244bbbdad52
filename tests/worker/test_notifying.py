"""Webhooks and reply URLs: the courier is told after the result is saved, before the message is completed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from kitchen import QUEUE, SHOUT, kitchen

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs.events import read_events
from dumbwaiter.blobs.results import has_result
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import BrokerError, BrokerUnavailableError
from dumbwaiter.message import WEBHOOKS_QUEUE, Message
from dumbwaiter.notification import Notification, read
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

HOOK = "https://hooks.example/dish"
CHATTY = """
import time

class Model:
    def __call__(self, text: str):
        print("cooking")
        time.sleep(0.6)
        yield text.upper()
        yield 7
        time.sleep(0.6)
"""


class Couriers(MemoryBroker):
    """Writes down what it is told; refuses notifications as often as told."""

    def __init__(self) -> None:
        super().__init__("memory:", lock_duration=5.0)
        self.diary: list[str] = []
        self.refusals: list[BrokerError] = []
        self.batches: list[list[Message]] = []

    async def send(self, queue: str, messages: Sequence[Message], *, delay: float = 0.0) -> None:
        if queue == WEBHOOKS_QUEUE:
            if self.refusals:
                self.diary.append("not notified")
                raise self.refusals.pop(0)
            self.diary.append("notified")
            self.batches.append(list(messages))
        await super().send(queue, messages, delay=delay)

    async def reply(self, address: str, messages: Sequence[Message]) -> None:
        self.diary.append("told")
        await super().reply(address, messages)

    async def complete(self, deliveries: Sequence[object]) -> None:
        self.diary.append("completed")
        await super().complete(deliveries)  # type: ignore[arg-type]

    @property
    def notified(self) -> list[Notification]:
        return [read(message) for batch in self.batches for message in batch]


@pytest.fixture
def broker() -> Couriers:
    return Couriers()


async def test_a_webhook_is_notified_between_told_and_completed(tmp_path: Path, broker: Couriers) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        assert await it.output("soup", id="one", extensions={"webhook": HOOK}) == "SOUP"
        await eventually(it.is_empty)
        assert broker.diary == ["told", "notified", "completed"]
        (told,) = broker.notified
        assert (told.id, told.model, told.url, told.event, told.style) == ("one", QUEUE, HOOK, "completed", "webhook")


async def test_a_reply_url_is_the_couriers_and_never_the_brokers(tmp_path: Path, broker: Couriers) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        await it.send("soup", "one", reply_to=HOOK)
        await it.result("one")
        await eventually(it.is_empty)
        assert broker.diary == ["notified", "completed"]
        assert broker.notified[0].style == "reply"


async def test_a_failure_is_notified_too(tmp_path: Path, broker: Couriers) -> None:
    code = SHOUT.replace("return text.upper()", "raise ValueError(text)")
    async with kitchen(tmp_path, code, broker=broker, max_deliveries=1) as it:
        await it.send("soup", "one", reply_to=HOOK)
        await eventually(lambda: broker.notified)
        assert failure_of(await it.result("one")) is not None
        await eventually(lambda: it.broker.dead_letters(QUEUE))


async def test_a_batchs_notifications_go_together(tmp_path: Path, broker: Couriers) -> None:
    code = """
        import time

        class Model:
            max_batch = 8

            def __call__(self, texts: list[str]) -> list[str]:
                time.sleep(0.3)
                return texts
    """
    async with kitchen(tmp_path, code, broker=broker) as it:
        requests = [
            Message(id=f"{number}", body=b"soup", content_type="text/plain", extensions={"webhook": HOOK})
            for number in range(8)
        ]
        await it.broker.send(QUEUE, requests)
        await eventually(lambda: len(broker.notified) == 8, within=10)
        assert len(broker.batches) <= 2


async def test_who_asks_for_no_notification_costs_no_queue(tmp_path: Path, broker: Couriers) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        await it.send("soup", "one")
        await it.send("soup", "two", extensions={"webhook": HOOK, "webhookevents": "start"})
        await it.result("one")
        await it.result("two")
        await eventually(it.is_empty)
        assert all(told.event == "start" for told in broker.notified)
        assert await it.output("soup") == "SOUP"


async def test_while_the_courier_cannot_be_told_the_message_is_not_completed(tmp_path, broker, monkeypatch) -> None:
    monkeypatch.setattr("dumbwaiter.worker.settling._UNSAVED_DELAY", 0.05)
    monkeypatch.setattr("dumbwaiter.holding.RETRY_EVERY", 0.01)
    broker.refusals = [BrokerUnavailableError("down"), BrokerError("no"), BrokerError("no")]
    calls = tmp_path / "calls"
    code = SHOUT.replace("return", f"open({str(calls)!r}, 'a').write('.')\n        return")
    async with kitchen(tmp_path, code, broker=broker) as it:
        await it.send("soup", "one", reply_to=HOOK)
        await eventually(it.is_empty)
        assert broker.diary == ["not notified"] * 3 + ["notified", "completed"]
        assert await has_result(it.store, "one")
        assert calls.read_text() == ".", "when it came again, it was only told"


async def test_notifying_twice_of_one_answer_gives_one_message_id(
    tmp_path: Path, broker: Couriers, monkeypatch
) -> None:
    monkeypatch.setattr("dumbwaiter.worker.settling._UNSAVED_DELAY", 0.05)
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        complete = broker.complete
        fails = [True]

        async def once_not(deliveries: Sequence[object]) -> None:
            if fails:
                fails.pop()
                raise RuntimeError("as if killed here")
            await complete(deliveries)

        broker.complete = once_not  # type: ignore[method-assign]
        await it.send("soup", "one", extensions={"webhook": HOOK})
        await eventually(lambda: len(broker.batches) == 2, within=15)
        assert len({message.id for batch in broker.batches for message in batch}) == 1
        await eventually(it.is_empty)
        assert (await it.broker.stats(WEBHOOKS_QUEUE)).ready == 1, "this broker drops doubles"


async def test_start_chunks_and_prints_are_notified_where_they_are_asked_for(tmp_path, broker: Couriers) -> None:
    async with kitchen(tmp_path, CHATTY, broker=broker) as it:
        extensions = {"webhook": HOOK, "webhookevents": "start,output,logs,completed"}
        await it.send("soup", "one", extensions=extensions)
        await eventually(lambda: broker.notified and broker.notified[-1].event == "completed", within=15)
        seen = {told.event: told.prediction for told in broker.notified}
        assert next(iter(seen)) == "start"
        assert set(seen) == {"start", "logs", "output", "completed"}
        assert b'"status":"processing"' in bytes(seen["start"])
        parts = b"".join(bytes(told.prediction) for told in broker.notified if told.event == "output")
        assert b'"output":["SOUP"' in parts  # the last chunk may come by itself, or with the end alone
        assert b'"logs":"cooking\\n"' in bytes(seen["logs"])
        ids = [event.id for event in await read_events(it.store, "one")]
        places = [json.loads(bytes(told.prediction))["event_id"] for told in broker.notified[:-1]]
        assert places[0] == ids[0], "the start"
        assert len(set(places)) == len(places)
        assert set(places) <= set(ids)


async def test_progress_that_cannot_be_notified_is_passed_over(tmp_path: Path, broker: Couriers, caplog) -> None:
    broker.refusals = [BrokerError("no")]
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        await it.send("soup", "one", extensions={"webhook": HOOK, "webhookevents": "start,completed"})
        await eventually(it.is_empty)
        assert [told.event for told in broker.notified] == ["completed"]
        assert "is not told of its progress" in caplog.text


async def test_a_cancelled_request_is_notified_by_the_worker_that_meets_it(tmp_path: Path, broker: Couriers) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker) as it:
        stands = await it.cancel("one")
        await it.send("soup", "one", extensions={"webhook": HOOK})
        await eventually(lambda: broker.notified)
        assert (await it.result("one")).id == stands.id
        await eventually(it.is_empty)
