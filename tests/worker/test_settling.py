"""The order of effects: saved, then told, then completed; and what happens when one of them cannot be done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kitchen import QUEUE, Kitchen, kitchen

from dumbwaiter.answers import failed, failure_of
from dumbwaiter.blobs.local import LocalBlobStore
from dumbwaiter.blobs.results import load_result, result_key, save_result
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.config import WorkerSettings
from dumbwaiter.dead_letters import redrive
from dumbwaiter.devices.admission import Unlimited
from dumbwaiter.errors import BlobError, BrokerError, BrokerUnavailableError, LockLostError
from dumbwaiter.message import WEBHOOKS_QUEUE, Delivery, Failure, Message
from dumbwaiter.testing import eventually
from dumbwaiter.worker.hand import Hand
from dumbwaiter.worker.notifying import Notifier
from dumbwaiter.worker.settling import Settler

pytestmark = pytest.mark.anyio

SHOUT = """
class Model:
    def __call__(self, text: str) -> str:
        if text == "bad":
            raise ValueError("I do not like it")
        return text.upper()
"""


class Witness(MemoryBroker):
    """Writes down what is done to it; *down* verbs raise BrokerUnavailableError as often as told."""

    def __init__(self, diary: list[str]) -> None:
        super().__init__("memory:", lock_duration=5.0)
        self.diary = diary
        self.down: dict[str, int] = {}

    async def reply(self, address: str, messages: Sequence[Message]) -> None:
        self._enter("told")
        await super().reply(address, messages)

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        self._enter("completed")
        await super().complete(deliveries)

    async def dead_letter(self, deliveries: Sequence[Delivery], **why: Any) -> None:
        self._enter("dead-lettered")
        await super().dead_letter(deliveries, **why)

    def _enter(self, what: str) -> None:
        if self.down.get(what, 0):
            self.down[what] -= 1
            self.diary.append(f"not {what}")
            raise BrokerUnavailableError(f"the broker could not have {what}")
        self.diary.append(what)


class WitnessStore(LocalBlobStore):
    """Writes down when a result is there for good; *full* times it says that its disk is full."""

    def __init__(self, folder: Path, diary: list[str]) -> None:
        super().__init__(f"file://{folder}", folder)
        self.diary = diary
        self.full = 0

    async def put(self, key: str, data: bytes, *, durable: bool = True) -> None:
        if self.full and key.startswith("claims/"):
            self.full -= 1
            self.diary.append("not saved")
            raise BlobError("no space left on the device")
        await super().put(key, data, durable=durable)

    async def create(self, key: str, data: bytes) -> None:
        if self.full:
            self.full -= 1
            self.diary.append("not saved")
            raise BlobError("no space left on the device")
        await super().create(key, data)
        self.diary.append("saved")


@pytest.fixture
def diary() -> list[str]:
    return []


@pytest.fixture
def broker(diary: list[str]) -> Witness:
    return Witness(diary)


@pytest.fixture
def store(tmp_path: Path, diary: list[str]) -> WitnessStore:
    return WitnessStore(tmp_path / "blobs", diary)


async def test_a_kept_result_is_saved_then_told_then_completed(tmp_path, broker, store, diary) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store) as it:
        assert await it.output("soup", extensions={"keep": "true"}) == "SOUP"
        await eventually(lambda: _is_empty(it))
        assert diary == ["saved", "told", "completed"]


async def test_a_failure_too_is_saved_then_told_before_its_message_is_dead_lettered(
    tmp_path, broker, store, diary
) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store, max_deliveries=1) as it:
        assert (await it.failure("bad", extensions={"keep": "true"})).code == "model-error"
        await eventually(lambda: "dead-lettered" in diary)
        assert diary == ["saved", "told", "dead-lettered"]


async def test_a_full_disk_is_waited_for_and_what_the_model_has_made_is_not_thrown_away(
    tmp_path, broker, store, diary, monkeypatch
) -> None:
    monkeypatch.setattr("dumbwaiter.holding.RETRY_EVERY", 0.01)
    store.full = 12
    code = SHOUT.replace("return", f"open('{tmp_path}/runs', 'a').write('x')\n        return")
    async with kitchen(tmp_path, code, broker=broker, store=store, options=WorkerSettings(claim_threshold=100)) as it:
        await it.broker.send(QUEUE, [Message(id="one", body=b"soup " * 100, content_type="text/plain")])
        await eventually(lambda: _is_empty(it), within=20)
    assert diary == ["not saved"] * 12 + ["saved", "completed"]
    assert (tmp_path / "runs").read_text() == "x", "it ran once"
    assert (await load_result(store, "one")).body == b"SOUP " * 100
    assert len(await store.list("result-bodies/")) == 1


async def test_what_cannot_be_saved_within_a_locks_length_is_not_told_and_comes_again_uncounted(
    tmp_path, broker, store, diary, monkeypatch
) -> None:
    monkeypatch.setattr("dumbwaiter.worker.settling._UNSAVED_DELAY", 0.05)
    monkeypatch.setattr(Settler, "_insist_on_store", _only_once)
    store.full = 12  # more often than any delivery limit
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store) as it:
        await it.broker.send(QUEUE, [Message(id="one", body=b"soup", content_type="text/plain")])
        await eventually(lambda: _is_empty(it), within=20)
        assert diary == ["not saved"] * 12 + ["saved", "completed"]
        assert (await load_result(store, "one")).body == b"SOUP"


async def test_a_large_answer_that_cannot_be_put_anywhere_is_not_completed_either(
    tmp_path, broker, store, diary, monkeypatch
) -> None:
    monkeypatch.setattr("dumbwaiter.worker.settling._UNSAVED_DELAY", 0.05)
    monkeypatch.setattr(Settler, "_insist_on_store", _only_once)
    options = WorkerSettings(claim_threshold=100)
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store, options=options) as it:
        store.full = 3
        assert await it.output("soup " * 100) == "SOUP " * 100
        await eventually(lambda: _is_empty(it))
        assert diary == ["not saved"] * 3 + ["told", "completed"]


async def _only_once(settler: Settler, held: Any, write: Any) -> Any:
    """As when a lock's length has passed."""
    return await write()


