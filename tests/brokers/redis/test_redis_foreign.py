"""What others do to a queue's keys costs its own messages nothing: fields without end, lost groups and lanes, junk."""

from __future__ import annotations

import asyncio

import pytest
from servers import NatsServer, RedisServer, redis_program

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.redis.keys import GROUP, MOST_ATTRIBUTES, WAKE_GROUP
from dumbwaiter.cli import main
from dumbwaiter.errors import BadInputError, BrokerUnavailableError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


def lanes(queue):
    return [f"dumbwaiter:{{{queue}}}{lane}" for lane in ("", ":high", ":low")]


async def taken(broker, queue, count=10, max_wait=5.0):
    return await broker.receive(queue, max_messages=count, max_wait=max_wait)


async def counts(broker, queue):
    stats = await broker.stats(queue)
    return stats.ready, stats.locked, stats.delayed, stats.dead


async def filled(broker, queue, nbytes):
    """Send until it is refused."""
    for _ in range(10_000):
        await broker.send(queue, [Message(body=b"x" * nbytes)])


@pytest.mark.parametrize("number", [MOST_ATTRIBUTES + 1, 3_949, 3_951, 5_000])
@pytest.mark.parametrize("body", [True, False])
async def test_an_entry_with_fields_without_end_is_buried_with_its_body_alone(broker, producer, queue, number, body):
    await broker.create_queue(queue)
    first = ["body", "hello"] if body else ["payload", "hello"]
    fields = [part for i in range(number) for part in (f"ce-x{i}", "v")]
    await producer.execute_command("XADD", lanes(queue)[0], "*", *first, *fields)
    await broker.send(queue, [Message(id="innocent")])
    (delivery,) = await taken(broker, queue)
    assert delivery.message.id == "innocent"
    await broker.complete([delivery])
    (letter,) = await broker.dead_letters(queue)
    assert (letter.reason, letter.message.body) == ("bad-envelope", b"hello")
    assert f"{number} attributes, and at most {MOST_ATTRIBUTES}" in letter.detail
    assert await counts(broker, queue) == (0, 0, 0, 1)
    await broker.redrive(queue)
    assert await broker.purge(queue) == 0


async def test_what_cannot_be_handed_on_is_not_sent(broker, queue):
    await broker.create_queue(queue)
    many = {f"x{i}": "v" for i in range(MOST_ATTRIBUTES + 1)}
    with pytest.raises(BadInputError, match=f"at most {MOST_ATTRIBUTES}"):
        await broker.send(queue, [Message(id="one"), Message(id="many", extensions=many)])
    assert await counts(broker, queue) == (0, 0, 0, 0)


async def test_a_dead_letter_that_somebody_else_wrote_with_fields_without_end_is_redriven(broker, producer, queue):
    await broker.create_queue(queue)
    fields = [part for i in range(5_000) for part in (f"ce-x{i}", "v")]
    key = await producer.execute_command("XADD", f"{lanes(queue)[0]}:dead", "*", "body", "hello", *fields)
    assert await broker.redrive(queue, [key.decode()]) == 1
    (delivery,) = await taken(broker, queue)
    assert delivery.message.body == b"hello"


@pytest.mark.parametrize("group", [GROUP, WAKE_GROUP])
@pytest.mark.parametrize("waits", [False, True])
async def test_a_group_that_was_destroyed_is_made_again_and_nothing_is_stranded(broker, producer, queue, group, waits):
    await broker.create_queue(queue)
    await broker.send(queue, [Message(id="before"), Message(id="high", priority=9)])
    waiting = asyncio.create_task(taken(broker, f"{queue}-2")) if waits else None
    for lane in lanes(queue):
        await producer.xgroup_destroy(lane, group)
    await broker.send(queue, [Message(id="after")])
    ids = set()
    while len(ids) < 3:
        deliveries = await taken(broker, queue)
        await broker.complete(deliveries)
        ids |= {one.message.id for one in deliveries}
    assert ids == {"before", "high", "after"}
    assert await counts(broker, queue) == (0, 0, 0, 0)
    if waiting is not None:
        waiting.cancel()


