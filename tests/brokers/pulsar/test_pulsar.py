"""What the suite does not say: other producers, lost connections, and what is kept where."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import time

import pulsar
import pytest
from pulsar.asyncio import Client, PulsarException

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.pulsar import holding
from dumbwaiter.errors import BrokerUnavailableError, InboxGoneError, LockLostError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def url(server):
    return f"{server.url}?prefix=t{secrets.token_hex(6)}"


@pytest.fixture
async def broker(url):
    async with open_broker(url, lock_duration=60.0) as broker:
        await broker.create_queue("resnet")
        yield broker


@pytest.fixture
async def client(server):
    """One without dumbwaiter."""
    quiet = pulsar.FileLogger(pulsar._pulsar.LoggerLevel.Error, os.devnull)
    client = Client(f"pulsar://127.0.0.1:{server.port}", logger=quiet)
    yield client
    await client.close()


async def take(broker, count=1, queue="resnet"):
    taken = []
    async with asyncio.timeout(15):
        while len(taken) < count:
            taken += await broker.receive(queue, max_messages=count - len(taken), max_wait=5.0)
    return taken


# --- producers of other kinds ---


async def test_a_bare_body_of_any_producer_is_a_request(broker, client):
    producer = await client.create_producer(broker._names.lane("resnet", 1), batching_enabled=False)
    await producer.send(b"\xff\xd8 image")
    (delivery,) = await take(broker)
    assert (delivery.message.body, delivery.message.priority, delivery.delivery_count) == (b"\xff\xd8 image", 0, 1)
    await broker.abandon([delivery])
    (again,) = await take(broker)
    assert (again.message.id, again.delivery_count) == (delivery.message.id, 2), "its place is its name"
    await broker.abandon([again], counted=False)
    (copy,) = await take(broker)
    assert (copy.message.id, copy.delivery_count) == (delivery.message.id, 2), "a copy keeps it"


async def test_properties_of_any_producer_are_attributes(broker, client):
    producer = await client.create_producer(broker._names.lane("resnet", 1), batching_enabled=False)
    properties = {"id": "mine", "ce_tenant": "acme", "ce-subject": "cat", "colour": "red"}
    await producer.send(b"{}", properties=properties, event_timestamp=1_700_000_000_500)
    message = (await take(broker))[0].message
    assert (message.id, message.tenant, message.subject, message.time) == ("mine", "acme", "cat", 1_700_000_000.5)
    assert message.extensions == {"colour": "red"}


@pytest.mark.parametrize("wanted", [1, 50])
async def test_a_batch_of_another_producer_is_taken_apart(broker, client, wanted):
    topic = broker._names.lane("resnet", 1)
    producer = await client.create_producer(topic, batching_enabled=True, batching_max_publish_delay_ms=100)
    bodies = [b"%d" % i for i in range(30)]
    await asyncio.gather(*(producer.send(body) for body in bodies))
    seen = {}
    while len(seen) < len(bodies):
        for delivery in await take(broker, wanted if wanted == 1 else len(bodies) - len(seen)):
            assert seen.setdefault(delivery.message.id, delivery.message.body) == delivery.message.body
            await broker.complete([delivery])
    assert sorted(seen.values()) == sorted(bodies)
    assert await broker.receive("resnet", max_messages=10, max_wait=0.3) == []


async def test_what_no_envelope_can_be_read_of_becomes_a_dead_letter_as_it_came(broker, client):
    producer = await client.create_producer(broker._names.lane("resnet", 1), batching_enabled=False)
    await producer.send(b"body", properties={"deadline": "tomorrow", "id": "bad"})
    await broker.send("resnet", [Message(id="good")])
    assert [delivery.message.id for delivery in await take(broker)] == ["good"]
    (letter,) = await broker.dead_letters("resnet")
    assert (letter.reason, letter.message.body) == ("bad-envelope", b"body")
    assert "tomorrow" in letter.message.extensions["headers"]


async def test_properties_that_are_no_text_do_not_keep_the_others_from_coming(broker, client):
    """The server takes any bytes, and so do some clients."""
    producer = await client.create_producer(broker._names.lane("resnet", 1), batching_enabled=False)
    builder = pulsar._pulsar.MessageBuilder()
    builder.content(b"body")
    builder.property("tenant", b"\xff\xfe")
    sent = asyncio.get_running_loop().create_future()
    loop = sent.get_loop()
    producer._producer.send_async(builder.build(), lambda *_: loop.call_soon_threadsafe(sent.set_result, None))
    await sent
    await broker.send("resnet", [Message(id="good")])
    assert [delivery.message.id for delivery in await take(broker)] == ["good"]
    (letter,) = await broker.dead_letters("resnet")
    assert (letter.reason, letter.message.body) == ("bad-envelope", b"body")


async def send_the_largest(broker, client, **properties):
    """One of another producer that the server just takes: no copy with anything more in it fits."""
    probe = await client.create_producer(f"probe-{secrets.token_hex(4)}", batching_enabled=False)
    nbytes = 5 * 1024 * 1024 - 10 * 1024
    while True:
        nbytes -= 10
        with contextlib.suppress(PulsarException):
            await probe.send(b"z" * nbytes, properties=properties)
            break
    producer = await client.create_producer(broker._names.lane("resnet", 1), batching_enabled=False)
    nbytes -= 16  # the names of producers differ in length
    await producer.send(b"z" * nbytes, properties=properties)
    return nbytes


async def test_the_largest_that_nobody_can_read_becomes_a_dead_letter_and_keeps_nobody(broker, client):
    nbytes = await send_the_largest(broker, client, deadline="tomorrow")
    await broker.send("resnet", [Message(id="good")])
    assert [delivery.message.id for delivery in await take(broker)] == ["good"]
    (letter,) = await eventually(lambda: broker.dead_letters("resnet"))
    assert len(letter.message.body) == nbytes
    assert "tomorrow" in letter.message.extensions["headers"]


async def test_the_largest_can_be_dead_lettered_and_redriven(broker, client):
    nbytes = await send_the_largest(broker, client)
    await broker.send("resnet", [Message(id="small")])
    held = await take(broker, 2)
    await broker.dead_letter(held, reason="over" * 50, detail="a trace")
    letters = await broker.dead_letters("resnet")
    assert sorted((len(letter.message.body), letter.detail) for letter in letters) == [(0, "a trace"), (nbytes, "")]
    assert await broker.redrive("resnet") == 2
    assert sorted(len(delivery.message.body) for delivery in await take(broker, 2)) == [0, nbytes]


@pytest.mark.parametrize("how", [{"delay": 0.5}, {"counted": False}])
async def test_the_largest_comes_again_where_no_copy_of_it_fits(broker, client, how):
    nbytes = await send_the_largest(broker, client)
    await broker.send("resnet", [Message(id="small")])
    held = await take(broker, 2)
    await broker.abandon(held, **how)
    with pytest.raises(LockLostError):
        await broker.complete(held)
    again = {len(delivery.message.body): delivery.delivery_count for delivery in await take(broker, 2)}
    assert again == {0: 2 if "delay" in how else 1, nbytes: again[nbytes]}
    # An uncounted copy needs room for nothing but an id, and may find that.
    assert again[nbytes] in ((2,) if "delay" in how else (1, 2))


# --- what waits is not withheld ---


async def test_what_comes_to_a_worker_that_is_busy_goes_to_one_that_is_not(broker, url):
    """The busy one has asked for more than came, and cannot take that back while it holds something."""
    await broker.send("resnet", [Message()])
    held = await broker.receive("resnet", max_messages=16, max_wait=5.0)
    await broker.send("resnet", [Message() for _ in range(5)])
    async with open_broker(url) as idle:
        others = await take(idle, 5)
        assert {delivery.delivery_count for delivery in others} == {1}
        await idle.complete(others)
    await broker.complete(held)


async def test_an_empty_queue_answers_a_receiver_without_patience(broker):
    started = time.monotonic()
    assert await broker.receive("resnet", max_messages=5, max_wait=0.0) == []
    assert time.monotonic() - started < 5


async def test_what_a_closing_broker_held_was_not_counted_whoever_comes_later(broker, url):
    """Although it had asked for more, and nobody else was there."""
    await broker.send("resnet", [Message(id="a"), Message(id="b")])
    async with open_broker(url) as other:
        assert len(await other.receive("resnet", max_messages=1, max_wait=5.0)) == 1
    taken = await take(broker, 2)
    assert sorted((delivery.message.id, delivery.delivery_count) for delivery in taken) == [("a", 1), ("b", 1)]
    await broker.complete(taken)
    assert await broker.receive("resnet", max_messages=1, max_wait=0.3) == []


async def test_what_was_completed_just_before_the_end_stays_so(broker, url):
    await broker.send("resnet", [Message() for _ in range(20)])
    async with open_broker(url) as other:
        await other.complete(await take(other, 20))
    assert await broker.receive("resnet", max_messages=1, max_wait=0.3) == []


# --- lost connections and dead processes ---


async def test_who_lost_the_connection_settles_nothing_of_the_next_holder(server, broker, url):
    await broker.send("resnet", [Message(), Message()])
    held = await take(broker, 2)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    async with open_broker(url, lock_duration=60.0) as other:
        again = await take(other, 2)
        for settle in (broker.complete, broker.abandon, broker.renew_lock):
            with pytest.raises(LockLostError) as caught:
                await settle(held)
            assert len(caught.value.deliveries) == 2
        await other.complete(await other.renew_lock(again))
    assert await broker.receive("resnet", max_messages=2, max_wait=0.5) == []


async def test_a_stopped_process_settles_nothing_once_its_locks_are_over(broker, url):
    """It goes on as if nothing had happened, and its messages are with somebody else."""
    await broker.send("resnet", [Message(id="one")])
    script = (
        "import asyncio, sys\n"
        "from dumbwaiter.brokers import open_broker\n"
        "async def main():\n"
        "    async with open_broker(sys.argv[1], lock_duration=1.0) as broker:\n"
        "        held = await broker.receive('resnet', max_messages=1, max_wait=10.0)\n"
        "        print('held', flush=True)\n"
        "        await asyncio.to_thread(sys.stdin.readline)\n"
        "        try:\n"
        "            await broker.complete(held)\n"
        "        except Exception as error:\n"
        "            print(type(error).__name__, flush=True)\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert await child.stdout.readline() == b"held\n"
    child.send_signal(signal.SIGSTOP)
    await asyncio.sleep(1.2)
    child.send_signal(signal.SIGCONT)
    said, _ = await child.communicate(b"\n")
    assert said == b"LockLostError\n"
    (again,) = await take(broker)
    assert again.message.id == "one"


async def test_a_lane_that_lost_its_connection_takes_nothing_from_the_others(broker):
    await broker.send("resnet", [Message(id="one")])
    held = await take(broker)
    lane = broker._queues["resnet"].tap._lanes[0]
    lane._consumer.close_async(lambda _: None)
    await eventually(lambda: lane.is_lost, within=5.0)
    await broker.complete(await broker.renew_lock(held))
    await broker.send("resnet", [Message(id="two", priority=5)])
    assert [delivery.message.id for delivery in await take(broker)] == ["two"]


async def test_a_process_that_was_stopped_for_long_holds_nothing_any_more(broker, monkeypatch):
    """The server may have given its messages to others, and its own client does not know that yet."""
    monkeypatch.setattr(holding, "LONGEST_STALL", 0.4)
    await broker.send("resnet", [Message(id="one")])
    held = await take(broker)
    time.sleep(0.6)  # noqa: ASYNC251 - nothing of this process shall run
    with pytest.raises(LockLostError):
        await broker.complete(held)
    assert [delivery.message.id for delivery in await take(broker)] == ["one"]


async def test_a_delayed_message_comes_when_whoever_kept_it_has_gone(broker, url):
    sent_at = time.monotonic()
    await broker.send("resnet", [Message(id="later")], delay=1.5)
    async with open_broker(url) as first:  # it keeps the message from now on, and ends
        assert await first.receive("resnet", max_messages=1, max_wait=0.3) == []
    (delivery,) = await take(broker)
    assert (delivery.message.id, delivery.delivery_count) == ("later", 1)
    assert time.monotonic() - sent_at >= 1.45


async def test_a_delayed_message_keeps_its_lane_and_its_count(broker):
    await broker.send("resnet", [Message(priority=5)])
    held = await take(broker)
    await broker.abandon(held, delay=0.2)
    (again,) = await take(broker)
    assert (again.message, again.delivery_count) == (held[0].message, 2)


async def test_a_child_of_a_fork_ends_too(url):
    """The threads of the library's client are its parent's."""
    script = (
        "import asyncio, os, sys, warnings\n"
        "from dumbwaiter.brokers import open_broker\n"
        "loop = asyncio.new_event_loop()\n"
        "broker = open_broker(sys.argv[1])\n"
        "loop.run_until_complete(broker.open())\n"
        "loop.run_until_complete(broker.create_queue('resnet'))\n"
        "warnings.simplefilter('ignore')\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    sys.exit(7)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "loop.run_until_complete(broker.close())\n"
        "sys.exit(status)\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, url, process_group=0)
    try:
        async with asyncio.timeout(30):
            assert await process.wait() == 7
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        raise


@pytest.mark.parametrize("ends", ["await broker.close()", "pass"])
async def test_a_process_ends_as_it_should_whether_it_closes_its_broker_or_not(broker, url, ends):
    """The library's own threads abort a process that they outlive."""
    script = (
        "import asyncio, sys\n"
        "from dumbwaiter.brokers import open_broker\n"
        "async def main():\n"
        "    broker = open_broker(sys.argv[1])\n"
        "    await broker.open()\n"
        "    await broker.open_inbox()\n"
        "    waiting = asyncio.create_task(broker.receive('resnet', max_messages=1, max_wait=60.0))\n"
        "    await asyncio.sleep(0.1)\n"
        f"    {ends}\n"
        "    waiting.cancel()\n"
        "    await asyncio.gather(waiting, return_exceptions=True)\n"
        "asyncio.run(main())\n"
    )
    children = [await asyncio.create_subprocess_exec(sys.executable, "-c", script, url) for _ in range(3)]
    async with asyncio.timeout(30):
        assert [await child.wait() for child in children] == [0, 0, 0]


