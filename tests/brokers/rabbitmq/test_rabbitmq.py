"""What the suite does not say: other producers, servers that are set up badly, and what RabbitMQ does by itself."""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import aio_pika
import pytest
from servers import RabbitmqServer

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.cards import ModelCard, save_card
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.findings import worst
from dumbwaiter.brokers.rabbitmq import publishing
from dumbwaiter.brokers.rabbitmq.publishing import Copy
from dumbwaiter.brokers.rabbitmq.wire import properties_of
from dumbwaiter.cli import main
from dumbwaiter.errors import BrokerUnavailableError, ConfigError, InboxGoneError, LockLostError, QueueNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def broker(server):
    async with open_broker(f"{server.url}?prefix=t{secrets.token_hex(6)}") as broker:
        await broker.create_queue("resnet")
        yield broker


@pytest.fixture
async def channel(server):
    connection = await aio_pika.connect(server.url)
    async with connection:
        yield await connection.channel()


def physical(broker, suffix=""):
    return f"{broker._prefix}.resnet{suffix}"


async def publish(channel, broker, body=b"", **properties):
    await channel.default_exchange.publish(aio_pika.Message(body, **properties), routing_key=physical(broker))


async def take(broker, count=1):
    taken = []
    async with asyncio.timeout(15):
        while len(taken) < count:
            taken += await broker.receive("resnet", max_messages=count - len(taken), max_wait=5.0)
    return taken


# --- producers of other kinds ---


async def test_a_bare_body_of_any_producer_is_a_request(broker, channel):
    await publish(channel, broker, b"\xff\xd8 image")
    (delivery,) = await take(broker)
    assert delivery.message.body == b"\xff\xd8 image"
    assert (delivery.message.priority, delivery.message.reply_to, delivery.delivery_count) == (0, None, 1)


async def test_a_cloudevent_of_another_producer_is_read_with_its_properties(broker, channel):
    headers = {"cloudEvents:type": "com.example", "tenant": "acme", "deadline": 1_900_000_000}
    await publish(channel, broker, b"{}", headers=headers, message_id="m-1", content_type="application/json")
    (delivery,) = await take(broker)
    assert delivery.message == Message(
        body=b"{}", id="m-1", content_type="application/json", type="com.example", tenant="acme", deadline=1.9e9
    )


async def test_a_structured_cloudevent_is_read(broker, channel):
    body = b'{"specversion":"1.0","id":"inner","type":"t","source":"/s","data":{"a":1}}'
    await publish(channel, broker, body, content_type="application/cloudevents+json")
    assert (await take(broker))[0].message.id == "inner"


async def test_an_answer_reaches_a_producer_that_knows_nothing_of_dumbwaiter(broker, channel):
    callback = await channel.declare_queue(exclusive=True)
    await publish(channel, broker, b"?", reply_to=callback.name, correlation_id="c", message_id="m")
    (delivery,) = await take(broker)
    await broker.reply(delivery.message.reply_to, [Message(body=b"!", correlation_id=delivery.message.id)])
    answer = await callback.get(timeout=5)
    assert (answer.body, answer.correlation_id) == (b"!", "m")


@pytest.mark.parametrize("headers", [{"deadline": "tomorrow"}, {"priority": "high"}, {"note": {"a": [1]}}])
async def test_an_envelope_that_cannot_be_read_becomes_a_dead_letter_with_all_that_was_sent(broker, channel, headers):
    await publish(channel, broker, b"body", headers=headers, message_id="bad")
    await publish(channel, broker, b"good")
    assert [one.message.body for one in await take(broker)] == [b"good"]
    (letter,) = await broker.dead_letters("resnet")
    assert (letter.reason, letter.message.id, letter.message.body) == ("bad-envelope", "bad", b"body")
    assert next(iter(headers)) in letter.message.extensions["headers"]