async def test_one_who_waits_while_the_groups_are_destroyed_gets_what_comes(server, broker, producer, queue):
    await broker.create_queue(queue)
    waiting = asyncio.create_task(taken(broker, queue, max_wait=20.0))

    async def is_blocked():
        return any(client["flags"] == "b" for client in await producer.client_list())

    await eventually(is_blocked)
    for lane in (*lanes(queue), f"{lanes(queue)[0]}:bell"):
        for group in (GROUP, WAKE_GROUP):
            await producer.xgroup_destroy(lane, group)
    await broker.send(queue, [Message(id="one")])
    assert [one.message.id for one in await asyncio.wait_for(waiting, 10)] == ["one"]


async def test_what_was_held_when_the_groups_were_destroyed_comes_again(broker, producer, queue):
    await broker.create_queue(queue)
    await broker.send(queue, [Message(id=f"m{i}") for i in range(4)])
    held = await taken(broker, queue)
    for lane in lanes(queue):
        await producer.xgroup_destroy(lane, GROUP)
    await broker.complete(held[:1])
    await broker.dead_letter(held[1:2], reason="bad")
    await broker.abandon(held[2:], counted=True)
    again = await taken(broker, queue)
    assert {one.message.id for one in again} >= {"m2", "m3"}
    await broker.complete(again)
    assert (await counts(broker, queue))[3] == 1


async def test_ids_of_a_lane_that_is_gone_keep_nobody_from_sending_them_again(broker, producer, queue):
    await broker.create_queue(queue)
    messages = [Message(id=f"m{i}") for i in range(5)]
    await broker.send(queue, messages)
    await producer.delete(lanes(queue)[0])
    await broker.create_queue(queue)
    await broker.send(queue, messages)
    assert len(await taken(broker, queue)) == 5
    await broker.create_queue(queue)
    await broker.send(queue, messages)
    assert (await counts(broker, queue))[0] == 0, "a queue that is there keeps them out"


async def test_what_is_registered_and_no_queue_is_passed_over_and_named_by_doctor(server, producer, queue):
    async with open_broker(f"{server.url}?prefix={queue}") as broker:
        for name in ("here", "gone"):
            await broker.create_queue(name)
        await producer.delete(*await producer.keys(f"{queue}:{{gone}}*"))
        await producer.sadd(f"{queue}:queues", b"\xff\xfe", "../evil\x1b[31m")
        assert await broker.queues() == ["here"]
        named = [one for one in await broker.examine() if one.subject == "registry"]
    assert [one.level for one in named] == ["note"] * 3
    assert any("'gone' is registered" in one.text for one in named)
    assert any(f'SREM {queue}:queues "gone"' == one.remedy for one in named)
    assert "\x1b" not in "".join(one.text + one.remedy for one in named)


async def test_junk_beside_the_lanes_stops_nobody(broker, producer, queue):
    await broker.create_queue(queue)
    base = lanes(queue)[0]
    ghost = f"1|{1:020d}-{1:020d}|-"
    await producer.zadd(f"{base}:locks", {"junk": 0, "1|abc": 0, "1|x|y": 9e15})
    await producer.zadd(f"{base}:back", {"1|zzz": 0, ghost: 0, "2|": 0})
    await producer.zadd(f"{base}:later", {"d|x": 0, "d|y": 0, "d|z": 0, "d|": 0, "junk": 0})
    await producer.hset(f"{base}:scheduled", mapping={"x": b"no msgpack", "y": b"\x01", "z": b"\x92\x07\xa1a"})
    await producer.xadd(f"{base}:dead", {"x": "y"}, id="1-1")
    await producer.hset(f"{base}:why", "1-1", b"1\xff junk")
    await broker.send(queue, [Message(id="good"), Message(id="later")], delay=0.0)
    for _ in range(3):
        await broker.stats(queue)
    deliveries = await taken(broker, queue)
    assert {one.message.id for one in deliveries} == {"good", "later"}
    await broker.abandon(deliveries)
    await broker.complete(await taken(broker, queue))
    assert await taken(broker, queue, max_wait=0.1) == []
    (letter,) = await broker.dead_letters(queue)
    assert (letter.reason, letter.message.body) == ("unrecorded", b"y")


