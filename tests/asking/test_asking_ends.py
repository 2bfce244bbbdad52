"""How waiting ends: an inbox that is lost or silent, and an asker that closes with work under way."""

from __future__ import annotations

import asyncio

import pytest
from slow_store import SlowStore
from test_asking import GatedBroker, SmallBroker, nothing_in, request

from dumbwaiter.asking import Asker
from dumbwaiter.blobs import open_store
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import (
    BlobError,
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    MessageTooLargeError,
    PredictionTimeoutError,
)
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from echo_worker import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def broker():
    async with MemoryBroker() as broker:
        await broker.create_queue("silent")
        yield broker


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/blobs")


async def lose_inbox(broker):
    """What a broker does that forgets an inbox: its reader is told."""
    await broker._inboxes.pop().close()


async def test_a_lost_inbox_is_told_to_all_who_wait_and_the_next_request_opens_another(broker):
    async with Asker(broker) as asker:
        waiting = [await asker.begin("silent", request(f"r{n}"), confirm=True) for n in range(3)]
        await lose_inbox(broker)
        for pending in waiting:
            with pytest.raises(BrokerUnavailableError, match=r"the inbox memory-inbox-\w+ is lost; ask again"):
                await pending.wait(10)
        async with serving(broker):
            # The same id may be asked again at once, as the error says.
            assert (await asker.ask("echo", request("r0"), timeout=10)).body == b"soup"
        assert len(broker._inboxes) == 1


async def test_an_inbox_that_is_lost_while_a_large_body_is_written_is_replaced(broker, store):
    class LosesInbox:
        def __getattr__(self, name):
            return getattr(store, name)

        async def put(self, key, data, *, durable):
            if broker._inboxes:
                await lose_inbox(broker)
                await eventually(lambda: asker._address is None)
            await store.put(key, data, durable=durable)

    async with serving(broker, store=store), Asker(broker, LosesInbox(), claim_threshold=10) as asker:
        assert (await asker.ask("echo", request("small", b"1"), timeout=10)).body == b"1"
        assert (await asker.ask("echo", request("large", b"x" * 100), timeout=10)).body == b"x" * 100


async def test_an_inbox_that_cannot_be_read_for_a_while_is_tried_again(monkeypatch, caplog):
    monkeypatch.setattr("dumbwaiter.asking.asker.FIRST_BACK_OFF", 0.001)

    class Stutters(MemoryBroker):
        async def open_inbox(self):
            inbox = await super().open_inbox()
            receive, failures = inbox.receive, iter([True, True])

            async def stuttering(**arguments):
                if next(failures, False):
                    raise BrokerUnavailableError("restarting")
                return await receive(**arguments)

            inbox.receive = stuttering
            return inbox

    async with Stutters() as broker, serving(broker), Asker(broker) as asker:
        assert (await asker.ask("echo", request(), timeout=10)).body == b"soup"
    assert caplog.text.count("cannot be read, trying again") == 2
    assert "restarting" in caplog.text


async def test_an_inbox_that_could_be_read_again_is_tried_again_soon(monkeypatch, caplog):
    monkeypatch.setattr("dumbwaiter.asking.asker.FIRST_BACK_OFF", 0.01)

    class Stutters(MemoryBroker):
        async def open_inbox(self):
            inbox = await super().open_inbox()
            receive, ends = inbox.receive, iter(["fails", "fails", "fails", "is empty", "fails"])

            async def stuttering(**arguments):
                how = next(ends, "works")
                if how == "fails":
                    raise BrokerUnavailableError("restarting")
                return [] if how == "is empty" else await receive(**arguments)

            inbox.receive = stuttering
            return inbox

    async with Stutters() as broker, serving(broker), Asker(broker) as asker:
        assert (await asker.ask("echo", request(), timeout=10)).body == b"soup"
    delays = [record.args[1] for record in caplog.records if "trying again" in record.msg]
    assert delays == [0.01, 0.02, 0.04, 0.01]