async def test_what_somebody_else_puts_among_the_dead_letters_is_left_alone(broker, channel):
    await channel.default_exchange.publish(aio_pika.Message(b"?"), routing_key=physical(broker, "/dead"))
    assert await broker.dead_letters("resnet") == []
    assert await broker.purge("resnet") == 0
    assert await broker.redrive("resnet") == 0
    await eventually(lambda: has_dead(broker, 1))


async def has_dead(broker, count):
    return (await broker.stats("resnet")).dead == count


# --- many, and at the same time ---


async def test_hundreds_of_dead_letters_are_read_page_by_page_and_redriven(broker):
    messages = [Message(body=bytes(10)) for _ in range(250)]
    await broker.send("resnet", messages)
    await broker.dead_letter(await take(broker, 250), reason="all")
    pages, after = [], None
    while letters := await broker.dead_letters("resnet", limit=120, after=after):
        pages.append(len(letters))
        after = letters[-1].key
    assert pages == [120, 120, 10]
    assert await broker.redrive("resnet") == 250
    assert {one.message.id for one in await take(broker, 250)} == {message.id for message in messages}


async def test_two_who_look_at_the_dead_letters_both_see_all(server, broker):
    await broker.send("resnet", [Message() for _ in range(20)])
    await broker.dead_letter(await take(broker, 20), reason="all")
    async with open_broker(f"{server.url}?prefix={broker._prefix}") as other:
        looks = [one.dead_letters("resnet") for one in (broker, broker, broker)]
        assert [len(letters) for letters in await asyncio.gather(*looks)] == [20, 20, 20]
        assert len(await other.dead_letters("resnet")) == 20


async def test_delays_that_another_broker_object_began_are_counted_and_kept(server, broker):
    async with open_broker(f"{server.url}?prefix={broker._prefix}") as other:
        assert (await other.stats("resnet")).delayed == 0
        await broker.send("resnet", [Message(), Message(priority=5)], delay=60.0)
        await other.send("resnet", [Message()], delay=61.0)
        await other.send("resnet", [Message()], delay=600.0)
        for one in (broker, other):
            await eventually(lambda one=one: has_delayed(one, 4))


async def has_delayed(broker, count):
    return (await broker.stats("resnet")).delayed == count


async def test_a_queue_of_delays_that_the_server_has_deleted_is_forgotten_and_made_again(broker, channel):
    await broker.send("resnet", [Message()], delay=60.0)
    await eventually(lambda: has_delayed(broker, 1))
    (name,) = broker._of("resnet").delays._known
    await channel.queue_delete(name)
    await eventually(lambda: has_delayed(broker, 0))
    with pytest.raises(QueueNotFoundError):
        await broker.send("resnet", [Message()], delay=60.0)
    await broker.send("resnet", [Message()], delay=60.0)
    await eventually(lambda: has_delayed(broker, 1))


async def test_a_message_that_comes_when_its_receiver_has_just_left_goes_to_others_uncounted(
    server, broker, monkeypatch
):
    monkeypatch.setattr("dumbwaiter.brokers.rabbitmq.tap.LINGER", 1.0)  # so that it surely comes within it
    async with open_broker(f"{server.url}?prefix={broker._prefix}") as other:
        assert await other.receive("resnet", max_messages=5, max_wait=0.05) == []
        await broker.send("resnet", [Message(priority=priority) for priority in (-1, 0, 1)])
        deliveries = await take(broker, 3)
        assert [one.delivery_count for one in deliveries] == [1, 1, 1]


async def test_a_holder_that_is_busy_takes_nothing_in_advance(server, broker):
    async with open_broker(f"{server.url}?prefix={broker._prefix}") as other:
        for count in (1, 3):
            receiving = asyncio.create_task(other.receive("resnet", max_messages=10, max_wait=10.0))
            await broker.send("resnet", [Message() for _ in range(count)])
            held = await receiving
            await eventually(lambda: not other._of("resnet").tap._bells)
            await broker.send("resnet", [Message(priority=priority) for priority in (0, 1, -1, 0)])
            there = 4 + count - len(held)
            assert [one.delivery_count for one in await take(broker, there)] == [1] * there
            await other.complete(held)
            assert await broker.receive("resnet", max_messages=10, max_wait=0.1) == []


