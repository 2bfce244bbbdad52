"""Producers that write what no client can read, or more than fits: none of it costs another's message."""

from __future__ import annotations

import secrets
import struct
from contextlib import contextmanager
from datetime import UTC, datetime

import aiormq
import pamqp.encode
import pytest
from pamqp.commands import Basic

from dumbwaiter.brokers import open_broker
from dumbwaiter.message import Message

pytestmark = pytest.mark.anyio


@pytest.fixture
async def broker(server):
    async with open_broker(f"{server.url}?prefix=t{secrets.token_hex(6)}") as broker:
        await broker.create_queue("resnet")
        await broker.create_queue("other")
        yield broker


@pytest.fixture
async def channel(server):
    connection = await aiormq.connect(server.url)
    yield await connection.channel()
    await connection.close()


async def publish(channel, broker, body=b"", **properties):
    properties = Basic.Properties(delivery_mode=2, **properties)
    await channel.basic_publish(body, routing_key=f"{broker._prefix}.resnet", properties=properties, mandatory=True)


async def take(broker, count=1, queue="resnet"):
    taken = []
    while len(taken) < count:
        some = await broker.receive(queue, max_messages=count - len(taken), max_wait=10.0)
        assert some
        taken += some
    return taken


@contextmanager
def written_as(kind, raw):
    """Within it the library writes values of that *kind* as *raw*, where they say so."""
    strict = pamqp.encode.METHODS[kind]
    pamqp.encode.METHODS[kind] = lambda value: raw if value in ("EVIL", EVIL) else strict(value)
    try:
        yield
    finally:
        pamqp.encode.METHODS[kind] = strict


EVIL = datetime(1999, 9, 9, tzinfo=UTC)
UNREADABLE = {
    "microseconds": ("timestamp", struct.pack(">Q", 1_732_579_200_000_000), {"timestamp": EVIL}),
    "nanoseconds": ("timestamp", struct.pack(">Q", 1_732_579_200_000_000_000), {"timestamp": EVIL}),
    "negative": ("timestamp", b"\xff" * 8, {"timestamp": EVIL}),
    "id": ("shortstr", b"\x04\xff\xfe\xfd\xfc", {"message_id": "EVIL"}),
    "reply_to": ("shortstr", b"\x02\xff\xfe", {"reply_to": "EVIL", "message_id": "m"}),
    "header's name": ("table", b"\0\0\0\x07\x01\xffS\0\0\0\x00", {"headers": "EVIL"}),
    "header's timestamp": ("table", b"\0\0\0\x0b\x01aT" + b"\x7f" * 8, {"headers": "EVIL"}),
    "depth": ("table", b"", {"headers": "EVIL"}),
}


def nested(depth):
    """A table in a table, and so on."""
    table = b"\0\0\0\0"
    for _ in range(depth):
        entry = b"\x01aF" + table
        table = struct.pack(">I", len(entry)) + entry
    return table


@pytest.mark.parametrize("case", UNREADABLE)
async def test_properties_that_nobody_can_decode_make_one_dead_letter_and_no_lost_connection(broker, channel, case):
    kind, raw, properties = UNREADABLE[case]
    await broker.send("other", [Message(id="held")])
    held = await take(broker, queue="other")
    with written_as(kind, raw or nested(3_000)):
        await publish(channel, broker, b"evil", **properties)
    await broker.send("resnet", [Message(id="good", body=b"ok")])
    assert [(one.message.id, one.message.body) for one in await take(broker)] == [("good", b"ok")]
    (letter,) = await broker.dead_letters("resnet")
    assert (letter.reason, letter.message.body, letter.delivery_count) == ("bad-envelope", b"evil", 1)
    assert next(iter(properties)) in letter.detail
    assert await broker.renew_lock(held)  # nothing was lost beside it
    await broker.complete(held)
    assert await broker.purge("resnet") == 1


async def test_headers_near_the_limit_leave_room_for_a_verdict(broker, channel):
    long = {"tenant": "acme", "y": "b" * 110_000}
    await publish(channel, broker, b"evil", headers=long, message_id="long")
    await broker.dead_letter(await take(broker), reason="r" * 5_000, detail="t" * 40_000 + "the end")
    (letter,) = await broker.dead_letters("resnet")
    assert (letter.message.id, letter.message.tenant, len(letter.message.extensions["y"])) == ("long", "acme", 110_000)
    assert letter.detail.startswith("[...] ")
    assert letter.detail.endswith("the end")
    assert await broker.redrive("resnet") == 1
    assert (await take(broker))[0].message.extensions["y"] == "b" * 110_000


@pytest.mark.parametrize("headers", [{"priority": "junk"}, {"deadline": "soon", **{f"h{n}": n for n in range(500)}}])
async def test_headers_that_leave_no_room_go_and_the_body_is_buried(broker, channel, headers):
    others = Basic.Properties(headers=headers, message_id="evil", delivery_mode=2)
    long = "b" * (128 * 1024 - 40 - len(others.marshal()))
    await publish(channel, broker, b"evil", headers={**headers, "y": long}, message_id="evil")
    await broker.send("resnet", [Message(id="good")])
    assert [one.message.id for one in await take(broker)] == ["good"]
    (letter,) = await broker.dead_letters("resnet")
    assert (letter.reason, letter.message.body, letter.message.id) == ("bad-envelope", b"evil", "evil")
    assert letter.detail.endswith("1 headers were too long, or too odd, to be kept: y)")


@pytest.mark.parametrize("how", [{"delay": 0.1}, {"counted": False}, {}], ids=["later", "uncounted", "now"])
async def test_a_message_whose_headers_leave_no_room_is_handed_back_by_the_server(broker, channel, how):
    headers = {"y": "b" * 130_000}
    await publish(channel, broker, b"long", headers=headers, message_id="long")
    await broker.send("resnet", [Message(id="short")])
    await broker.abandon(await take(broker, 2), **how)
    came = await take(broker, 2)
    assert {one.message.id for one in came} == {"long", "short"}
    assert len(next(one for one in came if one.message.id == "long").message.extensions["y"]) == 130_000


@pytest.mark.parametrize("how", [{"delay": 0.1}, {"counted": False}])
async def test_a_header_that_is_not_utf_8_can_be_copied(broker, channel, how):
    with written_as("table", b"\0\0\0\x09\x01aS\0\0\0\x02\xff\xfe"):
        await publish(channel, broker, b"odd", headers="EVIL", message_id="odd")
    await broker.abandon(await take(broker), **how)
    (delivery,) = await take(broker)
    assert (delivery.message.extensions, delivery.delivery_count) == ({"a": "\ufffd\ufffd"}, 1 + how.get("counted", 1))
    await broker.dead_letter([delivery], reason="odd")
    (letter,) = await broker.dead_letters("resnet")
    assert (letter.message, letter.detail) == (delivery.message, "")
    assert await broker.redrive("resnet") == 1
    assert (await take(broker))[0].message == delivery.message


async def test_what_cannot_be_read_does_no_harm_in_an_inbox(server, broker, channel):
    inbox = await broker.open_inbox()
    with written_as("timestamp", struct.pack(">Q", 2**62)):
        properties = Basic.Properties(timestamp=EVIL, correlation_id="c")
        await channel.basic_publish(b"odd", routing_key=inbox.address, properties=properties)
    (reply,) = await inbox.receive(max_messages=1, max_wait=5.0)
    assert (reply.correlation_id, reply.body) == ("c", b"odd")
