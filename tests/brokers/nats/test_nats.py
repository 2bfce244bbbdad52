"""What the suite does not say of NATS: foreign producers, limits, passwords, and what a look at the server tells."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import time

import nats
import pytest
from servers import NatsServer
from travelling import a_request_and_its_reply_travel

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.nats import queues as queues_module
from dumbwaiter.brokers.nats.broker import NatsBroker
from dumbwaiter.errors import (
    BrokerUnavailableError,
    ConfigError,
    InboxGoneError,
    LockLostError,
    MessageTooLargeError,
    QueueNotFoundError,
)
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def queue(broker):
    queue = f"test.{secrets.token_hex(4)}"
    await broker.create_queue(queue)
    return queue


def subject_of(queue: str, lane: str = "normal") -> str:
    return f"dumbwaiter.{lane}.{queue.replace('.', '=2e')}"


async def api(client, subject, request=None):
    answer = await client.request(f"$JS.API.{subject}", json.dumps(request).encode() if request else b"")
    return json.loads(answer.data)


async def take(broker, queue, count=1):
    deliveries = []
    while len(deliveries) < count:
        some = await broker.receive(queue, max_messages=count - len(deliveries), max_wait=5.0)
        assert some
        deliveries += some
    return deliveries


# --- producers without dumbwaiter ---


async def test_a_bare_body_is_a_request_with_an_id_that_stays(broker, queue, foreign):
    await foreign.jetstream().publish(subject_of(queue), b"just a body")
    (first,) = await take(broker, queue)
    assert (first.message.body, first.message.priority) == (b"just a body", 0)
    await broker.abandon([first])
    (again,) = await take(broker, queue)
    assert (again.message.id, again.delivery_count) == (first.message.id, 2)
    await broker.complete([again])


async def test_headers_are_cloudevents_attributes_with_or_without_their_prefix(broker, queue, foreign):
    headers = {"ce-id": "7", "ce-tenant": "%C3%A9t%C3%A9", "Subject": "cat", "Content-Type": "image/png"}
    await foreign.jetstream().publish(subject_of(queue), b"x", headers=headers)
    (delivery,) = await take(broker, queue)
    message = delivery.message
    assert (message.id, message.tenant, message.subject) == ("7", "été", "cat")
    assert message.content_type == "image/png"


async def test_the_lane_is_the_subject_that_a_producer_chooses(broker, queue, foreign):
    for lane in ("low", "normal", "high"):
        await foreign.jetstream().publish(subject_of(queue, lane), lane.encode())
    assert [d.message.body for d in await take(broker, queue, 3)] == [b"high", b"normal", b"low"]


async def test_a_bad_envelope_is_a_dead_letter_that_shows_it(broker, queue, foreign):
    await foreign.jetstream().publish(subject_of(queue), b"x", headers={"ce-priority": "urgent"})
    await broker.send(queue, [Message(id="good")])
    assert [d.message.id for d in await take(broker, queue)] == ["good"]
    (letter,) = await broker.dead_letters(queue)
    assert (letter.reason, letter.message.body) == ("bad-envelope", b"x")
    assert json.loads(letter.message.extensions["headers"]) == {"ce-priority": "urgent"}


@pytest.mark.parametrize("leaves", [False, True], ids=["its lock ends", "it closes"])
async def test_what_came_with_a_message_that_could_not_be_buried_comes_back_whole(nats_server, queue, foreign, leaves):
    await foreign.publish(subject_of(queue), b"good")
    await foreign.publish(subject_of(queue), b"bad", headers={"priority": "much"})
    await foreign.flush()
    async with open_broker(nats_server.url, lock_duration=0.5) as unlucky:

        async def fail(*_):
            raise BrokerUnavailableError("the connection broke just now")

        unlucky._holding._publish = fail
        assert [one.message.body for one in await take(unlucky, queue)] == [b"good"]
        assert await unlucky.receive(queue, max_messages=2, max_wait=0.1) == []  # now it is the only one
        del unlucky._holding._publish
        if leaves:
            await unlucky.close()
        async with open_broker(nats_server.url) as another:
            bodies = [one.message.body for one in await take(another, queue)]
            assert bodies == [b"good"]

            async def is_buried():
                await another.receive(queue, max_messages=1, max_wait=0.2)
                return [letter.message.body for letter in await another.dead_letters(queue)] == [b"bad"]

            await eventually(is_buried, within=10.0)


async def test_a_header_that_looks_like_a_status_is_no_status(broker, queue, foreign):
    await foreign.jetstream().publish(subject_of(queue), b"", headers={"Status": "404", "Description": "No Messages"})
    (delivery,) = await take(broker, queue)
    await broker.dead_letter([delivery], reason="looked at")
    assert [letter.message.id for letter in await broker.dead_letters(queue)] == [delivery.message.id]


async def test_the_largest_message_that_a_producer_can_send_can_be_dead_lettered(broker, queue, foreign):
    limit = foreign.max_payload
    with pytest.raises(nats.js.errors.APIError, match="maximum"):
        await foreign.jetstream().publish(subject_of(queue), bytes(limit - 4095))
    await foreign.jetstream().publish(subject_of(queue), bytes(limit - 4096))
    (delivery,) = await take(broker, queue)
    await broker.abandon([delivery], counted=False)  # no copy of it fits: it comes back all the same
    (delivery,) = await take(broker, queue)
    assert delivery.delivery_count == 2
    await broker.dead_letter([delivery], reason="large", detail="é" * 100_000 + "the end")
    (letter,) = await broker.dead_letters(queue)
    assert len(letter.message.body) == limit - 4096
    assert letter.detail.endswith("ééthe end")
    await broker.send(queue, [Message(id="small")])
    await broker.dead_letter(await take(broker, queue), reason="small")
    with pytest.raises(MessageTooLargeError):  # with an id it is too large for its queue
        await broker.redrive(queue)
    assert [d.message.id for d in await take(broker, queue)] == ["small"]
    assert (await broker.stats(queue)).dead == 1


# --- limits and names ---


async def test_the_limit_is_the_servers_own(tmp_path):
    server = NatsServer(tmp_path, "max_payload: 64KB")
    server.start()
    try:
        async with open_broker(server.url) as broker:
            limit = broker.capabilities.max_message_nbytes
            assert limit == 64 * 1024 - 8192
            await broker.create_queue("small")
            await broker.send("small", [Message(body=bytes(limit), tenant="t" * 100)])
            with pytest.raises(MessageTooLargeError) as caught:
                await broker.send("small", [Message(body=bytes(limit), tenant="t" * 4000)])
            assert caught.value.nbytes == broker.nbytes_of(Message(body=bytes(limit), tenant="t" * 4000))
            held = await take(broker, "small")
            await broker.dead_letter(held, reason="full", detail="x" * 100_000)
            assert (await broker.dead_letters("small"))[0].message == held[0].message
    finally:
        server.stop()


async def test_many_large_messages_are_received_in_portions(broker, queue):
    """The server cuts off a client that has more than 64 MiB to read."""
    body = bytes(broker.capabilities.max_message_nbytes)
    for _ in range(8):
        await broker.send(queue, [Message(body=body) for _ in range(10)])
    held = await take(broker, queue, 80)
    assert {(len(d.message.body), d.delivery_count) for d in held} == {(len(body), 1)}
    await broker.dead_letter(held, reason="large")
    letters = await broker.dead_letters(queue)
    assert [letter.message.id for letter in letters] == [d.message.id for d in held]
    assert await broker.redrive(queue, [letter.key for letter in letters[:40]]) == 40
    assert await broker.redrive(queue) == 40
    await broker.complete(await take(broker, queue, 80))


async def test_two_prefixes_share_a_server_and_see_nothing_of_each_other(nats_server, broker, queue):
    async with open_broker(f"{nats_server.url}?prefix=other") as other:
        assert await other.queues() == []
        with pytest.raises(QueueNotFoundError):
            await other.send(queue, [Message()])
        await other.create_queue(queue)
        await other.send(queue, [Message()])
        assert await other.queues() == [queue]
        assert (await broker.stats(queue)).ready == 0


async def test_queues_are_listed_by_their_true_names(broker):
    names = sorted([f"{'x' * 70}.long", "A.B_c-d", "a=2eb".replace("=", "-"), secrets.token_hex(4)])
    for name in names:
        await broker.create_queue(name)
    assert [name for name in await broker.queues() if name in names] == names


async def test_a_stream_that_is_not_ours_is_left_alone(broker, foreign):
    await foreign.jetstream().add_stream(name="dumbwaiter+taken", subjects=["something.else"])
    with pytest.raises(BrokerUnavailableError, match="not ours"):
        await broker.create_queue("taken")
    assert "taken" not in await broker.queues()


async def test_consumers_that_somebody_deleted_are_made_again(broker, queue, foreign):
    await broker.send(queue, [Message(id="kept")])
    (held,) = await take(broker, queue)
    await broker.abandon([held])
    stream = f"dumbwaiter+{queue.replace('.', '=2e')}"
    for lane in ("high", "normal", "low", "again"):
        assert (await api(foreign, f"CONSUMER.DELETE.{stream}.{lane}"))["success"]

    async def comes() -> bool:
        try:
            return [d.message.id for d in await broker.receive(queue, max_messages=1, max_wait=1.0)] == ["kept"]
        except BrokerUnavailableError:
            return False

    await eventually(comes)


async def test_a_queue_that_is_deleted_under_a_receiver_is_missed(broker, queue, foreign):
    receiving = asyncio.create_task(broker.receive(queue, max_messages=1, max_wait=30.0))
    await asyncio.sleep(0.2)
    await foreign.jetstream().delete_stream(f"dumbwaiter+{queue.replace('.', '=2e')}")
    with pytest.raises((QueueNotFoundError, BrokerUnavailableError)):
        async with asyncio.timeout(5.0):
            await receiving
    for verb in (lambda: broker.receive(queue, max_messages=1, max_wait=0.1), lambda: broker.send(queue, [Message()])):
        with pytest.raises(QueueNotFoundError):
            await verb()


async def test_sends_to_queues_that_another_makes_at_that_moment_are_taken(nats_server, broker):
    """A stream is listed a moment before it hears what is sent to it."""

    async def send_as_soon_as_it_is_there(queue):
        making = asyncio.create_task(maker.create_queue(queue))
        async with asyncio.timeout(30):
            while not await broker.has_queue(queue):
                pass
            await broker.send(queue, [Message(), Message(priority=5), Message(priority=-5)])
            await making

    async with open_broker(nats_server.url) as maker:
        queues = [f"fresh.{secrets.token_hex(4)}" for _ in range(32)]
        for some in (queues[:16], queues[16:]):
            await asyncio.gather(*map(send_as_soon_as_it_is_there, some))
    for queue in queues:
        assert (await broker.stats(queue)).ready == 3


async def test_a_stream_that_goes_on_not_hearing_is_named(broker, queue, foreign, monkeypatch):
    monkeypatch.setattr(queues_module, "NOT_READY_PAUSES", (0.01, 0.01))
    names = broker._queues.names(queue)
    config = (await api(foreign, f"STREAM.INFO.{names.stream}"))["config"]
    assert "error" not in await api(foreign, f"STREAM.UPDATE.{names.stream}", {**config, "subjects": ["elsewhere"]})
    with pytest.raises(BrokerUnavailableError, match="does not answer"):
        await broker.send(queue, [Message()])


async def test_a_reply_goes_to_inboxes_only(broker):
    """Callers write the address; NATS would take it for any subject, its own interface included."""
    for address in ("$JS.API.STREAM.PURGE.x", "dumbwaiter.normal.q", "dumbwaiter.inbox.*", "dumbwaiter.inbox.", ""):
        with pytest.raises(InboxGoneError):
            await broker.reply(address, [Message()])


async def test_a_killed_workers_count_starts_from_what_was_counted_before(broker, queue):
    """Deliveries that did not count are not counted later either, by whatever way the message comes back."""
    await broker.send(queue, [Message()])
    for _ in range(3):
        await broker.abandon(await take(broker, queue), counted=False)
    held = await take(broker, queue)
    assert held[0].delivery_count == 1
    await broker.abandon(held)
    await broker.abandon(await take(broker, queue), delay=0.1)
    assert (await take(broker, queue))[0].delivery_count == 3


async def test_an_abandoned_message_comes_before_those_that_wait(broker, queue):
    await broker.send(queue, [Message(id="first", priority=-5), Message(id="second")])
    held = await take(broker, queue, 2)
    await broker.abandon([d for d in held if d.message.id == "first"], counted=False)
    await broker.send(queue, [Message(id="third", priority=9)])
    assert [d.message.id for d in await take(broker, queue, 2)] == ["first", "third"]


async def test_a_message_that_was_handed_back_keeps_its_age(broker, queue):
    await broker.send(queue, [Message()])
    await asyncio.sleep(0.3)
    await broker.abandon(await take(broker, queue))
    assert (await broker.stats(queue)).oldest_age >= 0.25


async def test_a_redriven_letter_that_was_not_deleted_is_not_doubled(broker, queue, monkeypatch):
    """An end between the two steps of a redrive."""
    await broker.send(queue, [Message(id="one")])
    await broker.dead_letter(await take(broker, queue), reason="tried")

    async def dies(*_):
        raise BrokerUnavailableError("now")

    with monkeypatch.context() as patch:
        patch.setattr(broker._dead, "_delete", dies)
        with pytest.raises(BrokerUnavailableError):
            await broker.redrive(queue)
    assert await broker.redrive(queue) == 1
    assert (await broker.stats(queue)).ready == 1


# --- servers ---


async def test_a_wrong_password_is_said_and_shown_nowhere(tmp_path):
    server = NatsServer(tmp_path, "authorization { user: me, password: right }")
    server.start()
    try:
        with pytest.raises(BrokerUnavailableError, match=r"(?i)authorization") as caught:
            await open_broker(server.url.replace("//", "//me:wr0ng@")).open()
        assert "wr0ng" not in str(caught.value)
        async with open_broker(server.url.replace("//", "//me:right@")) as broker:
            await broker.check()
    finally:
        server.stop()


async def test_the_rights_that_the_page_names_are_enough(tmp_path):
    rights = """
    authorization { users: [
      { user: all, password: all, permissions: {
        publish: ["dumbwaiter.>", "$JS.API.>", "$JS.ACK.>", "_INBOX.>"],
        subscribe: ["dumbwaiter.inbox.*", "_INBOX.>"] } }
      { user: producer, password: p, permissions: { publish: ["dumbwaiter.normal.*"], subscribe: ["_INBOX.>"] } }
    ] }"""
    server = NatsServer(tmp_path, rights)
    server.start()
    try:
        async with open_broker(server.url.replace("//", "//all:all@")) as broker:
            await broker.check()
            await broker.create_queue("q")
            assert await broker.queues() == ["q"]
            inbox = await broker.open_inbox()
            producer = await nats.connect(server.url, user="producer", password="p")
            await producer.jetstream().publish("dumbwaiter.normal.q", b"1")
            await producer.close()
            (delivery,) = await broker.renew_lock(await take(broker, "q"))
            await broker.abandon([delivery], delay=0.05, counted=False)
            await broker.reply(inbox.address, [Message()])
            assert await inbox.receive(max_messages=1, max_wait=5.0)
            await broker.dead_letter(await take(broker, "q"), reason="tried")
            assert await broker.redrive("q") == 1
            await broker.complete(await take(broker, "q"))
            assert (await broker.stats("q")).dead == await broker.purge("q") == 0
    finally:
        server.stop()


async def test_a_server_that_is_too_old_is_refused(nats_server, monkeypatch):
    monkeypatch.setattr("dumbwaiter.brokers.nats.broker.LEAST_VERSION", (99, 0))
    with pytest.raises(BrokerUnavailableError, match=r"needs 99\.0 or newer"):
        await open_broker(nats_server.url).open()


async def test_a_server_without_jetstream_is_refused(tmp_path):
    server = NatsServer(tmp_path, jetstream="")
    server.start()
    try:
        with pytest.raises(BrokerUnavailableError, match="-js"):
            await open_broker(server.url).open()
    finally:
        server.stop()


async def test_a_server_that_keeps_no_schedules_still_keeps_the_delay_of_an_abandon(nats_server, monkeypatch):
    """As NATS 2.11 does: what was handed back so is counted as locked meanwhile."""
    monkeypatch.setattr(queues_module, "_SCHEDULES_SINCE", (99, 0))
    async with open_broker(nats_server.url) as broker:
        assert not broker.capabilities.send_delay
        queue = f"old-{secrets.token_hex(4)}"
        await broker.create_queue(queue)
        await broker.send(queue, [Message()], delay=60.0)
        held = await take(broker, queue)
        await broker.abandon(held, delay=0.5)
        assert await broker.receive(queue, max_messages=1, max_wait=0.2) == []
        assert (await broker.stats(queue)).locked == 1
        assert (await take(broker, queue))[0].delivery_count == 2


async def test_a_full_disk_raises_and_check_says_so(tmp_path):
    server = NatsServer(tmp_path, jetstream="sync_interval: always, max_file_store: 200KB")
    server.start()
    try:
        async with open_broker(server.url) as broker:
            await broker.create_queue("full")
            await broker.check()
            with pytest.raises(BrokerUnavailableError, match="resources"):
                await broker.send("full", [Message(body=bytes(50_000)) for _ in range(10)])
            while (await broker.stats("full")).ready < 2:  # what is left of the disk
                await broker.send("full", [Message()])
            with pytest.raises(BrokerUnavailableError, match="resources"):
                await broker.send("full", [Message(body=bytes(200_000))])
    finally:
        server.stop()


async def test_files_that_the_url_names_must_be_there(nats_server):
    with pytest.raises(ConfigError, match="certificates"):
        await open_broker(f"{nats_server.url}?tls_ca=/nowhere/ca.pem").open()


async def test_a_message_held_when_the_server_was_replaced_is_not_settled(tmp_path):
    """A server that was killed may have forgotten what it delivered, and give it to others at once."""
    server = NatsServer(tmp_path)
    server.start()
    try:
        async with open_broker(server.url, lock_duration=2.0) as broker:
            await broker.create_queue("q")
            await broker.send("q", [Message(id="one")])
            held = await take(broker, "q")
            await asyncio.to_thread(server.stop)
            with pytest.raises(BrokerUnavailableError):
                await broker.complete(held)
            await asyncio.to_thread(server.start)

            async def is_lost() -> bool:
                try:
                    await broker.complete(held)
                except BrokerUnavailableError:
                    return False
                except LockLostError:
                    return True
                raise AssertionError("it was settled")

            await eventually(is_lost)
            assert [d.message.id for d in await take(broker, "q")] == ["one"]
    finally:
        server.stop()


async def test_a_completion_that_nobody_confirmed_is_never_taken_back(nats_server, queue):
    """It may have been done: a copy that is handed back when the lock ends would bring the message to life again."""
    async with open_broker(nats_server.url, lock_duration=1.0) as broker:
        await broker.send(queue, [Message()])
        held = await take(broker, queue)
        ask = broker._link.ask

        async def cut_off(questions, **more):
            answers = await ask(questions, **more)
            if questions[0][0] == held[0].lock_token:
                raise BrokerUnavailableError("the answer was lost")
            return answers

        broker._link.ask = cut_off
        with pytest.raises(BrokerUnavailableError):
            await broker.complete(held)
        broker._link.ask = ask
        await broker.renew_lock(held)  # it is held still, for all that it knows
        assert await broker.receive(queue, max_messages=1, max_wait=1.5) == []
        stats = await broker.stats(queue)
        assert (stats.ready, stats.locked) == (0, 0)


async def test_an_abandon_that_is_tried_again_does_not_double_the_message(broker, queue):
    await broker.send(queue, [Message(id="one")])
    held = await take(broker, queue)
    end = broker._holding._end

    async def cut_off(leases, words):
        for lease in leases:
            broker._holding._leases.hold(lease)
        raise BrokerUnavailableError("before the original was acknowledged")

    broker._holding._end = cut_off
    with pytest.raises(BrokerUnavailableError):
        await broker.abandon(held)
    broker._holding._end = end
    await broker.abandon(held)
    assert [(d.message.id, d.delivery_count) for d in await take(broker, queue)] == [("one", 2)]
    stats = await broker.stats(queue)
    assert (stats.ready, stats.locked) == (0, 1)


async def test_a_server_that_falls_silent_is_noticed_and_left(tmp_path):
    """Stopped, or behind a cut network: its connection looks well for very long."""
    server = NatsServer(tmp_path)
    server.start()
    try:
        async with open_broker(server.url) as broker:
            await broker.create_queue("q")
            server.pause(signal.SIGSTOP)
            with pytest.raises(BrokerUnavailableError, match="did not answer"):
                await broker.send("q", [Message()])

            async def is_left() -> bool:
                with pytest.raises(BrokerUnavailableError) as caught:
                    await broker.check()
                return "not connected" in str(caught.value)

            await eventually(is_left, within=15.0)
            server.pause(signal.SIGCONT)

            async def is_back() -> bool:
                try:
                    await broker.check()
                except BrokerUnavailableError:
                    return False
                return True

            await eventually(is_back, within=15.0)
    finally:
        server.stop()


async def test_tls_is_spoken_and_the_certificate_is_checked(tmp_path, certificate):
    file, key = certificate
    server = NatsServer(tmp_path, f'tls {{ cert_file: "{file}", key_file: "{key}" }}')
    server.start()
    url = server.url.replace("nats:", "tls:")
    try:
        await a_request_and_its_reply_travel(f"{url}?tls_ca={file}")
        with pytest.raises(BrokerUnavailableError, match=r"(?i)certificate"):
            await open_broker(url).open()
    finally:
        server.stop()


async def test_a_delay_is_kept_where_the_servers_clock_is_another(broker, queue, monkeypatch):
    wall = time.time
    monkeypatch.setattr(queues_module.time, "time", lambda: wall() - 3600.0)
    began = time.monotonic()
    await broker.send(queue, [Message()], delay=0.5)
    await take(broker, queue)
    assert 0.45 <= time.monotonic() - began < 60.0


async def test_a_delay_is_kept_when_our_own_clock_is_set(broker, queue, monkeypatch):
    await broker.send(queue, [Message()], delay=0.1)  # it knows the server's clock from here on
    held = await take(broker, queue)
    wall = time.time
    monkeypatch.setattr(queues_module.time, "time", lambda: wall() + 3600.0)
    began = time.monotonic()
    await broker.abandon(held, delay=0.5)
    await take(broker, queue)
    assert time.monotonic() - began >= 0.45


async def test_a_broker_that_nobody_receives_from_pulls_nothing(broker, queue, foreign):
    assert await broker.receive(queue, max_messages=1, max_wait=0.1) == []
    await eventually(lambda: broker._pullers[queue]._standing is None)
    await broker.check()  # and the server knows
    await broker.send(queue, [Message()])
    stream = f"dumbwaiter+{queue.replace('.', '=2e')}"
    consumers = (await api(foreign, f"CONSUMER.LIST.{stream}"))["consumers"]
    assert [consumer["delivered"]["consumer_seq"] for consumer in consumers] == [0, 0, 0, 0]


# --- examine ---


def found(findings, subject):
    return {(finding.level) for finding in findings if finding.subject == subject}


async def test_a_server_that_syncs_always_is_well(nats_server):
    async with open_broker(f"{nats_server.url}?monitor={nats_server.monitor}") as broker:
        assert isinstance(broker, NatsBroker)
        assert found(await broker.examine(), "durability") == {"ok"}


async def test_the_sync_interval_as_it_comes_is_a_danger(tmp_path):
    server = NatsServer(tmp_path, jetstream="max_file_store: 1GB")
    server.start()
    try:
        async with open_broker(f"{server.url}?monitor={server.monitor}") as broker:
            (finding,) = [one for one in await broker.examine() if one.subject == "durability"]
            assert (finding.level, "every 120 s" in finding.text) == ("danger", True)
            assert "sync_interval: always" in finding.remedy
        async with open_broker(server.url) as broker:  # nobody can read it without the monitoring port
            assert found(await broker.examine(), "durability") == {"warning"}
        async with open_broker(f"{server.url}?monitor=http://127.0.0.1:1") as broker:
            assert found(await broker.examine(), "durability") == {"warning"}
    finally:
        server.stop()


async def test_replicas_that_a_single_server_cannot_make_are_a_danger_and_no_promise(nats_server):
    async with open_broker(f"{nats_server.url}?replicas=3&prefix=alone") as broker:
        findings = await broker.examine()
        assert (found(findings, "replicas"), found(findings, "durability")) == ({"danger"}, {"warning"})
        with pytest.raises(ConfigError, match=r"in no cluster, and \?replicas=3"):
            await broker.create_queue("alone")
        with pytest.raises(BrokerUnavailableError, match="in no cluster"):
            await broker.check()


async def fill(broker, queue):
    while True:
        await broker.send(queue, [Message(body=bytes(20_000))])


async def test_a_server_that_stores_nothing_more_is_a_danger(tmp_path):
    server = NatsServer(tmp_path, jetstream="sync_interval: always, max_file_store: 3MB")
    server.start()
    try:
        async with open_broker(f"{server.url}?monitor={server.monitor}") as broker:
            await broker.create_queue("full")
            assert found(await broker.examine(), "writing") == {"ok"}
            with pytest.raises(BrokerUnavailableError, match="resources"):
                await fill(broker, "full")
            findings = await broker.examine()
            assert (found(findings, "writing"), "warning" in found(findings, "storage of the server")) == (
                {"danger"},
                True,
            )
    finally:
        server.stop()


async def test_a_password_for_the_monitoring_port_is_not_shown(nats_server):
    for monitor in ("http://user:hunter2@127.0.0.1:1", "http://user:hunter2/@h:1", "hunter2:x@h"):
        async with open_broker(f"{nats_server.url}?monitor={monitor}") as broker:
            (finding,) = [one for one in await broker.examine() if one.subject == "durability"]
            assert (finding.level, "hunter2" in finding.text + finding.remedy) == ("warning", False)


async def test_streams_that_lose_messages_are_a_danger(broker, queue, foreign):
    stream = f"dumbwaiter+{queue.replace('.', '=2e')}"
    assert found(await broker.examine(), f"stream {stream}") == set()
    assert found(await broker.examine(), "replicas") == {"note"}
    config = (await api(foreign, f"STREAM.INFO.{stream}"))["config"]
    answer = await api(foreign, f"STREAM.UPDATE.{stream}", config | {"max_msgs": 1000, "max_age": 3600 * 10**9})
    assert "error" not in answer
    texts = [one.text for one in await broker.examine() if one.level == "danger"]
    assert any("after 3600 s" in text for text in texts)
    assert any("oldest" in text for text in texts)


async def test_a_queue_whose_lock_is_longer_than_ours_is_noted(nats_server, broker, queue):
    async with open_broker(nats_server.url, lock_duration=5.0) as other:
        notes = [one.text for one in await other.examine() if one.subject == f"queue {queue}"]
        assert any("after 30 s" in note for note in notes)