async def test_messages_settled_in_any_order_are_settled_once(broker):
    """Several at a time in one frame, where that cannot take in one that stands open."""
    await broker.send("resnet", [Message(body=bytes([i])) for i in range(10)])
    held = sorted(await take(broker, 10), key=lambda one: one.message.body)
    await broker.complete(held[:3] + held[5:6])
    await broker.abandon(held[3:4])
    await broker.complete(held[6:])
    assert (await take(broker))[0].message.body == b"\x03"
    await broker.complete(held[4:5])
    assert await broker.receive("resnet", max_messages=10, max_wait=0.2) == []


# --- servers and accounts that are not as they should be ---


async def test_a_wrong_password_is_named_and_not_shown(server):
    with pytest.raises(BrokerUnavailableError, match="user or password") as caught:
        await open_broker(server.url.replace("guest:guest", "guest:wr0ng")).open()
    assert "wr0ng" not in str(caught.value)


async def test_an_unknown_virtual_host_is_named(server):
    with pytest.raises(BrokerUnavailableError, match="virtual host"):
        await open_broker(f"{server.url}/nowhere").open()


async def test_nobody_there_is_said_at_once():
    with pytest.raises(BrokerUnavailableError, match="start it"):
        await open_broker("amqp://127.0.0.1:1").open()


async def test_a_reply_to_an_address_that_cannot_be_one_says_so(broker):
    for address in ("nobody", "x" * 1000):
        with pytest.raises(InboxGoneError):
            await broker.reply(address, [Message()])


async def test_a_classic_queue_of_that_name_is_refused_and_a_danger(broker, channel):
    await channel.declare_queue(physical(broker).replace("resnet", "classic"), durable=True)
    with pytest.raises(ConfigError, match="delete it when it is empty"):
        await broker.create_queue("classic")
    await broker.create_queue("resnet")  # what was refused has closed a channel, and no more
    broker._of("classic")
    (finding,) = [one for one in await broker.examine() if one.subject == "durability"]
    assert finding.level == "danger"
    assert "delete_queue" in finding.remedy


async def test_a_broker_object_that_was_just_made_looks_at_the_queues_that_it_is_asked_for(broker, channel):
    await channel.declare_queue(physical(broker).replace("resnet", "classic"), durable=True)
    async with open_broker(broker.url) as doctor:

        async def durability():
            (finding,) = [one for one in await doctor.examine() if one.subject == "durability"]
            return finding.level, finding.text

        level, text = await durability()
        assert (level, "no queue was looked at" in text) == ("note", True)
        assert await doctor.has_queue("resnet")
        level, text = await durability()
        assert (level, "(3 were looked at)" in text) == ("ok", True)
        assert await doctor.has_queue("classic")
        assert (await durability())[0] == "danger"


async def test_doctor_looks_at_the_queues_of_the_cards_and_at_those_that_are_named(
    broker, channel, tmp_path, capsys, monkeypatch
):
    await channel.declare_queue(physical(broker).replace("resnet", "classic"), durable=True)
    monkeypatch.setenv("DUMBWAITER_BLOBS", f"file:{tmp_path}/blobs")

    async def doctor(*options):
        code = await asyncio.to_thread(main, ["doctor", broker.url, *options])
        return code, capsys.readouterr().out

    code, said = await doctor()
    assert (code, "no queue was looked at" in said) == (0, True)
    code, said = await doctor("--queue", "resnet", "--queue", "nowhere")
    assert (code, "(3 were looked at)" in said, "queue nowhere: is not there" in said) == (0, True, True)
    assert (await doctor("--queue", "classic"))[0] == 1
    await save_card(open_store(f"file:{tmp_path}/blobs"), ModelCard(name="classic"))
    assert (await doctor())[0] == 1