async def test_the_store_is_insisted_on_for_a_locks_length_and_not_once_the_lock_is_lost(
    tmp_path, broker, store, monkeypatch
) -> None:
    monkeypatch.setattr("dumbwaiter.holding.RETRY_EVERY", 0.01)
    tried: list[float] = []

    async def full() -> None:
        tried.append(time.monotonic())
        raise BlobError("no space left on the device")

    broker.lock_duration = 0.2
    settler = Settler(broker, store, Hand(), Notifier(broker, QUEUE), claim_threshold=100, changed=asyncio.Event())
    delivery = Delivery(message=Message(), queue=QUEUE, delivery_count=1, lock_token="t", locked_until=0.0)
    (held,) = Hand().take([delivery], await Unlimited().acquire(1))
    with pytest.raises(BlobError, match="no space left"):
        await settler._insist_on_store(held, full)
    assert len(tried) > 1
    assert tried[-1] - tried[0] > 0.15
    tried.clear()
    held.lost = True
    with pytest.raises(BlobError, match="no space left"):
        await settler._insist_on_store(held, full)
    assert len(tried) == 1


async def test_a_large_kept_answer_is_stored_once_and_whoever_waits_reads_it_there(tmp_path, broker, store) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store, options=WorkerSettings(claim_threshold=100)) as it:
        assert await it.output("soup " * 100, id="one", extensions={"keep": "true"}) == "SOUP " * 100
        await eventually(lambda: _is_empty(it))
        assert await store.list("claims/") == []
        assert len(await store.list("result-bodies/")) == 1
        # With a correlation id of its own nobody could tell whose result it is.
        text = await it.output("tea " * 100, id="two", correlation_id="mine", extensions={"keep": "true"})
        assert text == "TEA " * 100
        await eventually(lambda: _is_empty(it))


async def test_a_stored_answer_that_nobody_can_read_makes_a_dead_letter_and_the_model_does_not_run(
    tmp_path, broker, store, diary
) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store) as it:
        await store.put(result_key("one"), b"damaged")
        told = await it.failure("soup", id="one", extensions={"keep": "true"})
        assert told.code == "result-damaged"
        await eventually(lambda: "dead-lettered" in diary)
        (letter,) = await it.broker.dead_letters(QUEUE)
        assert letter.reason == "result-damaged"
        assert letter.detail.startswith("the result of 'one' is damaged: ")
        assert diary == ["told", "dead-lettered"]
        assert await redrive(it.broker, store, QUEUE) == 1
        await eventually(lambda: store.exists(result_key("one")))
        assert (await load_result(store, "one")).body == b"SOUP"


