"""What the suite does not say of Kafka, on Tansu."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time

import msgspec
import pytest
from confluent_kafka import Producer

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.kafka import reader, replica
from dumbwaiter.brokers.kafka.events import Postpone, Seen, encode
from dumbwaiter.brokers.kafka.wire import record_nbytes
from dumbwaiter.errors import BrokerError, BrokerUnavailableError, InboxGoneError, LockLostError, MessageTooLargeError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from dumbwaiter.testing.servers import TansuServer

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def broker_at(url, lock_duration=30.0):
    async with open_broker(url, lock_duration=lock_duration) as broker:
        yield broker


def produce(tansu, topic, value, headers=()):
    """As any producer does that knows nothing of dumbwaiter."""
    producer = Producer({"bootstrap.servers": f"127.0.0.1:{tansu.server.port}"})
    producer.produce(topic, value, headers=list(headers))
    assert producer.flush(10) == 0


async def test_a_value_that_somebody_else_produced_is_a_request(tansu):
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("foreign.1")
        waiting = asyncio.create_task(broker.receive("foreign.1", max_messages=1, max_wait=10.0))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(produce, tansu, "dumbwaiter.foreign_2e1", b"\xff body")
        (delivery,) = await waiting
        assert delivery.message.body == b"\xff body"
        assert delivery.message.id == "dumbwaiter.foreign_2e1.0.0"


async def test_headers_of_other_producers_are_cloudevents_attributes(tansu):
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("attributes")
        headers = [("id", b"42"), ("ce_tenant", b"acme"), ("content-type", b"image/png"), ("x-trace", b"1")]
        await asyncio.to_thread(produce, tansu, "dumbwaiter.attributes", b"", headers)
        (delivery,) = await broker.receive("attributes", max_messages=1, max_wait=10.0)
        message = delivery.message
        assert (message.id, message.tenant, message.content_type) == ("42", "acme", "image/png")


async def test_what_no_envelope_can_be_read_of_becomes_a_dead_letter(tansu):
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("bad")
        await asyncio.to_thread(produce, tansu, "dumbwaiter.bad", b"body", [("ce_priority", b"high")])
        await asyncio.to_thread(produce, tansu, "dumbwaiter.bad", b"body", [("ce_tenant", b"\xff")])
        await broker.send("bad", [Message(id="good")])

        async def good():
            return await broker.receive("bad", max_messages=10, max_wait=1.0)

        (delivery,) = await eventually(good, within=10.0)
        assert delivery.message.id == "good"
        letters = await broker.dead_letters("bad")
        assert [(letter.reason, letter.message.body) for letter in letters] == [("bad-envelope", b"body")] * 2


async def test_what_can_be_neither_read_nor_buried_costs_no_other_message(tansu, monkeypatch):
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("unburied")
        write, tried = broker._link.write, []

        async def write_no_grave(records):
            if records[0].topic.endswith(".dead"):
                tried.append(records)
                raise MessageTooLargeError(2, 1)
            return await write(records)

        monkeypatch.setattr(broker._link, "write", write_no_grave)
        await asyncio.to_thread(produce, tansu, "dumbwaiter.unburied", b"body", [("ce_priority", b"high")])
        await broker.send("unburied", [Message(id=id_) for id_ in ("one", "two")])
        came = []
        while len(came) < 2:
            some = await broker.receive("unburied", max_messages=1, max_wait=5.0)
            came += [one.message.id for one in some]
            await broker.complete(some)
        assert came == ["one", "two"]
        assert (await broker.stats("unburied")).locked == 1
        assert len(tried) < 10


async def test_a_message_of_the_largest_size_is_buried_without_the_note(tansu, monkeypatch):
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("brim")
        await asyncio.to_thread(produce, tansu, "dumbwaiter.brim", b"1", [("id", b"1"), ("ce_priority", b"high")])
        await asyncio.to_thread(produce, tansu, "dumbwaiter.brim", b"2", [("id", b"2")])
        write = broker._link.write

        async def write_little(records):
            if (largest := max(map(record_nbytes, records))) > 130:
                raise MessageTooLargeError(largest, 130)
            return await write(records)

        monkeypatch.setattr(broker._link, "write", write_little)

        async def good():
            return await broker.receive("brim", max_messages=1, max_wait=1.0)

        await broker.dead_letter(await eventually(good, within=10.0), reason="poison", detail="long" * 100)
        letters = await broker.dead_letters("brim")
        assert {letter.message.body for letter in letters} == {b"1", b"2"}


async def test_garbage_in_a_ledger_is_passed_over(tansu):
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("garbage")
        await asyncio.to_thread(produce, tansu, "dumbwaiter.garbage.ledger", b"garbage")
        await broker.send("garbage", [Message(id="kept")])
        (delivery,) = await broker.receive("garbage", max_messages=1, max_wait=10.0)
        assert delivery.message.id == "kept"
        await broker.complete([delivery])


@pytest.mark.parametrize(
    "event",
    [Postpone([(7, 0, 0)], 0), Seen([(1, 0, 10**9, 0)]), Seen([(1, -1, 0, 1)])],
    ids=["lane", "low", "partition"],
)
async def test_an_event_that_says_what_cannot_be_costs_no_message(tansu, event):
    queue = f"junk-{secrets.token_hex(4)}"
    async with broker_at(tansu.url()) as broker, broker_at(tansu.url()) as other:
        await broker.create_queue(queue)
        await broker.send(queue, [Message(id="before")])
        await broker.complete(await broker.receive(queue, max_messages=1, max_wait=10.0))
        await asyncio.to_thread(produce, tansu, f"dumbwaiter.{queue}.ledger", encode(event))
        for broker_ in (broker, other):
            await broker_.send(queue, [Message(id="after")])
            (delivery,) = await broker_.receive(queue, max_messages=1, max_wait=10.0)
            assert delivery.message.id == "after"
            await broker_.complete([delivery])


async def test_a_queue_that_was_made_anew_has_tokens_of_its_own(tansu):
    """Events stand at the same offsets then; so here, where a second queue is made as the first one was."""
    async with broker_at(tansu.url()) as holder:
        for queue in ("first", "anew"):
            await holder.create_queue(queue)
            await holder.send(queue, [Message()])
        (old,) = await holder.receive("first", max_messages=1, max_wait=10.0)
        (new,) = await holder.receive("anew", max_messages=1, max_wait=10.0)
        with pytest.raises(LockLostError):
            await holder.complete([msgspec.structs.replace(old, queue="anew")])
        await holder.complete([new])


async def test_what_is_held_is_held_on_when_the_ledger_is_read_anew(tansu):
    async with broker_at(tansu.url()) as holder, broker_at(tansu.url()) as other:
        await holder.create_queue("reread")
        await holder.send("reread", [Message()])
        (held,) = await holder.receive("reread", max_messages=1, max_wait=10.0)
        holder._drop("reread", BrokerUnavailableError("a fault"))
        assert (await holder.stats("reread")).locked == 1
        assert await other.receive("reread", max_messages=1, max_wait=0.5) == []
        await holder.complete([held])


async def test_queues_of_several_partitions_are_served_whole(tansu):
    async with broker_at(tansu.url(partitions=4, prefix="parted")) as broker:
        assert not broker.capabilities.ordered
        await broker.create_queue("parted")
        messages = [Message() for _ in range(200)]
        for start in range(0, 200, 10):
            await broker.send("parted", messages[start : start + 10])
        came = set()
        while len(came) < 200:
            some = await broker.receive("parted", max_messages=50, max_wait=5.0)
            assert some
            came |= {delivery.message.id for delivery in some}
            await broker.complete(some)
        assert came == {message.id for message in messages}


async def test_a_lock_is_held_for_three_times_its_length_by_renewing(tansu):
    async with broker_at(tansu.url(), lock_duration=1.0) as holder, broker_at(tansu.url()) as other:
        await holder.create_queue("long")
        await holder.send("long", [Message()])
        held = await holder.receive("long", max_messages=1, max_wait=5.0)
        competing = asyncio.create_task(other.receive("long", max_messages=1, max_wait=3.0))
        while not competing.done():
            held = await holder.renew_lock(held)
            await asyncio.sleep(0.1)
        assert await competing == []
        await holder.complete(held)


async def test_many_events_make_a_snapshot_and_whoever_comes_later_knows_all(tansu, monkeypatch):
    monkeypatch.setattr(replica, "SNAPSHOT_EVERY", 20)
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("snapshots")
        await broker.send("snapshots", [Message(body=b"%d" % i) for i in range(40)])
        for _ in range(30):
            await broker.complete(await broker.receive("snapshots", max_messages=1, max_wait=5.0))
        async with broker_at(tansu.url()) as other:
            assert (await other.stats("snapshots")).ready == 10


async def test_an_address_that_is_no_inbox_is_refused(tansu):
    async with broker_at(tansu.url()) as broker:
        for address in ("dumbwaiter.resnet", "x", "dumbwaiter..inbox.99.00000000000000000000000000000000"):
            with pytest.raises(InboxGoneError):
                await broker.reply(address, [Message()])


async def test_a_server_that_is_not_there_is_named_without_secrets():
    broker = open_broker("kafka://user:secret@127.0.0.1:1")
    with pytest.raises(BrokerUnavailableError) as caught:
        await broker.open()
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_an_examination_says_whose_time_the_ledger_has(tansu):
    async with broker_at(tansu.url(prefix="stamped")) as broker:
        await broker.create_queue("stamped")
        assert not [one for one in await broker.examine() if "clocks" in one.text]
        await broker.send("stamped", [Message()])
        await broker.receive("stamped", max_messages=1, max_wait=10.0)
        (finding,) = [one for one in await broker.examine() if "clocks" in one.text]
        assert (finding.level, finding.subject) == ("warning", "stamped.stamped.ledger")


async def test_an_examination_says_what_one_broker_means(tansu):
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("examined")
        findings = {finding.subject: finding for finding in await broker.examine()}
        assert findings["durability"].level == "warning"
        assert "replicas=3" in findings["durability"].remedy
        assert findings["settings"].level == "note"  # Tansu tells only what a topic was made with


async def test_a_server_that_lost_all_is_used_again_without_an_operator(tmp_path):
    """Tansu keeps nothing by kill -9: what was sent is gone, and what is sent afterwards is served."""
    server = TansuServer(tmp_path)
    server.start()
    try:
        async with broker_at(server.url) as broker:
            await broker.create_queue("again")
            await broker.send("again", [Message() for _ in range(30)])
            await broker.receive("again", max_messages=20, max_wait=5.0)
            server.stop()
            await eventually(lambda: _is_down(broker), within=10.0)
            server.start()

            async def goes_round():
                try:
                    await broker.create_queue("again")
                    await broker.send("again", [Message(id="new")])
                    some = await broker.receive("again", max_messages=1, max_wait=2.0)
                    await broker.complete(some)
                except BrokerError:
                    return False
                return [delivery.message.id for delivery in some] == ["new"]

            await eventually(goes_round, within=20.0, every=0.1)
    finally:
        server.stop()


async def _is_down(broker):
    try:
        await broker.check()
    except BrokerUnavailableError:
        return True
    return False


async def test_the_age_of_the_oldest_message_is_that_of_the_one_that_waits(tansu):
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("old")
        await broker.send("old", [Message(), Message()])
        first = time.monotonic()
        await broker.complete(await broker.receive("old", max_messages=1, max_wait=5.0))
        age = (await broker.stats("old")).oldest_age
        assert age is not None
        assert 0.0 <= age <= time.monotonic() - first + 5.0


# --- clocks ---


@pytest.mark.parametrize("step", [30.0, 3600.0, -3600.0])
async def test_a_clock_of_ours_that_is_set_ends_no_lock_of_others_and_keeps_nobody_waiting(tansu, monkeypatch, step):
    queue = f"step-{secrets.token_hex(4)}"
    async with broker_at(tansu.url(), 6.0) as holder, broker_at(tansu.url(), 6.0) as other:
        await holder.create_queue(queue)
        await holder.send(queue, [Message()])
        held = await holder.receive(queue, max_messages=1, max_wait=10.0)
        assert await other.receive(queue, max_messages=1, max_wait=0.0) == []
        ledger = (await other._queue(queue)).replica
        time_ns = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: time_ns() + int(step * 1e9))
        before = ledger._next
        async with asyncio.timeout(10.0):
            assert await other.receive(queue, max_messages=1, max_wait=0.5) == []
        for broker in (other, holder):
            stats = await broker.stats(queue)
            assert (stats.ready, stats.locked) == (0, 1)
        assert ledger._next - before < 10
        await holder.complete(held)


async def test_patience_ends_though_others_are_faster_each_time(tansu, monkeypatch):
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("faster")
        ledger = (await broker._queue("faster")).replica
        monkeypatch.setattr(type(ledger.ledger), "has_ready", lambda *_: True)
        async with asyncio.timeout(10.0):
            assert await broker.receive("faster", max_messages=1, max_wait=0.1) == []
            assert await broker.receive("faster", max_messages=1, max_wait=0.0) == []


async def test_whoever_has_no_patience_gets_what_others_produced_also_when_a_take_was_in_vain(tansu, monkeypatch):
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("unseen")
        ledger = (await broker._queue("unseen")).replica
        await asyncio.to_thread(produce, tansu, "dumbwaiter.unseen", b"unseen")
        monkeypatch.setattr(type(ledger.ledger), "has_ready", lambda *_: True)
        (delivery,) = await broker.receive("unseen", max_messages=1, max_wait=0.0)
        assert delivery.message.body == b"unseen"


async def test_a_clock_of_ours_that_was_wrong_already_when_we_came_costs_one_take(tansu, monkeypatch):
    async with broker_at(tansu.url()) as holder, broker_at(tansu.url()) as late:
        await holder.create_queue("wrong")
        await holder.send("wrong", [Message()])
        held = await holder.receive("wrong", max_messages=1, max_wait=10.0)
        ledger = (await holder._queue("wrong")).replica
        before = ledger._next
        time_ns = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: time_ns() + 3600 * 10**9)
        for _ in range(3):
            assert await late.receive("wrong", max_messages=1, max_wait=0.3) == []
        stats = await late.stats("wrong")
        assert (stats.ready, stats.locked) == (0, 1)
        await holder.complete(held)
        assert ledger._next - before == 2


async def test_whoever_comes_to_a_queue_where_nothing_happened_for_long_knows_what_is_due(tansu):
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("due")
        await broker.send("due", [Message()], delay=1.0)
    await asyncio.sleep(1.1)  # until it is due
    async with broker_at(tansu.url()) as late:
        assert (await late.stats("due")).ready == 1
        assert len(await late.receive("due", max_messages=1, max_wait=0.0)) == 1


async def test_closing_while_a_read_runs_leaves_no_error_in_the_loop(tansu, monkeypatch):
    monkeypatch.setattr(reader, "_IDLE", 0.3)
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with broker_at(tansu.url()) as broker:
        await broker.create_queue("closing")
        await broker.send("closing", [Message()])
        reading = asyncio.create_task(broker._reader.read([("dumbwaiter.closing", 0, 0)]))
        await asyncio.sleep(0)
        assert broker._reader._running is not None
    await reading
    await asyncio.sleep(2 * reader._IDLE)  # timers go off in their order
    assert errors == []