async def test_a_well_configured_server_is_no_danger(broker):
    findings = await broker.examine(longest_run=10.0)
    assert worst(findings) == "note"
    assert any(one.subject == "version" and "RabbitMQ" in one.text for one in findings)


async def test_a_run_that_may_outlast_the_servers_patience_is_a_warning_with_the_line_to_set(broker):
    (finding,) = [one for one in await broker.examine(longest_run=3000.0) if one.subject == "consumer_timeout"]
    assert finding.level == "warning"
    assert "consumer_timeout = 12000000" in finding.remedy


# --- a queue that takes nothing for a moment ---


async def test_sends_to_queues_that_another_makes_at_that_moment_are_taken(server):
    """A quorum queue that has no leader yet refuses what is published to it."""
    url = f"{server.url}?prefix=t{secrets.token_hex(6)}"

    async def send_as_soon_as_it_is_there(queue):
        making = asyncio.create_task(maker.create_queue(queue))
        await eventually(lambda: sender.has_queue(queue), within=30.0, every=0.0)
        await sender.send(queue, [Message(), Message(priority=5), Message(priority=-5)])
        await making

    async with open_broker(url) as maker, open_broker(url) as sender:
        queues = [f"fresh-{number}" for number in range(16)]
        for some in (queues[:8], queues[8:]):
            await asyncio.gather(*map(send_as_soon_as_it_is_there, some))
        for queue in queues:
            assert (await sender.stats(queue)).ready == 3


@contextlib.asynccontextmanager
async def full(server, broker):
    """The broker's queue has some messages, and refuses (basic.nack) any more."""
    name, pattern = secrets.token_hex(4), rf"^{broker._prefix}\."
    limit = '{"max-length":1,"overflow":"reject-publish"}'
    await asyncio.to_thread(server.control, "set_policy", name, pattern, limit, "--apply-to", "queues")
    publish = broker._publisher._publish
    async with asyncio.timeout(20):
        while not await publish(
            await broker._sending.shared("publishes"), [Copy(physical(broker), b"", properties_of(Message()))]
        ):
            pass
    yield
    await asyncio.to_thread(server.control, "clear_policy", name)


async def test_a_message_that_is_refused_for_a_moment_is_published_again_and_comes_once(server, broker, monkeypatch):
    monkeypatch.setattr(publishing, "NOT_READY_PAUSES", (0.05,) * 400)
    publish, was_refused = broker._publisher._publish, asyncio.Event()

    async def publish_and_note(channel, copies):
        refused = await publish(channel, copies)
        if refused:
            was_refused.set()
        return refused

    async with full(server, broker):
        monkeypatch.setattr(broker._publisher, "_publish", publish_and_note)
        late = [Message(), Message(priority=5)]
        sending = asyncio.create_task(broker.send("resnet", late))
        await asyncio.wait_for(was_refused.wait(), 10)
        came = []
        async with asyncio.timeout(20):
            while not {message.id for message in late} <= {delivery.message.id for delivery in came}:
                some = await broker.receive("resnet", max_messages=10, max_wait=1.0)
                await broker.complete(some)
                came += some
        await sending
    ids = [delivery.message.id for delivery in came]
    assert [ids.count(message.id) for message in late] == [1, 1]
    assert (await broker.stats("resnet")).ready == 0


async def test_a_queue_that_goes_on_refusing_is_named(server, broker, monkeypatch):
    monkeypatch.setattr(publishing, "NOT_READY_PAUSES", (0.01, 0.01))
    async with full(server, broker):
        for messages in ([Message()], [Message(), Message()]):
            with pytest.raises(BrokerUnavailableError, match=rf"queue '{physical(broker)}' .* takes no messages"):
                await broker.send("resnet", messages)