async def test_an_answer_that_is_damaged_while_its_request_runs_makes_a_dead_letter_too(
    tmp_path, broker, store, diary
) -> None:
    code = SHOUT.replace("class", "import pathlib, time\n\n\nclass", 1).replace(
        "return",
        f"pathlib.Path('{tmp_path}/runs').touch()\n"
        f"        while not pathlib.Path('{tmp_path}/go').exists():\n"
        "            time.sleep(0.01)\n"
        "        return",
    )
    async with kitchen(tmp_path, code, broker=broker, store=store) as it:
        await it.broker.send(QUEUE, [Message(id="one", body=b"soup", content_type="text/plain")])
        await eventually((tmp_path / "runs").exists)
        await store.put(result_key("one"), b"damaged")
        (tmp_path / "go").touch()
        await eventually(lambda: "dead-lettered" in diary)
        assert diary == ["dead-lettered"]


async def test_a_large_answer_to_nobody_leaves_no_blob_behind(tmp_path, broker, store, diary) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store, options=WorkerSettings(claim_threshold=100)) as it:
        inbox = await it.broker.open_inbox()
        await inbox.close()
        body = b"soup " * 100
        await it.broker.send(QUEUE, [Message(body=body, content_type="text/plain", reply_to=inbox.address)])
        await eventually(lambda: diary == ["told", "completed"])
        await eventually(lambda: _is_empty(it))
        assert await store.list("claims/") == []


async def test_while_the_broker_is_down_telling_and_completing_are_tried_again(
    tmp_path, broker, store, diary, monkeypatch
) -> None:
    monkeypatch.setattr("dumbwaiter.holding.RETRY_EVERY", 0.01)
    broker.down = {"told": 3, "completed": 2}
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store) as it:
        assert await it.output("soup") == "SOUP"
        await eventually(lambda: _is_empty(it))
        assert diary == ["not told"] * 3 + ["told"] + ["not completed"] * 2 + ["completed"]


PICKY = """
from dumbwaiter import PermanentError

class Model:
    def __call__(self, text: str) -> str:
        raise PermanentError("never")
"""


class Deaf(MemoryBroker):
    """Takes no notifications, *deaf* times."""

    deaf = 2

    async def send(self, queue: str, messages: Sequence[Message], *, delay: float = 0.0) -> None:
        if queue == WEBHOOKS_QUEUE and self.deaf:
            self.deaf -= 1
            raise BrokerError("no space left on the device")
        await super().send(queue, messages, delay=delay)


async def test_a_failure_that_the_courier_could_not_be_told_of_is_dead_lettered_all_the_same(
    tmp_path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("dumbwaiter.worker.settling._UNSAVED_DELAY", 0.05)
    async with kitchen(tmp_path, PICKY, broker=Deaf()) as it:
        await it.broker.create_queue(WEBHOOKS_QUEUE)
        await it.send("soup", "one", extensions={"webhook": "http://receiver.example/"})
        (letter,) = await eventually(lambda: it.broker.dead_letters(QUEUE))
        assert (letter.reason, letter.delivery_count) == ("model-error", 1)
        assert (await it.broker.stats(WEBHOOKS_QUEUE)).ready == 1
        assert await it.is_empty()
    assert caplog.text.count("the courier cannot be told of its result") == 2
    assert "attempt 1 of one failed" not in caplog.text, "it was put off, which is no attempt"


@pytest.mark.parametrize(("attempts", "dead"), [(1, 1), (3, 0)])
async def test_a_first_delivery_that_failed_already_is_dead_lettered_unless_it_must_be_a_double(
    tmp_path, broker, store, diary, attempts, dead
) -> None:
    """A worker that was told to hurry hands back uncounted, also what it has saved a failure of."""
    said = Failure(code="model-error", message="I do not like it", attempts=attempts)
    await save_result(store, "one", failed(Message(id="one"), said), threshold=1000)
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store) as it:
        assert (await it.failure("soup", id="one", extensions={"keep": "true"})).attempts == attempts
        await eventually(it.is_empty)
        assert len(await it.broker.dead_letters(QUEUE)) == dead


async def test_a_redriven_request_that_its_caller_has_cancelled_ends_without_being_run(
    tmp_path, broker, store, diary
) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store, max_deliveries=1) as it:
        await it.send("bad", "one")
        await eventually(lambda: it.broker.dead_letters(QUEUE))
        await store.delete(result_key("one"))  # as when a redrive dies half way
        await it.cancel("one")
        diary.clear()
        assert await redrive(it.broker, store, QUEUE) == 1
        await eventually(it.is_empty)
        assert diary == ["completed"]
        assert failure_of(await load_result(store, "one")).code == "canceled"