async def test_a_fault_in_reading_the_inbox_is_logged_and_told_to_all_who_wait(broker, caplog):
    async with Asker(broker) as asker:
        pending = await asker.begin("silent", request(), confirm=True)

        def misread(answers):
            raise TypeError("a fault of ours")

        asker._deliver = misread
        await broker.reply(asker._address, [Message(correlation_id="r1")])
        reason = r"the inbox memory-inbox-\w+ cannot be read \(TypeError: a fault of ours\); ask again"
        with pytest.raises(BrokerUnavailableError, match=reason):
            await pending.wait(10)
        del asker._deliver
        async with serving(broker):
            assert (await asker.ask("echo", request(), timeout=10)).body == b"soup"
    assert "reading the inbox memory-inbox-" in caplog.text
    assert "Traceback" in caplog.text


async def test_an_inbox_that_cannot_be_closed_does_not_hinder_the_end(broker, caplog):
    caplog.set_level("DEBUG", "dumbwaiter.asking")
    async with Asker(broker) as asker:
        await asker.begin("silent", request())

        close = asker._inbox.close

        async def refuse():
            inbox.close = close
            raise BrokerError("too late")

        inbox = asker._inbox
        inbox.close = refuse
    assert "too late" in caplog.text


async def test_close_tells_all_who_wait_and_nothing_more_can_be_asked(broker, store):
    asker = Asker(broker, store, claim_threshold=10)
    pending = await asker.begin("silent", request("handle"), confirm=True)
    ask = asyncio.create_task(asker.ask("silent", request("ask"), timeout=20))
    await eventually(lambda: "ask" in asker._waiters)
    await asker.close()
    for wait in (pending.wait(10), ask):
        with pytest.raises(BrokerClosedError, match="closed while waiting for the answer"):
            await wait
    for call in (
        asker.ask("silent", request(), timeout=1),
        asker.ask("silent", request(body=b"x" * 100), timeout=1),
        asker.begin("silent", request(), confirm=True),
        asker.send("silent", request()),
    ):
        with pytest.raises(BrokerClosedError, match="can send no more"):
            await call
    await asker.close()
    assert await nothing_in(store)


@pytest.mark.parametrize("kind", [GatedBroker, SmallBroker])
async def test_close_while_sending_tells_those_on_the_way_and_those_behind(kind):
    async with kind() as broker:
        await broker.create_queue("echo")
        asker = Asker(broker)
        sends = [asyncio.create_task(asker.send("echo", request("first")))]
        await eventually(lambda: broker.sends)
        sends += [asyncio.create_task(asker.begin("echo", request(f"r{n}"), confirm=True)) for n in range(2)]
        await eventually(lambda: len(asker._outbox._entries["echo"]) == 2)
        await asker.close()
        before = "closed before this message was sent"
        for send, reason in zip(sends, ["closed while sending", before, before], strict=True):
            with pytest.raises(BrokerClosedError, match=reason):
                await asyncio.wait_for(send, 5)
        assert broker.sends == [["first"]]


async def test_close_while_the_messages_of_a_batch_are_sent_one_by_one_tells_them_all():
    class RefusesBatches(GatedBroker):
        async def send(self, queue, messages, *, delay=0.0):
            if len(messages) > 1:
                raise MessageTooLargeError(14, 10)
            await super().send(queue, messages, delay=delay)

    async with RefusesBatches() as broker:
        asker = Asker(broker)
        sends = [asyncio.create_task(asker.send("echo", request(f"r{n}"))) for n in range(3)]
        await eventually(lambda: broker.sends == [["r0"]])
        await asker.close()
        for send in sends:
            with pytest.raises(BrokerClosedError, match="closed while sending"):
                await asyncio.wait_for(send, 5)


async def test_close_while_the_inbox_opens_leaves_no_inbox_behind():
    class SlowToOpen(MemoryBroker):
        def __init__(self) -> None:
            super().__init__()
            self.opening, self.go_on = asyncio.Event(), asyncio.Event()

        async def open_inbox(self):
            self.opening.set()
            await self.go_on.wait()
            return await super().open_inbox()

    async with SlowToOpen() as broker:
        asker = Asker(broker)
        ask = asyncio.create_task(asker.ask("silent", request(), timeout=20))
        await broker.opening.wait()
        await asker.close()
        broker.go_on.set()
        with pytest.raises(BrokerClosedError, match="can send no more"):
            await ask
        assert broker._server.inboxes == {}