async def test_a_message_that_the_server_is_set_to_refuse_raises_and_the_next_one_is_sent(server, broker):
    """A max_message_size below the adapter's: the refusal closes a channel."""
    async with set_to(server, max_message_size=(100, 134_217_728)), open_broker(server.url) as small:
        small._prefix = broker._prefix
        with pytest.raises(BrokerUnavailableError, match="max size 100"):
            await small.send("resnet", [Message(body=bytes(101)), Message()])
        message = Message()
        await small.send("resnet", [message])
        assert message.id in {delivery.message.id for delivery in await broker.receive("resnet", **a_few)}


async def test_what_is_held_beyond_the_servers_patience_is_lost_and_comes_again(server, broker):
    """However often it is renewed: RabbitMQ closes the channel."""
    settings = set_to(server, consumer_timeout=(300, 1_800_000), channel_tick_interval=(100, 60_000))
    async with settings, open_broker(f"{server.url}?prefix={broker._prefix}") as holder:
        await holder.send("resnet", [Message()])
        held = await holder.receive("resnet", **a_few)
        await eventually(lambda: loses(holder, held), within=20.0)
        assert [one.delivery_count for one in await take(broker)] == [2]


a_few = {"max_messages": 10, "max_wait": 5.0}


async def loses(holder, held):
    try:
        await holder.renew_lock(held)
    except LockLostError:
        return True
    return False


@contextlib.asynccontextmanager
async def set_to(server, **settings):
    """Settings of the server, (now, afterwards) each, for channels that are opened meanwhile."""
    now, afterwards = (
        ", ".join(f"application:set_env(rabbit, {name}, {values[place]})" for name, values in settings.items())
        for place in (0, 1)
    )
    await asyncio.to_thread(server.control, "eval", f"{now}.")
    try:
        yield
    finally:
        await asyncio.to_thread(server.control, "eval", f"{afterwards}.")


async def test_what_is_held_can_be_settled_while_an_alarm_stops_all_sends(server: RabbitmqServer, broker, monkeypatch):
    monkeypatch.setattr("dumbwaiter.brokers.rabbitmq.publishing.PATIENCE", 1.0)
    await broker.send("resnet", [Message(), Message()])
    held = await take(broker, 2)
    await asyncio.to_thread(server.control, "set_vm_memory_high_watermark", "0.00001")
    try:
        await eventually(lambda: refuses_to_send(broker), within=20.0)
        with pytest.raises(BrokerUnavailableError):
            await broker.check()
        (finding,) = [one for one in await broker.examine() if one.subject == "alarms"]
        assert finding.level == "danger"
        await broker.complete(await broker.renew_lock(held))
    finally:
        await asyncio.to_thread(server.control, "set_vm_memory_high_watermark", "0.4")
    await broker.check()


async def refuses_to_send(broker):
    try:
        await broker.send("resnet", [Message()])
    except BrokerUnavailableError as error:
        return "alarms" in str(error)
    return False


async def test_locks_of_a_channel_that_the_server_has_closed_are_lost_and_the_messages_come_again(broker):
    await broker.send("resnet", [Message(), Message()])
    held = await take(broker, 2)
    await broker._of("resnet").tap._desk.channel.close()
    for settle in (broker.complete, broker.renew_lock, broker.abandon):
        with pytest.raises(LockLostError) as caught:
            await settle(held)
        assert len(caught.value.deliveries) == 2
    assert sorted(one.delivery_count for one in await take(broker, 2)) == [2, 2]


async def test_an_inbox_goes_on_at_its_address_after_the_connection_was_lost(broker):
    inbox = await broker.open_inbox()
    await broker._receiving._connection.close()
    with pytest.raises(InboxGoneError):
        await broker.reply(inbox.address, [Message()])
    assert await inbox.receive(max_messages=1, max_wait=0.0) == []
    await broker.reply(inbox.address, [Message(body=b"again")])
    assert [one.body for one in await inbox.receive(max_messages=1, max_wait=5.0)] == [b"again"]
