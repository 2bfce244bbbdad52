"""Request and reply over a real broker: grouped sends, one answer each, and nobody left waiting."""

from __future__ import annotations

import asyncio
import gc
import secrets

import msgspec
import pytest
from slow_store import SlowStore

from dumbwaiter.answers import succeeded
from dumbwaiter.asking import MAX_SEND, Asker
from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import (
    BlobError,
    BrokerUnavailableError,
    MessageTooLargeError,
    PredictionTimeoutError,
    QueueNotFoundError,
)
from dumbwaiter.message import Message, Timings
from dumbwaiter.testing import eventually
from echo_worker import serving

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite"])
async def broker(request, tmp_path):
    url = f"memory://{secrets.token_hex(8)}" if request.param == "memory" else f"sqlite://{tmp_path}/queue.db"
    async with open_broker(url) as broker:
        await broker.create_queue("echo")
        await broker.create_queue("silent")
        yield broker


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/blobs")


class GatedBroker(MemoryBroker):
    """A memory broker whose sends wait for *gate*; *sends* are the ids that each of them carried."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.sends: list[list[str]] = []

    async def send(self, queue, messages, *, delay=0.0):
        self.sends.append([message.id for message in messages])
        await self.gate.wait()
        await super().send(queue, messages, delay=delay)


class SmallBroker(GatedBroker):
    capabilities = msgspec.structs.replace(MemoryBroker.capabilities, max_message_nbytes=10)


@pytest.fixture(params=[GatedBroker, SmallBroker])
async def gated(request):
    async with request.param() as broker:
        await broker.create_queue("echo")
        yield broker


def request(id_="r1", body=b"soup", **attributes):
    return Message(id=id_, body=body, content_type="text/plain", **attributes)


async def received(broker, queue="silent"):
    (delivery,) = await broker.receive(queue, max_messages=1, max_wait=5)
    await broker.complete([delivery])
    return delivery.message


def answer_to(message, body=b"late"):
    return succeeded(message, body=body, content_type="text/plain", timings=Timings())


async def nothing_in(store):
    return await store.list("") == []


async def test_each_of_many_gets_its_own_answer(broker):
    async with serving(broker), Asker(broker) as asker:
        asks = [asker.ask("echo", request(f"r{n}", b"%d" % n), timeout=20) for n in range(300)]
        answers = await asyncio.gather(*asks)
        assert [answer.body for answer in answers] == [b"%d" % n for n in range(300)]
        assert asker.waiting() == set()
        assert asker.late == 0


async def test_an_askers_own_correlation_id_comes_back(broker):
    async with serving(broker) as worker, Asker(broker) as asker:
        answer = await asker.ask("echo", request(correlation_id="mine"), timeout=20)
    assert answer.correlation_id == "mine"
    assert (worker.requests[0].id, worker.requests[0].correlation_id) == ("r1", "mine")


async def test_while_one_send_is_on_its_way_the_rest_gathers(gated):
    async with serving(gated), Asker(gated) as asker:
        asks = [asyncio.create_task(asker.ask("echo", request("first"), timeout=20))]
        await eventually(lambda: gated.sends)
        asks += [asyncio.create_task(asker.ask("echo", request(f"r{n}"), timeout=20)) for n in range(MAX_SEND + 3)]
        await eventually(lambda: len(asker._waiters) == len(asks))
        gated.gate.set()
        await asyncio.gather(*asks)
    assert [len(ids) for ids in gated.sends] == [1, MAX_SEND, 3]


async def test_queues_do_not_wait_for_each_other(gated):
    await gated.create_queue("other")
    async with Asker(gated) as asker:
        sends = [asyncio.create_task(asker.send(queue, request(queue))) for queue in ("echo", "other")]
        await eventually(lambda: sorted(gated.sends) == [["echo"], ["other"]])
        gated.gate.set()
        await asyncio.gather(*sends)


async def test_begin_with_confirm_returns_only_after_the_broker_has_confirmed(gated):
    async with Asker(gated) as asker:
        begin = asyncio.create_task(asker.begin("echo", request(), confirm=True))
        await eventually(lambda: gated.sends)
        assert not begin.done()
        gated.gate.set()
        pending = await begin
        assert (pending.id, pending.queue, pending.done()) == ("r1", "echo", False)
        assert (await gated.stats("echo")).ready == 1


async def test_a_message_given_up_on_before_it_left_is_never_sent(gated, store):
    async with Asker(gated, store, claim_threshold=5) as asker:
        first = asyncio.create_task(asker.ask("echo", request("first"), timeout=20))
        await eventually(lambda: gated.sends)
        cancelled = asyncio.create_task(asker.ask("echo", request("cancelled", b"large body"), timeout=20))
        timed_out = asyncio.create_task(asker.ask("echo", request("timed-out"), timeout=0.05))
        unconfirmed = asyncio.create_task(asker.begin("echo", request("unconfirmed"), confirm=True))
        with pytest.raises(PredictionTimeoutError, match=r"no answer to 'timed-out' from 'echo' within 0\.05 s"):
            await timed_out
        await eventually(lambda: {"cancelled", "unconfirmed"} <= set(asker._waiters))
        cancelled.cancel()
        unconfirmed.cancel()
        await asyncio.wait({cancelled, unconfirmed})
        last = asyncio.create_task(asker.ask("echo", request("last"), timeout=20))
        await eventually(lambda: "last" in asker._waiters)
        gated.gate.set()
        async with serving(gated) as worker:
            await asyncio.gather(first, last)
        assert [message.id for message in worker.requests] == ["first", "last"]
        await eventually(lambda: nothing_in(store), what="the claim of the cancelled request being dropped")


async def test_no_answer_in_time_says_from_whom_and_for_how_long(broker):
    async with Asker(broker) as asker:
        with pytest.raises(
            PredictionTimeoutError, match=r"no answer to 'r1' from 'silent' within .*may still be waiting"
        ):
            await asker.ask("silent", request(), timeout=0.05)
        assert asker.waiting() == set()


async def test_no_answer_in_time_shows_the_patience_that_was_asked_for(broker):
    async with Asker(broker) as asker:
        with pytest.raises(PredictionTimeoutError, match=r"from 'silent' within 0\.0123456 s; it may still be"):
            await asker.ask("silent", request(), timeout=0.0123456)


async def test_fetching_the_body_of_an_answer_counts_as_waiting(broker, store):
    slow = SlowStore(store, "get")
    async with serving(broker, store=store), Asker(broker, slow, claim_threshold=1000) as asker:
        with pytest.raises(PredictionTimeoutError, match=r"no answer to 'r1' from 'echo' within 0\.2 s"):
            await asker.ask("echo", request(body=b"x" * 200_000), timeout=0.2)
        assert slow.begun == 1
        slow.gate.set()
        await eventually(lambda: nothing_in(store), what="the body that nobody waits for being dropped")


async def test_a_handle_whose_body_takes_longer_than_one_wait_has_it_by_the_next(broker, store):
    slow = SlowStore(store, "get")
    async with serving(broker, store=store), Asker(broker, slow, claim_threshold=1000) as asker:
        pending = await asker.begin("echo", request(body=b"x" * 200_000))
        await eventually(pending.done)
        with pytest.raises(PredictionTimeoutError, match=r"no answer to 'r1' from 'echo' within 0\.05 s"):
            await pending.wait(0.05)
        slow.gate.set()
        assert len((await pending.wait(20)).body) == 200_000
        assert len((await pending.wait(0)).body) == 200_000
        assert slow.begun == 1


async def test_a_body_whose_fetching_failed_is_fetched_again_by_the_next_wait(broker, store):
    async with Asker(broker, store) as asker:
        pending = await asker.begin("silent", request(), confirm=True)
        asked = await received(broker)
        answer = msgspec.structs.replace(answer_to(asked, b""), data_ref="blob:claims/body")
        await broker.reply(asked.reply_to, [answer])
        with pytest.raises(BlobError, match="no blob under 'claims/body'"):
            await pending.wait(10)
        await store.put("claims/body", b"body")
        assert (await pending.wait(10)).body == b"body"


async def test_a_large_body_that_took_too_long_to_write_leaves_nothing_behind(broker, store):
    slow = SlowStore(store, "put")
    async with Asker(broker, slow, claim_threshold=10) as asker:
        with pytest.raises(PredictionTimeoutError, match=r"message 'r1' could not be sent within 0\.05 s"):
            await asker.ask("silent", request(body=b"x" * 100), timeout=0.05)
        assert slow.begun == 1
        slow.gate.set()
    assert await nothing_in(store)
    assert (await broker.stats("silent")).ready == 0


async def test_a_request_whose_inbox_does_not_open_in_time_was_not_sent():
    class Slow(MemoryBroker):
        async def open_inbox(self):
            await asyncio.Event().wait()

    async with Slow() as broker, Asker(broker) as asker:
        with pytest.raises(PredictionTimeoutError, match=r"message 'r1' could not be sent within 0\.05 s"):
            await asker.ask("echo", request(), timeout=0.05)


async def test_a_late_answer_is_counted_and_its_blob_dropped(broker, store):
    async with Asker(broker, store) as asker:
        with pytest.raises(PredictionTimeoutError):
            await asker.ask("silent", request(), timeout=0.05)
        asked = await received(broker)
        await store.put("claims/late", b"body")
        late = msgspec.structs.replace(answer_to(asked, b""), data_ref="blob:claims/late")
        await broker.reply(asked.reply_to, [late, Message(body=b"to nobody")])
        await eventually(lambda: asker.late == 2)
        await eventually(lambda: nothing_in(store))


async def test_a_second_answer_is_late(broker):
    async with Asker(broker) as asker:
        ask = asyncio.create_task(asker.ask("silent", request(), timeout=20))
        asked = await received(broker)
        await broker.reply(asked.reply_to, [answer_to(asked, b"first"), answer_to(asked, b"second")])
        assert (await ask).body == b"first"
        await eventually(lambda: asker.late == 1)


async def test_an_id_that_is_waited_for_is_refused_and_free_again_afterwards(broker):
    async with Asker(broker) as asker:
        first = await asker.begin("silent", request(), confirm=True)
        with pytest.raises(ValueError, match="'r1' is being waited for already; give each request an id of its own"):
            await asker.ask("silent", request(), timeout=1)
        first.forget()
        await asker.begin("silent", request())


async def test_a_large_request_whose_id_is_refused_leaves_nothing_behind(broker, store):
    async with Asker(broker, store, claim_threshold=10) as asker:
        first = await asker.begin("silent", request(), confirm=True)
        with pytest.raises(ValueError, match="'r1' is being waited for already"):
            await asker.ask("silent", request(body=b"x" * 100), timeout=1)
        assert not first.done()
    assert await nothing_in(store)


async def test_an_unknown_queue_is_named_to_all_who_asked_it(broker, store):
    async with Asker(broker, store, claim_threshold=5) as asker:
        asks = [asker.ask("nobody", request(f"r{n}", b"large body"), timeout=20) for n in range(3)]
        for error in await asyncio.gather(*asks, return_exceptions=True):
            assert isinstance(error, QueueNotFoundError)
            assert "no queue named 'nobody'" in str(error)
        with pytest.raises(QueueNotFoundError, match="nobody"):
            await asker.send("nobody", request(body=b"large body"))
        await eventually(lambda: nothing_in(store))


async def test_the_same_message_may_be_tried_again_while_its_error_is_in_hand(broker):
    async with Asker(broker) as asker:
        try:
            await asker.begin("new", request(), confirm=True)
        except QueueNotFoundError:
            await broker.create_queue("new")
            await asker.begin("new", request(), confirm=True)
        else:
            pytest.fail("the queue existed")


async def test_a_handle_that_dies_does_not_take_a_later_one_of_its_id_along(broker):
    async with Asker(broker) as asker:
        pending = await asker.begin("nobody", request())
        await eventually(pending.done)
        with pytest.raises(QueueNotFoundError):
            await pending.wait(1)
        # The second handle is there before the first one dies.
        pending = await asker.begin("silent", request(), confirm=True)
        gc.collect()
        asked = await received(broker)
        await broker.reply(asked.reply_to, [answer_to(asked, b"answer")])
        assert (await pending.wait(10)).body == b"answer"


async def test_only_the_message_that_is_too_large_suffers():
    async with SmallBroker() as broker, Asker(broker) as asker:
        broker.gate.set()
        async with serving(broker):
            bodies = [b"small", b"much too large", b"fine"]
            asks = [asker.ask("echo", request(f"r{n}", body), timeout=20) for n, body in enumerate(bodies)]
            first, second, third = await asyncio.gather(*asks, return_exceptions=True)
        assert (first.body, third.body) == (b"small", b"fine")
        assert isinstance(second, MessageTooLargeError)
        assert (second.nbytes, second.limit) == (14, 10)


async def test_a_body_that_the_broker_does_not_take_travels_through_the_store(store):
    async with SmallBroker() as broker, serving(broker, store=store) as worker, Asker(broker, store) as asker:
        broker.gate.set()
        body = b"larger than 10 bytes, and far below the threshold"
        assert (await asker.ask("echo", request(body=body), timeout=20)).body == body
    assert worker.requests[0].data_ref.startswith("blob:claims/r1-")


async def test_an_error_of_the_broker_reaches_whoever_asked_and_the_next_one_is_sent():
    class Fails(MemoryBroker):
        async def send(self, queue, messages, *, delay=0.0):
            if messages[0].id.startswith("bad"):
                raise BrokerUnavailableError("disk full")
            await super().send(queue, messages, delay=delay)

    async with Fails() as broker, serving(broker), Asker(broker) as asker:
        for confirm in (True, False):
            with pytest.raises(BrokerUnavailableError, match="disk full"):
                await (await asker.begin("echo", request(f"bad-{confirm}"), confirm=confirm)).wait(10)
        assert (await asker.ask("echo", request("good"), timeout=10)).body == b"soup"


async def test_a_handle_may_be_waited_on_again_and_again(broker):
    async with Asker(broker) as asker:
        pending = await asker.begin("silent", request(), confirm=True)
        for timeout in (0, 0.02):
            with pytest.raises(PredictionTimeoutError, match="no answer to 'r1'"):
                await pending.wait(timeout)
        asked = await received(broker)
        await broker.reply(asked.reply_to, [answer_to(asked)])
        assert (await pending.wait(None)) is (await pending.wait(0))


async def test_a_handle_that_is_forgotten_leaves_nothing_behind(broker):
    async with Asker(broker) as asker:
        pending = await asker.begin("silent", request(), confirm=True)
        assert asker.waiting() == {"silent"}
        del pending
        gc.collect()
        assert asker.waiting() == set()


async def test_large_bodies_travel_by_claim_check_and_leave_nothing_behind(broker, store):
    body = b"x" * 200_000
    async with serving(broker, store=store) as worker, Asker(broker, store, claim_threshold=1000) as asker:
        assert (await asker.ask("echo", request(body=body), timeout=20)).body == body
        assert worker.requests[0].data_ref.startswith("blob:claims/r1-")
        await eventually(lambda: nothing_in(store))


async def test_two_who_wait_on_one_handle_get_the_same_large_answer(broker, store):
    async with serving(broker, store=store), Asker(broker, store, claim_threshold=1000) as asker:
        pending = await asker.begin("echo", request(body=b"x" * 200_000))
        first, second = await asyncio.gather(pending.wait(20), pending.wait(20))
        assert first is second
        assert len(first.body) == 200_000


async def test_without_a_store_large_bodies_travel_inline(broker):
    async with serving(broker) as worker, Asker(broker, claim_threshold=10) as asker:
        assert len((await asker.ask("echo", request(body=b"x" * 100), timeout=20)).body) == 100
    assert worker.requests[0].data_ref is None


@pytest.mark.parametrize(
    ("data_ref", "reason"),
    [("file:///etc/passwd", "has no body to fetch: .*file:///etc/passwd"), ("blob:claims/gone", "")],
)
async def test_an_answer_whose_body_cannot_be_fetched_says_so(broker, store, data_ref, reason):
    async with Asker(broker, store) as asker:
        ask = asyncio.create_task(asker.ask("silent", request(), timeout=20))
        asked = await received(broker)
        await broker.reply(asked.reply_to, [msgspec.structs.replace(answer_to(asked), data_ref=data_ref)])
        with pytest.raises(BlobError, match=reason or "no blob under 'claims/gone'"):
            await ask


async def test_a_store_that_cannot_take_a_body_fails_that_request_only(broker, store, tmp_path):
    (tmp_path / "blobs").write_text("a file where the folder should be")
    async with serving(broker), Asker(broker, store, claim_threshold=10) as asker:
        with pytest.raises(BlobError, match="cannot write blob 'claims/r1-"):
            await asker.ask("echo", request(body=b"x" * 100), timeout=20)
        assert (await asker.ask("echo", request(), timeout=20)).body == b"soup"