async def test_a_server_that_does_not_listen_is_named():
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1: .*start it"):
        await open_broker("pulsar://127.0.0.1:1").open()


async def test_a_server_of_another_kind_is_told_within_some_seconds():
    async def hang_up(reader, writer):
        await reader.read(100)
        writer.close()

    other = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with other:
        port = other.sockets[0].getsockname()[1]
        async with asyncio.timeout(15):
            with pytest.raises(BrokerUnavailableError, match="does not answer"):
                await open_broker(f"pulsar://127.0.0.1:{port}").open()


# --- dead letters ---


async def bury(broker, *ids):
    await broker.send("resnet", [Message(id=id_) for id_ in ids])
    for delivery in await take(broker, len(ids)):
        await broker.dead_letter([delivery], reason="buried")


async def test_dead_letters_are_the_same_for_all(broker, url):
    await bury(broker, "a", "b", "c")
    async with open_broker(url) as other:
        letters = await other.dead_letters("resnet")
        assert sorted(letter.message.id for letter in letters) == ["a", "b", "c"]
        assert await broker.purge("resnet", [letters[1].key]) == 1
        assert [letter.key for letter in await other.dead_letters("resnet")] == [letters[0].key, letters[2].key]
        assert await other.redrive("resnet", [letters[1].key, letters[0].key]) == 1
        assert (await broker.stats("resnet")).dead == 1