async def test_close_while_a_large_body_is_written_sends_nothing(broker, store):
    slow = SlowStore(store, "put")
    asker = Asker(broker, slow, claim_threshold=10)
    calls = [
        asyncio.create_task(asker.send("silent", request("sent", b"x" * 100))),
        asyncio.create_task(asker.ask("silent", request("asked", b"x" * 100), timeout=20)),
    ]
    await eventually(lambda: slow.begun == 2)
    await asker.close()
    slow.gate.set()
    for call in calls:
        with pytest.raises(BrokerClosedError, match="can send no more"):
            await call
    assert (await broker.stats("silent")).ready == 0
    await eventually(lambda: nothing_in(store), what="the claims of what was never sent being dropped")


async def test_close_drops_the_claims_of_what_was_never_sent(store):
    async with GatedBroker() as broker:
        await broker.create_queue("echo")
        asker = Asker(broker, store, claim_threshold=10)
        first = asyncio.create_task(asker.send("echo", request("first")))
        await eventually(lambda: broker.sends)
        behind = [
            asyncio.create_task(asker.send("echo", request("sent", b"x" * 100))),
            asyncio.create_task(asker.ask("echo", request("asked", b"x" * 100), timeout=20)),
        ]
        await eventually(lambda: len(asker._outbox._entries["echo"]) == 2)
        assert len(await store.list("claims/")) == 2
        await asker.close()
        assert await nothing_in(store)
        for call in (first, *behind):
            with pytest.raises(BrokerClosedError):
                await call


async def test_close_waits_for_the_blobs_that_are_being_dropped(broker, store):
    slow = SlowStore(store, "delete")
    asker = Asker(broker, slow)
    await asker.begin("silent", request())
    await store.put("claims/late", b"body")
    await broker.reply(asker._address, [Message(correlation_id="nobody", data_ref="blob:claims/late")])
    await eventually(lambda: slow.begun)
    closing = asyncio.create_task(asker.close())
    await eventually(asker._reader.done)
    slow.gate.set()
    await closing
    assert await nothing_in(store)


async def test_close_does_not_wait_for_ever_for_a_store_that_hangs(broker, store, monkeypatch):
    monkeypatch.setattr("dumbwaiter.asking.asker.LAST_DROPS", 0.02)
    hanging = SlowStore(store, "delete", "get")
    asker = Asker(broker, hanging)
    pending = await asker.begin("silent", request(), confirm=True)
    claimed = Message(correlation_id="r1", data_ref="blob:claims/answer")
    await broker.reply(asker._address, [claimed, Message(correlation_id="nobody", data_ref="blob:claims/late")])
    waiting = asyncio.create_task(pending.wait(None))
    await eventually(lambda: hanging.begun == 2)
    await asker.close()
    with pytest.raises(BrokerClosedError, match="closed while fetching the body of the answer"):
        await waiting


async def test_one_queue_can_be_failed_alone(broker):
    await broker.create_queue("other")
    async with Asker(broker) as asker:
        doomed = [await asker.begin("silent", request(f"r{n}")) for n in range(2)]
        spared = await asker.begin("other", request("spared"))
        assert asker.waiting() == {"silent", "other"}
        assert asker.fail_waiting(BrokerUnavailableError("no worker"), "silent") == 2
        assert asker.fail_waiting(BrokerUnavailableError("no worker"), "silent") == 0
        for pending in doomed:
            with pytest.raises(BrokerUnavailableError, match="no worker"):
                await pending.answer(10)
        assert not spared.done()
        spared.fail(BrokerUnavailableError("this one too"))
        with pytest.raises(BrokerUnavailableError, match="this one too"):
            await spared.wait(10)


async def test_a_blob_that_cannot_be_dropped_is_logged(broker, store, caplog):
    class CannotDelete:
        async def delete(self, key):
            raise BlobError("read-only")

    async with Asker(broker, CannotDelete()) as asker:
        await asker.begin("silent", request())
        await broker.reply(asker._address, [Message(correlation_id="x", data_ref="blob:claims/stuck")])
        await eventually(lambda: "claims/stuck stays behind: read-only" in caplog.text)


async def test_a_request_that_timed_out_may_be_asked_again_under_its_id(broker):
    async with Asker(broker) as asker:
        try:
            await asker.ask("silent", request(), timeout=0.02)
        except PredictionTimeoutError:
            async with serving(broker):
                assert (await asker.ask("echo", request(), timeout=10)).body == b"soup"
        else:
            pytest.fail("there was an answer")