@pytest.fixture(scope="module")
def small_server(tmp_path_factory):
    server = RedisServer(redis_program(), tmp_path_factory.mktemp("small"), "--maxmemory", "8mb")
    server.start()
    yield server
    server.stop()


async def test_a_server_whose_memory_is_full_says_what_to_do_and_doctor_tells(small_server, queue):
    async with open_broker(small_server.url) as broker:
        await broker.create_queue(queue)
        for nbytes in (50_000, 5_000, 500, 0, 0):  # what is small may fit where what is large was refused
            with pytest.raises(BrokerUnavailableError, match="its memory is full: complete or purge messages"):
                await filled(broker, queue, nbytes)
        findings = {one.subject: one for one in await broker.examine()}
        assert findings["sends"].level == "danger"
        assert "its memory is full" in findings["sends"].text
        assert (findings["room"].level, findings["room"].remedy[:9]) == ("warning", "maxmemory")
        with pytest.raises(BrokerUnavailableError, match="its memory is full"):
            await broker.check()
        (first,) = await taken(broker, queue, count=1)
        await broker.dead_letter([first], reason="bad")  # what makes no more of it passes
        while deliveries := await taken(broker, queue, max_wait=0.1):
            await broker.complete(deliveries)
        assert await broker.purge(queue) == 1
        await broker.check()
        assert "sends" not in {one.subject for one in await broker.examine()}


async def test_tls_on_a_port_without_it_is_told_as_such(server):
    with pytest.raises(BrokerUnavailableError, match=r"by TLS: .*; write redis:// if it has no TLS"):
        await open_broker(server.url.replace("redis://", "rediss://")).open()


# --- another server at the address, and accounts that do not fit ---


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory):
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


async def test_a_server_that_is_not_redis_is_told_as_such(nats_server):
    with pytest.raises(BrokerUnavailableError, match=r"what listens at .* is not Redis or Valkey") as caught:
        await open_broker(nats_server.url.replace("nats://", "redis://")).open()
    assert "start it" not in str(caught.value)
    with pytest.raises(BrokerUnavailableError, match=r"by TLS: .*; write redis:// if it has no TLS"):
        await open_broker(nats_server.url.replace("nats://", "rediss://")).open()


@pytest.fixture(scope="module")
def closed_server(tmp_path_factory):
    server = RedisServer(redis_program(), tmp_path_factory.mktemp("closed"), "--requirepass", "s3cret")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("user", "step"),
    [("", "write them into the URL"), (":wrong@", "look at those in the URL"), ("me:wrong@", "look at those in the")],
)
async def test_who_wrote_user_and_password_is_not_told_to_write_them(closed_server, user, step):
    with pytest.raises(BrokerUnavailableError, match=f"refuses user or password: .*; {step}"):
        await open_broker(closed_server.url.replace("//", f"//{user}")).open()


async def test_a_password_that_the_server_does_not_want_is_told_as_such(server):
    with pytest.raises(BrokerUnavailableError, match="this server wants none: leave them out"):
        await open_broker(server.url.replace("//", "//:secret@")).open()


async def test_who_asks_a_server_for_a_queue_that_is_not_there_is_not_sent_to_a_folder(server, queue, capsys):
    url = f"{server.url}?prefix={queue}"
    assert await asyncio.to_thread(main, ["queues", "nowhere", "--broker", url]) == 1
    said = capsys.readouterr().err
    assert "look at the --broker and its ?prefix=, or start a worker first" in said
    assert "folder" not in said
