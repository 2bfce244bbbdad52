"""What the suite does not say: other producers, what others do to our queues, rights, and where something may die.

With the vendor's own client over a real socket, against a double of ours: never against Azure.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import sys
import time
import uuid
from types import SimpleNamespace

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.aio import ServiceBusClient
from servers import Wire

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.findings import worst
from dumbwaiter.brokers.served import BAD_ENVELOPE
from dumbwaiter.brokers.servicebus import desk as desks
from dumbwaiter.brokers.servicebus.api import _abort
from dumbwaiter.brokers.servicebus.names import name_of
from dumbwaiter.errors import (
    BrokerClosedError,
    BrokerUnavailableError,
    InboxGoneError,
    LockLostError,
    MessageTooLargeError,
    QueueNotFoundError,
)
from dumbwaiter.message import Message
from dumbwaiter.policies.lanes import HIGH, NORMAL
from dumbwaiter.testing import eventually
from dumbwaiter.testing.servers.servicebus import KEY, LESSER_KEY, SECRET

pytestmark = pytest.mark.anyio


def url_of(server, *, key=KEY, port=None, secret=SECRET, prefix="dumbwaiter"):
    url = server.url_at(port or server.port, key=key).replace(SECRET, secret)
    return f"{url}&prefix={prefix}"


@pytest.fixture
def prefix():
    return f"p{secrets.token_hex(4)}"


@pytest.fixture
async def broker(server, prefix):
    async with open_broker(url_of(server, prefix=prefix)) as broker:
        await broker.create_queue("q")
        yield broker


@pytest.fixture
async def client(server):
    """Service Bus as others use it."""
    string = f"Endpoint=sb://127.0.0.1:{server.port};SharedAccessKeyName={KEY};SharedAccessKey={SECRET};"
    async with ServiceBusClient.from_connection_string(f"{string}UseDevelopmentEmulator=true;") as client:
        yield client


async def send_raw(client, name, *messages):
    async with client.get_queue_sender(name, keep_alive=0) as sender:
        for message in messages:
            await sender.send_messages(message)


async def take(broker, count=1, queue="q"):
    deliveries = []
    while len(deliveries) < count:
        some = await broker.receive(queue, max_messages=count - len(deliveries), max_wait=5.0)
        assert some, f"only {len(deliveries)} of {count} came"
        deliveries += some
    return deliveries


# --- producers that know nothing of dumbwaiter ---


async def test_a_bare_body_that_somebody_sends_is_a_request(broker, client, prefix):
    bare = ServiceBusMessage(b'{"a": 1}', content_type="application/json", message_id="theirs")
    await send_raw(client, f"{prefix}_q", bare)
    (delivery,) = await take(broker)
    assert delivery.message == Message(id="theirs", body=b'{"a": 1}', content_type="application/json")


async def test_a_structured_event_that_somebody_sends_is_read(broker, client, prefix):
    event = b'{"specversion":"1.0","id":"e1","source":"/s","type":"t","data":"hello","datacontenttype":"text/plain"}'
    await send_raw(client, f"{prefix}_q", ServiceBusMessage(event, content_type="application/cloudevents+json"))
    (delivery,) = await take(broker)
    assert (delivery.message.id, delivery.message.body) == ("e1", b"hello")


async def test_what_is_no_envelope_becomes_a_dead_letter_and_holds_up_nobody(broker, client, prefix):
    bad = ServiceBusMessage(b"bad", application_properties={"cloudEvents:priority": "high"}, message_id="bad")
    await send_raw(client, f"{prefix}_q", bad, ServiceBusMessage(b"good", message_id="good"))
    (delivery,) = await take(broker)
    assert delivery.message.id == "good"

    async def is_dead() -> bool:
        return bool(await broker.dead_letters("q"))

    await eventually(is_dead, within=5.0, what="the dead letter")
    (letter,) = await broker.dead_letters("q")
    assert (letter.reason, letter.message.id, letter.message.body) == (BAD_ENVELOPE, "bad", b"bad")
    assert "priority" in letter.detail


async def test_a_consumer_that_knows_nothing_of_dumbwaiter_reads_what_we_send(broker, client, prefix):
    await broker.send("q", [Message(id="m1", body=b"\xff\x00", content_type="image/png")])
    receiver = client.get_queue_receiver(
        f"{prefix}_q", receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE, keep_alive=0
    )
    async with receiver:
        (message,) = await receiver.receive_messages(1, max_wait_time=5)
    assert (message.message_id, message.content_type, b"".join(message.body)) == ("m1", "image/png", b"\xff\x00")


async def test_a_dead_letter_of_somebody_else_is_shown_with_its_reason(broker, client, prefix):
    await broker.send("q", [Message(id="m1")])
    async with client.get_queue_receiver(f"{prefix}_q", keep_alive=0) as receiver:
        (message,) = await receiver.receive_messages(1, max_wait_time=5)
        await receiver.dead_letter_message(message, reason="theirs", error_description="they said so")
    (letter,) = await broker.dead_letters("q")
    assert (letter.message.id, letter.reason, letter.detail) == ("m1", "theirs", "they said so")
    assert await broker.redrive("q") == 1
    assert (await take(broker))[0].message.id == "m1"


async def test_dead_letters_of_all_lanes_are_paged_counted_and_purged(broker):
    await broker.send("q", [Message(priority=priority) for priority in (5, 5, 0, -5)])
    await broker.dead_letter(await take(broker, 4), reason="over")
    keys = [letter.key for letter in await broker.dead_letters("q")]
    pages, after = [], None
    while page := await broker.dead_letters("q", limit=3, after=after):
        pages += [letter.key for letter in page]
        after = page[-1].key
    assert pages == keys
    assert len(set(keys)) == 4
    assert (await broker.stats("q")).dead == 4
    assert await broker.purge("q", keys[1:3]) == 2
    assert [letter.key for letter in await broker.dead_letters("q")] == [keys[0], keys[3]]


# --- locks ---


@pytest.mark.trial
async def test_a_lock_shorter_than_the_run_is_renewed_three_times_over(server, prefix):
    """The queue locks for 5 s, the shortest that Service Bus has; the holder lives, and renews its own lease."""
    async with (
        open_broker(url_of(server, prefix=prefix), lock_duration=5.0) as holder,
        open_broker(url_of(server, prefix=prefix)) as other,
    ):
        await holder.create_queue("q")
        await holder.send("q", [Message()])
        held = await take(holder)
        until = time.monotonic() + 15.5
        while time.monotonic() < until:
            assert await other.receive("q", max_messages=1, max_wait=1.5) == []
            held = await holder.renew_lock(held)
        await holder.complete(held)
        assert (await other.stats("q")).ready == 0


async def test_the_service_itself_refuses_a_token_that_somebody_else_made_stale(broker, server, prefix):
    """Also where our own lease still stands: another program has handed the message back meanwhile."""
    await broker.send("q", [Message(), Message()])
    stale, kept = await take(broker, 2)
    token = uuid.UUID(stale.lock_token)
    async with open_broker(url_of(server, prefix=prefix)) as other:
        name = name_of(prefix, "q", NORMAL)
        assert await other._entities.desk(name).do([desks.Order("abandoned", token)]) == [True]
        (again,) = await take(other)
        with pytest.raises(LockLostError) as error:
            await broker.complete([stale, kept])
        assert [d.lock_token for d in error.value.deliveries] == [stale.lock_token]
        assert (await broker.stats("q")).ready == 1, "the other one is done, and this one is held"
        await other.complete([again])


async def test_what_is_in_hand_when_a_broker_closes_goes_back_uncounted(broker, server, prefix):
    async with open_broker(url_of(server, prefix=prefix)) as holder:
        await holder.send("q", [Message(), Message(priority=9)])
        await take(holder, 2)
    assert [d.delivery_count for d in await take(broker, 2)] == [1, 1]


async def test_a_receiver_that_left_locks_nothing_that_comes_later(broker, client, prefix):
    assert await broker.receive("q", max_messages=10, max_wait=0.1) == []
    await send_raw(client, f"{prefix}_q", ServiceBusMessage(b"later"))
    async with client.get_queue_receiver(f"{prefix}_q", keep_alive=0) as receiver:
        (message,) = await receiver.receive_messages(1, max_wait_time=5)
        assert message.delivery_count == 0
        await receiver.complete_message(message)


async def test_after_very_many_messages_a_link_is_made_anew(broker, prefix, monkeypatch):
    broker._entities.tap(name_of(prefix, "q", NORMAL))._channel._lasts = 3
    for i in range(8):
        await broker.send("q", [Message(body=bytes([i]))])
        held = await take(broker)
        assert held[0].message.body == bytes([i])
        await broker.complete(held)


# --- delays ---


async def test_handing_back_goes_on_where_one_lane_fails_and_that_one_can_be_settled_still(broker, monkeypatch):
    await broker.send("q", [Message(id="high", priority=7), Message(id="normal")])
    held = {delivery.message.id: delivery for delivery in await take(broker, 2)}
    (lease,) = broker._holding._leases.find([held["high"]])[0]

    async def fails(messages):
        raise BrokerUnavailableError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(lease.held.came.tap, "release", fails)
        with pytest.raises(BrokerUnavailableError):
            await broker.abandon(list(held.values()), counted=False)
    await broker.complete([held["high"]])
    (again,) = await take(broker)
    assert (again.message.id, again.delivery_count) == ("normal", 1)


async def test_an_envelope_that_cannot_be_dead_lettered_now_is_kept_and_costs_no_other(
    broker, client, prefix, monkeypatch
):
    await send_raw(
        client, f"{prefix}_q", ServiceBusMessage(b"bad", application_properties={"cloudEvents:priority": "very"})
    )
    await broker.send("q", [Message(body=b"good")])

    async def fails(*_, **__):
        raise BrokerUnavailableError("busy")

    came = []

    async def good_came():
        with contextlib.suppress(BrokerUnavailableError):  # the other one may come alone
            came.extend(await broker.receive("q", max_messages=2, max_wait=1.0))
        return came

    with monkeypatch.context() as patch:
        patch.setattr(broker._holding, "_bury", fails)
        await eventually(good_came, within=10.0)
        assert [one.message.body for one in came] == [b"good"]
        assert await broker.receive("q", max_messages=2, max_wait=0.5) == []
    await broker.complete(came)


async def test_a_copy_that_was_sent_is_not_sent_again_when_completing_the_original_failed(broker, monkeypatch):
    await broker.send("q", [Message()])
    held = await take(broker)
    do = desks.Desk.do
    failures = iter([True, False])

    async def fail_once(self, orders):
        return [BrokerUnavailableError("cut") for _ in orders] if next(failures, False) else await do(self, orders)

    monkeypatch.setattr(desks.Desk, "do", fail_once)
    with pytest.raises(BrokerUnavailableError):
        await broker.abandon(held, delay=60.0)
    await broker.abandon(held, delay=60.0)
    stats = await broker.stats("q")
    assert (stats.ready, stats.delayed) == (0, 1)


# --- limits ---


async def test_a_batch_larger_than_a_message_may_be_goes_in_several(broker):
    messages = [Message(body=bytes([i]) * 100_000) for i in range(8)]
    await broker.send("q", messages)
    assert {d.message.body for d in await take(broker, 8)} == {message.body for message in messages}


async def test_what_the_service_finds_too_large_is_told_though_more_was_allowed(server, prefix):
    url = f"{url_of(server, prefix=prefix)}&max_message_size=1048576"
    async with open_broker(url) as broker:
        await broker.create_queue("q")
        with pytest.raises(MessageTooLargeError):
            await broker.send("q", [Message(body=bytes(500_000))])
        await broker.send("q", [Message(body=bytes(200_000))])
        assert len(await take(broker)) == 1


# --- rights ---


@pytest.mark.parametrize("key", [KEY, "nobody"])
async def test_a_wrong_key_is_told_at_once_and_never_shown(server, key):
    with pytest.raises(BrokerUnavailableError) as error:
        await open_broker(url_of(server, key=key, secret="wrong-secret")).open()
    assert "refuses" in str(error.value)
    assert "wrong-secret" not in str(error.value)


async def test_who_may_not_manage_works_with_queues_that_are_there(broker, server, prefix):
    await broker.send("q", [Message()])
    async with open_broker(url_of(server, key=LESSER_KEY, prefix=prefix)) as worker:
        await worker.check()
        await worker.create_queue("q")
        assert await worker.has_queue("q")
        assert not await worker.has_queue("other")
        await worker.complete(await take(worker))
        with pytest.raises(BrokerUnavailableError, match="making a queue"):
            await worker.create_queue("other")
        with pytest.raises(BrokerUnavailableError, match="counting"):
            await worker.stats("q")
        findings = await worker.examine()
        assert worst(findings) == "warning"
        assert any("Manage" in finding.remedy for finding in findings)


async def test_without_credentials_the_way_to_give_some_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)
    with pytest.raises(BrokerUnavailableError, match="AZURE_SERVICEBUS_CONNECTION_STRING"):
        await open_broker("servicebus://kitchen.servicebus.windows.net").open()


# --- inboxes ---


async def test_a_reply_to_what_is_no_inbox_of_ours_is_sent_nowhere(broker, prefix):
    for address in (f"{prefix}_q", "orders", "", f"{prefix}.nonsense"):
        with pytest.raises(InboxGoneError):
            await broker.reply(address, [Message()])
    assert (await broker.stats("q")).ready == 0


async def test_an_inbox_that_nobody_reads_is_looked_at_now_and_then_or_it_would_be_deleted_as_idle(broker, monkeypatch):
    """The double deletes none for that; the service counts looks as a use."""
    monkeypatch.setattr("dumbwaiter.brokers.servicebus.inbox.SIGN_EVERY", 0.1)
    inbox = await broker.open_inbox()
    looks, look = [], inbox._tap.look

    async def noted(count):
        looks.append(count)
        return await look(count)

    monkeypatch.setattr(inbox._tap, "look", noted)
    await eventually(lambda: len(looks) > 2)
    await broker.reply(inbox.address, [Message(id="there")])
    assert [reply.id for reply in await inbox.receive(max_messages=1, max_wait=10.0)] == ["there"]


async def test_an_inbox_that_the_service_has_deleted_is_made_again_while_somebody_reads(broker):
    inbox = await broker.open_inbox()
    await broker.reply(inbox.address, [Message()])
    assert len(await inbox.receive(max_messages=1, max_wait=5.0)) == 1
    await broker._api.manage("deleting", lambda client: client.delete_queue(inbox.address))
    reading = asyncio.create_task(inbox.receive(max_messages=1, max_wait=20.0))

    async def is_taken() -> bool:
        try:
            await broker.reply(inbox.address, [Message(id="again")])
        except InboxGoneError:
            return False
        return True

    await eventually(is_taken, within=10.0, what="the inbox to be there again")
    assert [message.id for message in await reading] == ["again"]


async def test_connections_to_many_inboxes_are_not_kept(broker, monkeypatch):
    monkeypatch.setattr("dumbwaiter.brokers.servicebus.entities._INBOXES", 2)
    inboxes = [await broker.open_inbox() for _ in range(4)]
    for inbox in inboxes:
        await broker.reply(inbox.address, [Message(id=inbox.address)])
    assert len(broker._entities._inbox_outlets) == 2
    for inbox in inboxes:
        assert [m.id for m in await inbox.receive(max_messages=1, max_wait=5.0)] == [inbox.address]


# --- when the way there is cut ---


@pytest.fixture
def wire(server):
    wire = Wire(server.port)
    wire.join()
    yield wire
    wire.close()


async def test_every_kind_of_link_is_made_anew_after_the_way_was_cut(broker, server, prefix, wire):
    async with open_broker(url_of(server, port=wire.port, prefix=prefix)) as cut_off:
        inbox = await cut_off.open_inbox()
        for round_ in range(3):
            message = Message(body=bytes([round_]))
            await cut_off.send("q", [message])
            held = await take(cut_off)
            assert held[0].message.id == message.id
            assert len(await cut_off.renew_lock(held)) == 1
            await cut_off.dead_letter(held, reason="cut")
            assert len(await cut_off.dead_letters("q")) == 1
            assert await cut_off.purge("q") == 1
            await cut_off.reply(inbox.address, [message])
            assert [m.id for m in await inbox.receive(max_messages=1, max_wait=5.0)] == [message.id]
            await asyncio.to_thread(wire.cut)
            await asyncio.to_thread(wire.join)


async def test_a_receiver_that_waits_while_the_way_is_cut_is_told(broker, server, prefix, wire):
    async with open_broker(url_of(server, port=wire.port, prefix=prefix)) as cut_off:
        receiving = asyncio.create_task(cut_off.receive("q", max_messages=1, max_wait=30.0))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(wire.cut)
        async with asyncio.timeout(10.0):
            with pytest.raises(BrokerUnavailableError):
                await receiving


async def test_a_settlement_whose_answer_is_lost_is_no_error_when_it_is_tried_again(
    broker, server, prefix, monkeypatch
):
    """Nobody knows whether it was done; if it was, the service says that there is no such lock."""
    await broker.send("q", [Message()])
    held = await take(broker)
    request = desks._request

    async def lose_the_answer(receiver, orders):
        await request(receiver, orders)
        raise ConnectionResetError("cut behind it")

    monkeypatch.setattr(desks, "_request", lose_the_answer)
    with pytest.raises(BrokerUnavailableError):
        await broker.complete(held)
    monkeypatch.setattr(desks, "_request", request)
    await broker.complete(held)
    assert (await broker.stats("q")).ready == 0


async def test_closing_while_the_way_is_cut_ends_soon(broker, server, prefix, wire):
    cut_off = open_broker(url_of(server, port=wire.port, prefix=prefix))
    await cut_off.open()
    await cut_off.send("q", [Message()])
    await take(cut_off)
    await cut_off.open_inbox()
    receiving = asyncio.create_task(cut_off.receive("q", max_messages=1, max_wait=30.0))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(wire.cut)
    async with asyncio.timeout(20.0):
        await cut_off.close()
    with pytest.raises((BrokerClosedError, BrokerUnavailableError)):
        await receiving


async def test_a_queue_that_somebody_deletes_is_named_to_whoever_waits_there(broker, prefix):
    receiving = asyncio.create_task(broker.receive("q", max_messages=1, max_wait=30.0))
    await asyncio.sleep(0.5)
    await broker._api.manage("deleting", lambda client: client.delete_queue(name_of(prefix, "q", HIGH)))
    async with asyncio.timeout(10.0):
        with pytest.raises(QueueNotFoundError, match="'q'"):
            await receiving


# --- examine ---


async def test_queues_that_we_make_need_no_remedy(broker):
    findings = await broker.examine(longest_run=3600.0)
    assert worst(findings) in ("ok", "note")
    assert any(finding.subject == "tier" for finding in findings)
    assert any("renewed" in finding.text for finding in findings)


async def test_what_is_set_badly_is_found_with_the_command_that_mends_it(broker, prefix):
    name = name_of(prefix, "bad", NORMAL)

    async def make(client):
        await client.create_queue(
            name,
            max_delivery_count=3,
            default_message_time_to_live="PT1H",
            requires_session=True,
            auto_delete_on_idle="PT10M",
            lock_duration="PT5S",
            requires_duplicate_detection=True,
            forward_dead_lettered_messages_to="elsewhere",
        )

    await broker._api.manage("making", make)
    findings = [finding for finding in await broker.examine() if finding.subject == name]
    assert worst(findings) == "danger"
    said = " ".join(finding.text for finding in findings)
    for fact in ("sessions", "throws them away", "3 deliveries", "is deleted when", "drops a second", "elsewhere"):
        assert fact in said
    assert all(name in finding.remedy for finding in findings if finding.level in ("warning", "danger"))


async def test_what_is_to_be_said_of_several_queues_is_said_once(broker, prefix):
    names = [name_of(prefix, queue, lane) for queue in ("one", "two") for lane in (HIGH, NORMAL)]

    async def make(client):
        for name in names:
            await client.create_queue(name, auto_delete_on_idle="PT10M", max_delivery_count=2000)

    await broker._api.manage("making", make)
    said = [finding for finding in await broker.examine() if "is deleted when nobody uses it" in finding.text]
    assert len(said) == 1
    assert all(name in said[0].text for name in names)
    assert said[0].remedy.endswith(", and the same for the others")


async def test_the_log_of_a_worker_is_not_buried_by_the_client(broker):
    assert not logging.getLogger("azure.servicebus._pyamqp.aio._link_async").isEnabledFor(logging.INFO)


async def test_a_management_port_that_does_not_answer_is_named(server):
    url = re.sub("management_port=[0-9]+", "management_port=1", url_of(server))
    with pytest.raises(BrokerUnavailableError, match=r"at 127\.0\.0\.1:1 \(its management_port\)"):
        async with open_broker(url) as broker:
            await broker.examine()


def test_a_connection_whose_loop_has_ended_is_no_fault():
    """Whoever ends without close() leaves its handlers to the collector."""

    class Gone:
        def abort(self):
            raise RuntimeError("Event loop is closed")

    _abort(SimpleNamespace(_transport=SimpleNamespace(writer=SimpleNamespace(transport=Gone()))))


async def test_names_of_queues_are_listed_as_they_were_given(broker):
    for queue in ("Upper", "A", "dots.and-_end-", "x" * 80, "Y" * 80):
        await broker.create_queue(queue)
        await broker.create_queue(queue)
    assert await broker.queues() == sorted(["q", "Upper", "A", "dots.and-_end-", "x" * 80, "Y" * 80])
    await broker.send("A", [Message(id="a")])
    assert (await take(broker, queue="A"))[0].message.id == "a"


async def test_a_missing_queue_is_named_also_where_the_client_only_says_that_the_link_is_closed(broker, monkeypatch):
    outlet = broker._entities.outlet("no-such-entity")

    async def fail(doing, work, *, within=None):
        raise BrokerUnavailableError("amqp:unknown-error")

    monkeypatch.setattr(outlet._channel, "use", fail)
    with pytest.raises(QueueNotFoundError, match="nowhere"):
        await broker._entities.send("nowhere", "no-such-entity", [ServiceBusMessage(b"x")])