async def test_dead_letters_survive_the_server(server, broker):
    await bury(broker, "a", "b")
    (first, second) = await broker.dead_letters("resnet")
    await broker.purge("resnet", [first.key])
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)

    async def is_same():
        try:
            return [letter.key for letter in await broker.dead_letters("resnet")] == [second.key]
        except BrokerUnavailableError:
            return False

    await eventually(is_same, within=10.0, every=0.1)


async def test_a_message_that_somebody_else_put_among_the_dead_letters_can_be_read_and_redriven(broker, client):
    producer = await client.create_producer(broker._names.dead("resnet"), batching_enabled=False)
    await producer.send(b"foreign", properties={"deadline": "tomorrow"})
    (letter,) = await broker.dead_letters("resnet")
    assert (letter.message.body, letter.reason, letter.delivery_count) == (b"foreign", "", 0)
    assert await broker.purge("resnet", [letter.key]) == 1


# --- request and reply ---


async def test_an_answer_goes_to_a_topic_of_the_producers_own(broker, client):
    consumer = await client.subscribe("persistent://public/default/my-answers", "mine")
    await broker.reply("persistent://public/default/my-answers", [Message(body=b"42", correlation_id="7")])
    async with asyncio.timeout(10):
        answer = await consumer.receive()
    assert (answer.data(), answer.properties()["ce_correlationid"]) == (b"42", "7")