async def test_an_asker_that_is_gone_does_not_keep_the_message_from_being_completed(
    tmp_path, broker, store, diary
) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store) as it:
        inbox = await it.broker.open_inbox()
        await inbox.close()
        await it.broker.send(QUEUE, [Message(body=b"soup", content_type="text/plain", reply_to=inbox.address)])
        await eventually(lambda: diary == ["told", "completed"])
        await eventually(lambda: _is_empty(it))


async def test_whoever_lost_the_lock_tells_nobody_anything(tmp_path, broker, store, diary) -> None:
    """As after SIGSTOP: the consumer wakes up with an output for a message that another worker holds by now."""
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store) as it:
        await it.broker.create_queue("elsewhere")
        await it.broker.send("elsewhere", [Message(id="one", body=b"soup", content_type="text/plain")])
        thief = MemoryBroker("memory:", lock_duration=5.0)
        thief._server = broker._server
        async with thief:
            (stale,) = await it.broker.receive("elsewhere", max_messages=1, max_wait=1)
            await it.broker.abandon([stale])
            (mine,) = await thief.receive("elsewhere", max_messages=1, max_wait=1)
            settler, hand = it.consumer._settler, it.consumer._hand
            (held,) = hand.take([_run_out(stale)], await it.consumer._admission.acquire(1))
            settler.settle([_succeeded(held)])
            await settler.settled()
            assert diary == []
            await thief.complete([mine])


def _run_out(delivery: Delivery) -> Delivery:
    import msgspec

    return msgspec.structs.replace(delivery, locked_until=0.0)


def _succeeded(held: Any) -> Any:
    from dumbwaiter.message import Timings
    from dumbwaiter.worker.settling import success

    return success(held, b"stale", "text/plain", Timings())


async def _is_empty(it: Kitchen) -> bool:
    await asyncio.sleep(0)
    stats = await it.broker.stats(QUEUE)
    return stats.ready + stats.locked + stats.delayed == 0


async def test_a_claim_check_stays_for_whoever_holds_the_message_by_now(tmp_path, broker, store) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store) as it:
        await store.put("claims/soup", b"soup")

        async def lose(deliveries: Sequence[Delivery]) -> None:
            raise LockLostError(deliveries)

        broker.complete = lose  # another worker has received it meanwhile
        inbox = await it.broker.open_inbox()
        message = Message(content_type="text/plain", data_ref="blob:claims/soup", reply_to=inbox.address)
        await it.broker.send(QUEUE, [message])
        assert [answer.body for answer in await inbox.receive(max_messages=1, max_wait=10)] == [b"SOUP"]
        await it.consumer._settler.settled()
        assert await store.list("claims/") == ["claims/soup"]


@pytest.mark.parametrize(("text", "left"), [("bad", ["claims/body"]), ("soup", [])])
async def test_the_body_of_a_dead_letter_stays_for_its_redrive(tmp_path, broker, store, text, left) -> None:
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store, max_deliveries=1) as it:
        await store.put("claims/body", text.encode())
        message = Message(id="one", content_type="text/plain", data_ref="blob:claims/body", extensions={"keep": "true"})
        await it.broker.send(QUEUE, [message])
        await it.result("one")
        await eventually(it.is_empty)
        await it.consumer._settler.settled()
        assert [letter.message.data_ref for letter in await it.broker.dead_letters(QUEUE)] == [
            f"blob:{key}" for key in left
        ]
        assert await store.list("claims/") == left


@pytest.mark.parametrize(
    ("code", "left"), [("model-error", ["claims/body"]), ("canceled", []), ("deadline-exceeded", [])]
)
async def test_a_double_of_what_failed_leaves_the_body_that_the_dead_letter_needs(
    tmp_path, broker, store, code, left
) -> None:
    """Both claim one body where a request was sent again with its key, and not every broker drops the double."""
    said = Failure(code=code, message="no", attempts=3)
    await save_result(store, "one", failed(Message(id="one"), said), threshold=1000)
    await store.put("claims/body", b"soup")
    async with kitchen(tmp_path, SHOUT, broker=broker, store=store) as it:
        message = Message(id="one", content_type="text/plain", data_ref="blob:claims/body", extensions={"keep": "true"})
        await it.broker.send(QUEUE, [message])
        await eventually(lambda: "completed" in broker.diary)
        await it.consumer._settler.settled()
        assert await store.list("claims/") == left
