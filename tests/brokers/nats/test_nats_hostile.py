"""Producers and servers that write what they please: none of it costs another's message, or tells a password."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets

import pytest
from servers import NatsServer

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.nats import queues
from dumbwaiter.errors import BrokerUnavailableError, LockLostError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def queue(broker):
    queue = f"hostile-{secrets.token_hex(4)}"
    await broker.create_queue(queue)
    return queue


async def take(broker, queue, count=1):
    deliveries = []
    while len(deliveries) < count:
        some = await broker.receive(queue, max_messages=count - len(deliveries), max_wait=5.0)
        assert some
        deliveries += some
    return deliveries


async def api(client, subject, request=None):
    answer = await client.request(f"$JS.API.{subject}", json.dumps(request).encode() if request else b"")
    return json.loads(answer.data)


# --- streams ---


@pytest.mark.parametrize("verb", ["complete", "abandon", "dead_letter", "renew_lock"])
async def test_a_holder_of_a_stream_that_was_made_anew_settles_nothing_of_it(
    nats_server, broker, queue, foreign, verb, monkeypatch
):
    monkeypatch.setattr(queues, "_MADE_SECONDS", 0.0)  # as if it had been stopped for a while
    await broker.send(queue, [Message(id="old")])
    (old,) = await take(broker, queue)
    for name in (f"dumbwaiter+{queue}", f"dumbwaiter+{queue}+dead"):
        assert (await api(foreign, f"STREAM.DELETE.{name}"))["success"]
    async with open_broker(nats_server.url) as other:
        await other.create_queue(queue)
        await other.send(queue, [Message(id="new")])
        (new,) = await take(other, queue)
        assert new.message.id == "new"
        more = {"reason": "bad"} if verb == "dead_letter" else {}
        with pytest.raises(LockLostError):
            await getattr(broker, verb)([old], **more)
        stats = await other.stats(queue)
        assert (stats.ready, stats.locked, stats.dead) == (0, 1, 0)
        await other.complete([new])


# --- messages ---


async def test_an_unreadable_message_of_the_largest_size_is_buried_and_costs_no_other(broker, queue, foreign):
    body = bytes(1_000_000)
    headers = {"ce-priority": "junk", "ce-x": '"' * 30_000, "ce-id": "evil"}
    await foreign.jetstream().publish(f"dumbwaiter.normal.{queue}", body, headers=headers)
    await broker.send(queue, [Message(id=f"good{place}", body=b"important") for place in range(20)])
    came = await take(broker, queue, 20)
    assert [(one.message.id, one.message.body) for one in came] == [(f"good{n}", b"important") for n in range(20)]
    (letter,) = await broker.dead_letters(queue)
    assert (letter.reason, letter.message.body) == ("bad-envelope", body)
    assert "priority" in letter.detail


async def test_a_message_whose_attributes_grow_on_the_way_can_be_dead_lettered(broker, queue, foreign):
    headers = {"ce-x": '"' * 40_000, "ce-id": "one", "ce-tenant": "acme"}
    await foreign.jetstream().publish(f"dumbwaiter.normal.{queue}", bytes(1_000_000), headers=headers)
    await broker.abandon(await take(broker, queue), counted=False)
    await broker.dead_letter(await take(broker, queue), reason="model-error", detail="t" * 9_000)
    (letter,) = await broker.dead_letters(queue)
    assert (letter.message.id, letter.message.tenant, len(letter.message.body)) == ("one", "acme", 1_000_000)
    assert letter.detail.endswith("tt\n(1 attributes were too long to be kept: x)")


async def test_messages_beside_one_that_cannot_be_buried_for_long_arrive_whole(nats_server, broker, queue, foreign):
    stream = f"dumbwaiter+{queue}+dead"
    config = (await api(foreign, f"STREAM.INFO.{stream}"))["config"]
    full = config | {"max_msgs": 1, "discard": "new"}
    assert "error" not in await api(foreign, f"STREAM.UPDATE.{stream}", full)
    await foreign.jetstream().publish(f"dumbwaiter.dead.{queue}", b"fills it")
    await foreign.jetstream().publish(f"dumbwaiter.normal.{queue}", b"bad", headers={"ce-priority": "junk"})
    sent = [Message(id=f"good{place}", body=b"important %d" % place) for place in range(5)]
    await broker.send(queue, sent)
    async with open_broker(nats_server.url, lock_duration=0.6) as receiver:
        came = []

        async def all_came():
            with contextlib.suppress(BrokerUnavailableError):
                some = await receiver.receive(queue, max_messages=10, max_wait=0.2)
                came.extend((one.message.id, one.message.body) for one in some)
                await receiver.complete(some)
            return len(came) >= len(sent)

        await eventually(all_came, within=15.0)
        assert sorted(came) == [(one.id, one.body) for one in sent]
        assert "error" not in await api(foreign, f"STREAM.UPDATE.{stream}", config | {"max_msgs": -1})

        async def is_buried():
            assert await receiver.receive(queue, max_messages=10, max_wait=0.2) == []
            return [one.message.body for one in await receiver.dead_letters(queue)] == [b"fills it", b"bad"]

        await eventually(is_buried, within=15.0)


async def test_nobody_can_know_the_ids_of_the_copies_that_we_make(broker, queue, foreign):
    """The server drops a message whose id it has had: such a copy would be lost, and its original acknowledged."""
    stream = foreign.jetstream()
    ids: list[str] = []

    async def note(message):
        ids.append(message.headers.get("Nats-Msg-Id"))

    for subject in (f"dumbwaiter.again.{queue}", f"dumbwaiter.dead.{queue}", f"dumbwaiter.normal.{queue}"):
        await foreign.subscribe(subject, cb=note)
    await foreign.flush()
    messages = [Message(id=f"m{place}") for place in range(3)]
    await broker.send(queue, messages)
    for sequence in range(1, 40):
        guess = {"Nats-Msg-Id": f"%again:{sequence}:1", "ce-id": "evil"}
        await stream.publish(f"dumbwaiter.low.{queue}", b"", headers=guess)
    await broker.abandon(await take(broker, queue, 3))
    came = await take(broker, queue, 3)
    assert {one.message.id for one in came} == {one.id for one in messages}
    await broker.dead_letter(came, reason="tried")
    for letter in await broker.dead_letters(queue):
        guess = {"Nats-Msg-Id": f"%redrive:{letter.key}:{letter.dead_at:.6f}", "ce-id": "evil"}
        await stream.publish(f"dumbwaiter.low.{queue}", b"", headers=guess)
    assert await broker.redrive(queue) == 3
    assert {one.message.id for one in await take(broker, queue, 3)} == {one.id for one in messages}
    own = [one for one in ids if one and one.startswith("%")]
    assert len(set(own)) == len(own) == 9
    assert all(len(one.partition(":")[2]) == 32 for one in own)


# --- servers ---


class Greeter:
    """Says *greeting* to whoever connects, and keeps what it is told."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self.heard = b""

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.place = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        writer.write(self._greeting)
        while heard := await reader.read(4096):
            self.heard += heard
            writer.write(b"PONG\r\n")
        writer.close()