async def test_an_address_that_is_no_topic_is_gone(broker):
    for address in ("", "somewhere", "persistent://a/b", "https://example.com/hook"):
        with pytest.raises(InboxGoneError):
            await broker.reply(address, [Message()])


async def test_a_burst_of_replies_to_one_that_does_not_read_yet_is_kept(broker, url):
    inbox = await broker.open_inbox()
    async with open_broker(url) as worker:
        for _ in range(10):
            await worker.reply(inbox.address, [Message() for _ in range(300)])
    read = 0
    async with asyncio.timeout(15):
        while read < 3000:
            read += len(await inbox.receive(max_messages=1000, max_wait=5.0))


async def test_an_inbox_reads_on_after_the_server_was_killed(server, broker):
    inbox = await broker.open_inbox()
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)

    async def is_answered():
        try:
            await inbox.receive(max_messages=1, max_wait=0.0)
            await broker.reply(inbox.address, [Message(id="answer")])
            return [message.id for message in await inbox.receive(max_messages=1, max_wait=1.0)] == ["answer"]
        except BrokerUnavailableError:
            return False

    await eventually(is_answered, within=15.0, every=0.1)


# --- queues ---


async def test_two_prefixes_share_a_server(server, broker):
    async with open_broker(f"{server.url}?prefix=other{secrets.token_hex(4)}") as other:
        assert await other.queues() == []
        assert not await other.has_queue("resnet")
        await other.create_queue("resnet")
        await broker.send("resnet", [Message()])
        assert await other.receive("resnet", max_messages=1, max_wait=0.2) == []


async def test_a_queue_that_is_created_while_others_watch_is_seen(broker, url):
    async with open_broker(url) as other:
        await other.create_queue("later")
        assert await broker.queues() == ["later", "resnet"]
        await broker.send("later", [Message()])
        assert len(await take(other, 1, "later")) == 1
