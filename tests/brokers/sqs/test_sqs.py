"""What the suite does not say: other producers, what others do to our queues, and where a process may die."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import msgspec
import pytest
from aiobotocore.session import get_session
from servers import SqsServer, free_port

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.findings import worst
from dumbwaiter.brokers.served import BAD_ENVELOPE
from dumbwaiter.brokers.sqs import inbox as inboxes
from dumbwaiter.brokers.sqs.wire import read
from dumbwaiter.errors import (
    BrokerClosedError,
    BrokerUnavailableError,
    InboxGoneError,
    LockLostError,
    MessageTooLargeError,
    QueueNotFoundError,
)
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def raw_client(emulator):
    """SQS as others use it."""
    endpoint = emulator.server.endpoint
    async with get_session().create_client("sqs", region_name="eu-central-1", endpoint_url=endpoint) as client:
        yield client


@pytest.fixture(params=["ministack", "moto"])
def emulator(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
async def broker(emulator):
    async with open_broker(emulator.url(prefix=f"p{secrets.token_hex(4)}")) as broker:
        await broker.create_queue("q")
        yield broker


@pytest.fixture
async def client(emulator):
    async with raw_client(emulator) as client:
        yield client


async def url_of(client, broker, suffix=""):
    prefix = broker.url.rpartition("prefix=")[2]
    return (await client.get_queue_url(QueueName=f"{prefix}_q{suffix}"))["QueueUrl"]


async def take(broker, count=1, queue="q"):
    deliveries = []
    while len(deliveries) < count:
        some = await broker.receive(queue, max_messages=count - len(deliveries), max_wait=10.0)
        assert some, f"only {len(deliveries)} of {count} messages came"
        deliveries += some
    return deliveries


# --- other producers ---


async def test_a_bare_body_of_another_producer_is_a_request(broker, client):
    sent = await client.send_message(QueueUrl=await url_of(client, broker), MessageBody='{"x": 1}')
    (delivery,) = await take(broker)
    assert (delivery.message.body, delivery.message.id) == (b'{"x": 1}', sent["MessageId"])
    await broker.complete([delivery])


async def test_a_producer_may_send_into_a_lane_of_priority(broker, client):
    await client.send_message(QueueUrl=await url_of(client, broker, "_low"), MessageBody="x")
    (delivery,) = await take(broker)
    await broker.abandon([delivery], counted=False)
    assert (await take(broker))[0].delivery_count == 1


async def test_an_envelope_that_cannot_be_read_becomes_a_dead_letter(broker, client):
    url = await url_of(client, broker)
    bad = {"priority": {"DataType": "String", "StringValue": "very"}}
    worse = {"cloudevents": {"DataType": "String", "StringValue": "{"}}
    await client.send_message(QueueUrl=url, MessageBody="bad", MessageAttributes=bad)
    await client.send_message(QueueUrl=url, MessageBody="worse", MessageAttributes=worse)
    await broker.send("q", [Message(body=b"good")])
    (delivery,) = await take(broker)
    assert delivery.message.body == b"good"

    async def both_are_dead() -> bool:
        assert await broker.receive("q", max_messages=10, max_wait=0.1) == []
        return (await broker.stats("q")).dead == 2

    await eventually(both_are_dead, within=10.0)
    letters = {letter.message.body: letter.reason for letter in await broker.dead_letters("q")}
    assert letters == {b"bad": BAD_ENVELOPE, b"worse": BAD_ENVELOPE}


async def test_an_envelope_that_cannot_be_dead_lettered_now_is_kept_and_costs_no_other(emulator, client, monkeypatch):
    async with open_broker(emulator.url(prefix=f"p{secrets.token_hex(4)}"), lock_duration=1.0) as broker:
        await broker.create_queue("q")
        url = await url_of(client, broker)
        bad = {"priority": {"DataType": "String", "StringValue": "very"}}
        await client.send_message(QueueUrl=url, MessageBody="bad", MessageAttributes=bad)
        await client.send_message(QueueUrl=url, MessageBody="good")
        came = []

        async def fails(*_, **__):
            raise BrokerUnavailableError("busy")

        async def good_came():
            with suppress(BrokerUnavailableError):  # the other one may come alone
                came.extend(await broker.receive("q", max_messages=2, max_wait=1.0))
            return came

        with monkeypatch.context() as patch:
            patch.setattr(broker._queues, "send", fails)
            await eventually(good_came, within=15.0)
        assert [one.message.body for one in came] == [b"good"]
        await broker.complete(came)

        async def is_buried():
            assert await broker.receive("q", max_messages=2, max_wait=2.0) == []
            return [letter.message.body for letter in await broker.dead_letters("q")] == [b"bad"]

        await eventually(is_buried, within=15.0)


async def test_what_cannot_be_read_is_never_copied_for_then_it_could_be(emulator, client):
    """Neither to hand back what came for nobody, nor to put off what has a due time that is far away."""
    async with open_broker(emulator.url(prefix=f"p{secrets.token_hex(4)}"), lock_duration=1.0) as broker:
        await broker.create_queue("q")
        url = await url_of(client, broker)
        bad = {"priority": {"DataType": "String", "StringValue": "very"}}
        await client.send_message(QueueUrl=url, MessageBody="bad", MessageAttributes=bad)
        got = await client.receive_message(
            QueueUrl=url, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"], VisibilityTimeout=30
        )
        await broker._holding.release(url, [read(one) for one in got["Messages"]])
        due = {"dumbwaiter.due": {"DataType": "Number", "StringValue": str(time.time() + 3600)}}
        await client.send_message(QueueUrl=url, MessageBody="late", MessageAttributes=bad | due)

        async def are_buried():
            assert await broker.receive("q", max_messages=2, max_wait=0.5) == []
            letters = await broker.dead_letters("q")
            return sorted((one.message.body, one.reason) for one in letters) == [
                (b"bad", BAD_ENVELOPE),
                (b"late", BAD_ENVELOPE),
            ]

        await eventually(are_buried, within=15.0)


async def test_other_consumers_find_the_text_as_it_is(broker, client):
    await broker.send("q", [Message(body='{"naïve": "☕"}'.encode())])
    got = await client.receive_message(QueueUrl=await url_of(client, broker), MessageAttributeNames=["All"])
    (message,) = got["Messages"]
    assert message["Body"] == '{"naïve": "☕"}'
    assert json.loads(message["MessageAttributes"]["cloudevents"]["StringValue"])["specversion"] == "1.0"


# --- what only copies can do ---


async def test_a_copy_whose_original_could_not_be_deleted_is_not_sent_again(broker, monkeypatch):
    await broker.send("q", [Message()])
    (delivery,) = await take(broker)
    real, calls = broker._api.batch, []

    async def fails_to_delete(verb, *arguments, **more):
        calls.append(verb)
        if verb == "delete_message_batch" and calls.count(verb) == 1:
            raise BrokerUnavailableError("cut off")
        return await real(verb, *arguments, **more)

    monkeypatch.setattr(broker._api, "batch", fails_to_delete)
    with pytest.raises(BrokerUnavailableError):
        await broker.dead_letter([delivery], reason="broken")
    await broker.dead_letter([delivery], reason="broken")
    assert calls.count("send_message_batch") == 1
    assert len(await broker.dead_letters("q")) == 1
    await _expect_counts(broker, dead=1)


async def test_what_may_be_completed_already_is_handed_back_without_a_copy(broker, monkeypatch):
    """A copy would bring it back for sure."""
    await broker.send("q", [Message()])
    (delivery,) = await take(broker)
    real = broker._api.batch

    async def loses_the_answer(verb, *arguments, **more):
        outcomes = await real(verb, *arguments, **more)
        if verb == "delete_message_batch":
            raise BrokerUnavailableError("the answer was lost")
        return outcomes

    monkeypatch.setattr(broker._api, "batch", loses_the_answer)
    with pytest.raises(BrokerUnavailableError):
        await broker.complete([delivery])
    monkeypatch.undo()
    with suppress(LockLostError):  # it is gone, as SQS says
        await broker.abandon([delivery], counted=False)
    await _expect_counts(broker)


async def test_a_delay_longer_than_sqs_keeps_goes_by_hops(broker, client, monkeypatch):
    await broker.send("q", [Message(id="far")], delay=3600.0)
    await _expect_counts(broker, delayed=1)
    # The first hop is over: SQS hands it out, an hour too early.
    url = await url_of(client, broker)
    due = {"dumbwaiter.due": {"DataType": "String", "StringValue": str(time.time() + 2.0)}}
    envelope = {"cloudevents": {"DataType": "String", "StringValue": '{"id": "near"}'}}
    count = {"dumbwaiter.count": {"DataType": "String", "StringValue": "4"}}
    early_at = time.time()
    await client.send_message(QueueUrl=url, MessageBody="x", MessageAttributes=due | envelope | count)
    (delivery,) = await take(broker)
    assert time.time() - early_at >= 1.4
    assert (delivery.message.id, delivery.delivery_count) == ("near", 5)


async def test_a_message_without_room_for_a_copy_is_handed_back_all_the_same(emulator, client):
    async with open_broker(emulator.url(prefix=f"p{secrets.token_hex(4)}")) as broker:
        await broker.create_queue("q")
        body = "x" * 262_144
        await client.send_message(QueueUrl=await url_of(client, broker), MessageBody=body)
        (delivery,) = await take(broker)
        await broker.abandon([delivery], counted=False)
        (delivery,) = await take(broker)
        assert delivery.message.body == body.encode()
        assert delivery.delivery_count == 2


async def test_a_message_that_sqs_hands_out_twice_at_once_is_one_delivery(broker, client):
    """As standard queues may do."""
    await broker.send("q", [Message()])
    (delivery,) = await take(broker)
    other = open_broker(broker.url)
    async with other:
        url = await url_of(client, broker)
        (lease,) = broker._holding._leases.find([delivery])[0]
        await client.change_message_visibility(QueueUrl=url, ReceiptHandle=lease.held.handle, VisibilityTimeout=0)
        assert await broker.receive("q", max_messages=1, max_wait=1.0) == []
        await broker.complete([delivery])
        await _expect_counts(broker)


# --- waiting ---


async def test_what_comes_for_somebody_who_has_left_goes_to_others_uncounted(emulator, broker):
    """Each of them still asks SQS, which gives the message to one after the other."""
    message = Message()
    async with AsyncExitStack() as stack:
        for _ in range(3):
            leaving = await stack.enter_async_context(open_broker(broker.url))
            receiving = asyncio.create_task(leaving.receive("q", max_messages=1, max_wait=60.0))
            await eventually(partial(_has_long_polls, leaving), within=10.0)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        await broker.send("q", [message])
        (delivery,) = await take(broker)
        assert (delivery.message, delivery.delivery_count) == (message, 1)
        await broker.complete([delivery])
        await _expect_counts(broker)


async def test_a_broker_that_is_closed_while_it_waits_takes_nothing_with_it(emulator, broker):
    async with open_broker(broker.url) as leaving:
        receiving = asyncio.create_task(leaving.receive("q", max_messages=1, max_wait=60.0))
        await eventually(partial(_has_long_polls, leaving), within=10.0)
    with pytest.raises(BrokerClosedError):
        await receiving
    await broker.send("q", [Message()])
    assert (await take(broker))[0].delivery_count == 1


async def test_a_close_ends_although_sqs_does_not_answer(emulator, monkeypatch):
    monkeypatch.setattr("dumbwaiter.brokers.polled._CLOSE_WITHIN", 0.3)
    async with open_broker(emulator.url(prefix=f"p{secrets.token_hex(4)}")) as broker:
        await broker.create_queue("q")
        await broker.send("q", [Message()])
        await take(broker)
        monkeypatch.setattr(broker._api, "batch", lambda *_, **__: asyncio.sleep(60.0))
        async with asyncio.timeout(10.0):
            await broker.close()


async def test_what_is_held_goes_back_although_an_inbox_cannot_be_deleted(emulator, broker, monkeypatch):
    monkeypatch.setattr("dumbwaiter.brokers.polled._CLOSE_WITHIN", 1.0)
    await broker.send("q", [Message()])
    async with open_broker(broker.url) as leaving:
        await leaving.open_inbox()
        await take(leaving)
        ask = leaving._api.ask

        async def ask_but_delete_nothing(verb, *given, **options):
            return await (asyncio.sleep(60.0) if verb == "delete_queue" else ask(verb, *given, **options))

        monkeypatch.setattr(leaving._api, "ask", ask_but_delete_nothing)
    assert (await take(broker))[0].delivery_count == 1


async def test_inboxes_that_were_closed_are_forgotten(broker):
    for _ in range(3):
        await (await broker.open_inbox()).close()
    assert len(broker._inboxes) == 1


# --- what others do to our queues ---


async def test_dead_letters_that_a_redrive_policy_moved_are_shown_and_redriven(broker, client):
    dead = await url_of(client, broker, "_dlq")
    await client.send_message(QueueUrl=dead, MessageBody="moved")
    (letter,) = await broker.dead_letters("q")
    assert (letter.message.body, letter.reason) == (b"moved", "unrecorded")
    assert await broker.redrive("q", [letter.key]) == 1
    assert (await take(broker))[0].message.body == b"moved"


async def test_many_dead_letters_are_read_page_by_page(broker):
    await broker.send("q", [Message(body=str(i).encode()) for i in range(35)])
    await broker.dead_letter(await take(broker, 35), reason="over")
    first = await broker.dead_letters("q", limit=20)
    rest = await broker.dead_letters("q", limit=20, after=first[-1].key)
    assert (len(first), len(rest)) == (20, 15)
    assert len({letter.key for letter in first + rest}) == 35
    assert await broker.purge("q") == 35


async def test_a_look_at_dead_letters_that_is_cancelled_hands_all_of_them_back(broker):
    """Whenever that is: also while SQS answers."""
    await broker.send("q", [Message() for _ in range(5)])
    await broker.dead_letter(await take(broker, 5), reason="over")
    for pause in (0.0, 0.002, 0.004, 0.006, 0.01, 0.02, 0.3):
        looking = asyncio.create_task(broker.dead_letters("q"))
        await asyncio.sleep(pause)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    assert len(await broker.dead_letters("q")) == 5


async def test_a_queue_that_takes_less_than_others_refuses_a_large_message(broker, client):
    url = await url_of(client, broker)
    await client.set_queue_attributes(QueueUrl=url, Attributes={"MaximumMessageSize": "2048"})
    with pytest.raises(MessageTooLargeError) as caught:
        await broker.send("q", [Message(body=b"x" * 5000)])
    assert caught.value.limit == 2048


async def test_a_new_queue_keeps_messages_for_as_long_as_sqs_can(broker, client):
    for suffix in ("", "_high", "_low", "_dlq"):
        url = await url_of(client, broker, suffix)
        got = await client.get_queue_attributes(QueueUrl=url, AttributeNames=["MessageRetentionPeriod"])
        assert got["Attributes"]["MessageRetentionPeriod"] == "1209600"
        assert (await client.list_queue_tags(QueueUrl=url))["Tags"] == {"dumbwaiter:queue": "q"}


async def test_a_queue_that_somebody_made_keeps_its_settings(broker, client):
    url = await url_of(client, broker)
    await client.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "600000"})
    await broker.create_queue("q")
    got = await client.get_queue_attributes(QueueUrl=url, AttributeNames=["MessageRetentionPeriod"])
    assert got["Attributes"]["MessageRetentionPeriod"] == "600000"


async def test_names_that_had_to_be_cut_are_listed_whole(broker):
    names = [f"{'long-' * 15}{i}" for i in range(3)]
    for name in names:
        await broker.create_queue(name)
    assert await broker.queues() == sorted([*names, "q"])


# --- findings ---


async def test_a_queue_of_our_own_gives_no_warning(broker):
    findings = await broker.examine()
    assert worst(findings) in {"ok", "note"}, findings


async def test_what_would_lose_messages_is_a_danger(broker, client):
    dead, url = await url_of(client, broker, "_dlq"), await url_of(client, broker)
    arn = (await client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"]))["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "3"})
    await client.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    await client.set_queue_attributes(QueueUrl=dead, Attributes={"MessageRetentionPeriod": "3600"})
    by_level = {finding.level: finding for finding in await broker.examine()}
    assert "redrive policy" in by_level["danger"].text
    assert "RedrivePolicy=" in by_level["danger"].remedy
    assert "1 h" in by_level["warning"].text
    assert worst(await broker.examine(longest_run=50_000.0)) == "danger"


async def test_a_fifo_queue_under_our_prefix_is_named(broker, client):
    prefix = broker.url.rpartition("prefix=")[2]
    await client.create_queue(QueueName=f"{prefix}_x.fifo", Attributes={"FifoQueue": "true"})
    assert await broker.queues() == ["q"]
    assert any("FIFO" in finding.text and finding.level == "warning" for finding in await broker.examine())


async def test_small_things_are_notes(broker, client):
    url = await url_of(client, broker)
    attributes = {"VisibilityTimeout": "5", "DelaySeconds": "7", "KmsMasterKeyId": "alias/ours"}
    await client.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    texts = [finding.text for finding in await broker.examine() if finding.level == "note"]
    for word in ("5 s", "7 s", "kms:Decrypt"):
        assert any(word in text for text in texts), texts
    await broker.send("q", [Message()])
    await _expect_counts(broker, ready=1)  # ours say that they do not wait


# --- inboxes ---


async def test_an_inbox_whose_owner_died_is_swept_and_no_other(broker, client, monkeypatch):
    prefix = broker.url.rpartition("prefix=")[2]
    old, fresh, other = (f"{prefix}__{secrets.token_hex(16)}" for _ in range(3))
    long_ago = str(int(time.time() - inboxes.SWEPT_AFTER - 10))
    await client.create_queue(QueueName=old, tags={inboxes.SEEN_TAG: long_ago})
    await client.create_queue(QueueName=fresh, tags={inboxes.SEEN_TAG: str(int(time.time()))})
    await client.create_queue(QueueName=other)
    mine = await broker.open_inbox()

    async def is_swept() -> bool:
        listed = await client.list_queues(QueueNamePrefix=f"{prefix}__")
        names = {url.rpartition("/")[2] for url in listed["QueueUrls"]}
        assert names == {fresh, other, mine.address}
        return True

    await eventually(is_swept, within=10.0)


async def test_an_inbox_gives_a_sign_of_life_now_and_then_so_that_nobody_sweeps_it(broker, client, monkeypatch):
    monkeypatch.setattr(inboxes, "SIGN_EVERY", 0.1)
    inbox = await broker.open_inbox()
    url = (await client.get_queue_url(QueueName=inbox.address))["QueueUrl"]
    await client.tag_queue(QueueUrl=url, Tags={inboxes.SEEN_TAG: "1"})

    async def is_signed() -> bool:
        seen = (await client.list_queue_tags(QueueUrl=url))["Tags"][inboxes.SEEN_TAG]
        return not inboxes.is_abandoned(seen, time.time())

    await eventually(is_signed)


async def test_an_inbox_is_gone_with_its_owner(broker, client):
    inbox = await broker.open_inbox()
    await inbox.close()
    with pytest.raises(client.exceptions.QueueDoesNotExist):
        await client.get_queue_url(QueueName=inbox.address)
    with pytest.raises(InboxGoneError):
        await broker.reply(inbox.address, [Message()])


async def test_a_reply_goes_to_no_queue_that_is_no_inbox(broker):
    """Whoever asks writes the address."""
    prefix = broker.url.rpartition("prefix=")[2]
    for address in (f"{prefix}_q", "other__" + "0" * 32, "", "http://127.0.0.1/"):
        with pytest.raises(InboxGoneError):
            await broker.reply(address, [Message()])
    await _expect_counts(broker)


# --- servers that are not as they should be ---


async def test_a_server_that_lost_everything_has_no_queue_until_it_is_created_again(tmp_path):
    server = SqsServer("ministack", tmp_path)
    server.start()
    try:
        async with open_broker(f"sqs://eu-central-1?endpoint={server.endpoint}") as broker:
            await broker.create_queue("q")
            await broker.send("q", [Message()])
            (held,) = await take(broker)
            await asyncio.to_thread(server.stop)
            with pytest.raises(BrokerUnavailableError):
                await broker.send("q", [Message()])
            await asyncio.to_thread(server.start)
            with pytest.raises(QueueNotFoundError):
                await broker.send("q", [Message()])
            await broker.create_queue("q")
            await broker.send("q", [Message()])
            with pytest.raises(LockLostError):
                await broker.renew_lock([held])
            await broker.complete(await take(broker))
    finally:
        server.stop()


async def test_a_server_that_is_not_there_is_named_without_the_options():
    broker = open_broker(f"sqs://eu-central-1?endpoint=http://127.0.0.1:{free_port()}")
    with pytest.raises(BrokerUnavailableError, match="cannot reach sqs://eu-central-1"):
        await broker.open()


async def test_without_credentials_it_is_said_where_they_are_looked_for(emulator, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(BrokerUnavailableError, match="AWS_ACCESS_KEY_ID"):
        await open_broker(emulator.url()).open()


async def test_without_a_region_it_is_said_how_to_name_one(monkeypatch):
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(BrokerUnavailableError, match="sqs://eu-central-1"):
        await open_broker("sqs://?endpoint=http://127.0.0.1:1").open()


async def test_a_right_that_is_missing_is_named():
    """No emulator knows of rights, so this is answered as SQS does."""
    async with refusing_server() as port:
        with pytest.raises(BrokerUnavailableError, match="sqs:GetQueueUrl"):
            await open_broker(f"sqs://eu-central-1?endpoint=http://127.0.0.1:{port}").open()


async def test_an_examination_tells_of_rights_that_are_missing():
    async with refusing_server(only=b"ListQueues") as port:
        broker = open_broker(f"sqs://eu-central-1?endpoint=http://127.0.0.1:{port}")
        async with broker:
            (finding,) = [finding for finding in await broker.examine() if finding.subject == "rights"]
    assert finding.level == "warning"
    assert "sqs:ListQueues" in finding.text
    assert "sqs:ListQueues" in finding.remedy


@asynccontextmanager
async def refusing_server(only=b""):
    """Answers AccessDenied to each request whose target ends so, and QueueDoesNotExist to the others."""

    async def answer(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            await reader.readexactly(int(lines[b"content-length"]))
            is_refused = lines[b"x-amz-target"].endswith(only.lower())
            code = b"AccessDeniedException" if is_refused else b"com.amazonaws.sqs#QueueDoesNotExist"
            body = b'{"__type": "%s", "message": "no"}' % code
            kind = b"Content-Type: application/x-amz-json-1.0"
            writer.write(b"HTTP/1.1 400 Bad\r\n%s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(body), body))
            await writer.drain()

    async def quietly(reader, writer):
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(quietly, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _has_long_polls(broker):
    return "q" in broker._receptions and len(broker._receptions["q"].polls) == 3


async def _expect_counts(broker, **counts):
    async def as_expected() -> bool:
        stats = await broker.stats("q")
        found = {name: getattr(stats, name) for name in ("ready", "locked", "delayed", "dead")}
        assert found == {"ready": 0, "locked": 0, "delayed": 0, "dead": 0} | counts
        return True

    await eventually(as_expected, within=10.0)


async def test_a_claim_is_used_for_a_queue_of_its_own_alone(broker):
    """What was written down may have been changed by somebody."""
    await broker.create_queue("other")
    await broker.send("q", [Message()])
    (held,) = await take(broker)
    claim = broker.claim_of(held)
    url, _, handle = claim.token.partition(" ")
    for token in (f"http://127.0.0.1:9/elsewhere {handle}", url, handle, f"{url} "):
        assert await broker.take_back([msgspec.structs.replace(claim, token=token)]) == 0
    assert await broker.take_back([msgspec.structs.replace(claim, queue="other")]) == 0
    await broker.complete(await broker.renew_lock([held]))