def greeting_of(**info) -> bytes:
    said = {"server_id": "x", "version": "2.12.1", "max_payload": 1048576, "headers": True, "auth_required": True}
    return b"INFO " + json.dumps(said | info).encode() + b"\r\n"


@pytest.mark.parametrize("url", ["tls://u:s3cr3t@{}", "tls://s3cr3t@{}", "nats://u:s3cr3t@{}?tls_ca={ca}"])
async def test_a_password_meant_for_tls_is_never_sent_in_plain_text(url, certificate):
    async with Greeter(greeting_of()) as server:
        with pytest.raises(BrokerUnavailableError, match="speaks no TLS") as caught:
            await open_broker(url.format(server.place, ca=certificate[0])).open()
        assert "s3cr3t" not in str(caught.value)
        assert server.heard == b""


async def test_a_server_that_leaves_tls_to_its_clients_is_spoken_to_by_tls(tmp_path, certificate):
    file, key = certificate
    server = NatsServer(tmp_path, "allow_non_tls: true", f'tls {{ cert_file: "{file}", key_file: "{key}" }}')
    server.start()
    try:
        async with open_broker(f"{server.url.replace('nats:', 'tls:')}?tls_ca={file}") as broker:
            assert broker._link.client._transport.at_eof() is False
            assert type(broker._link.client._transport._io_writer.get_extra_info("ssl_object")).__name__ == "SSLObject"
    finally:
        server.stop()


@pytest.mark.parametrize(
    "greeting",
    [
        b"INFO [1]\r\n",
        b"INFO 7\r\n",
        b"INFO {\r\n",
        b"INFO {}\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        greeting_of(version="new"),
        greeting_of(version=None),
        greeting_of(max_payload="much"),
        greeting_of(connect_urls=7),
    ],
)
async def test_what_does_not_greet_as_nats_does_is_refused(greeting):
    async with Greeter(greeting) as server:
        with pytest.raises(BrokerUnavailableError, match="cannot connect"):
            await open_broker(f"nats://u:s3cr3t@{server.place}").open()
        assert server.heard == b""
