"""What KEDA would read from a real broker, by the names that were rendered, is what waits and what runs."""

from __future__ import annotations

import base64
import json
import urllib.parse
import urllib.request

import pytest
import redis
from projects import project

from dumbwaiter.brokers import open_broker
from dumbwaiter.deploy.kubernetes.triggers import triggers_of
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from dumbwaiter.testing.servers import NatsServer, RabbitmqServer, RedisServer, free_port, redis_program

pytestmark = pytest.mark.anyio


@pytest.fixture
def started(tmp_path):
    running = []

    def start(make):
        server = make(tmp_path)
        running.append(server)
        server.start()
        return server

    yield start
    for server in running:
        server.stop()


def found_for(url, **table):
    of = project(url, trigger="native", **table)
    return triggers_of(of, of.models[0])


def metadata(url, **table):
    return [trigger["metadata"] for trigger in found_for(url, **table).triggers]


async def follow(url, read):
    """Send, receive, hand back with a delay, complete; after each step *read* must tell what is not completed."""
    async with open_broker(url) as broker:
        await broker.create_queue("resnet")
        await _until(read, 0)
        messages = [Message(id=f"m{number}", body=b"x", priority=number % 3 - 1) for number in range(6)]
        await broker.send("resnet", messages)
        await _until(read, 6)
        held = await broker.receive("resnet", max_messages=4, max_wait=5.0)
        assert held
        await _until(read, 6)
        await broker.complete(held[:1])
        await _until(read, 5)
        await broker.abandon(held[1:])
        await _until(read, 5)
        while rest := await broker.receive("resnet", max_messages=10, max_wait=1.0):
            await broker.complete(rest)
        await _until(read, 0)


async def _until(read, wanted):
    await eventually(lambda: read() == wanted, within=15.0)


def page(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
        return json.load(answer)


def reading_redis(url):
    """What KEDA makes of its numbers: the length of streams, the size of what another key holds, and the formula."""
    found = found_for(url)

    def size(client, one):
        if one["type"] == "redis-streams":
            return client.xlen(one["metadata"]["stream"])
        key = one["metadata"]["listName"]
        sizes = {b"zset": client.zcard, b"set": client.scard, b"hash": client.hlen, b"list": client.llen}
        return sizes.get(client.type(key), client.llen)(key)

    def read():
        place = found.triggers[0]["metadata"]
        host, port = place["address"].split(":")
        with redis.Redis(host, int(port), db=int(place["databaseIndex"])) as client:
            numbers = {one["name"]: float(size(client, one)) for one in found.triggers}
        return eval(found.formula, {"min": min}, numbers)

    return read


async def test_on_redis(started):
    server = started(lambda folder: RedisServer(redis_program(), folder))
    await follow(server.url, reading_redis(server.url))


async def test_on_redis_what_was_sent_for_later_wakes_one_worker_who_then_finds_it(started):
    """Nobody else would: it is in no lane before somebody looks, and without workers nobody does."""
    server = started(lambda folder: RedisServer(redis_program(), folder))
    read = reading_redis(server.url)
    async with open_broker(server.url) as broker:
        await broker.create_queue("resnet")
        await broker.send("resnet", [Message(id=f"m{number}", body=b"x") for number in range(3)], delay=0.3)
        assert read() == 1  # not three: one worker moves them all, and then they are counted
        seen = []
        while len(seen) < 3:
            seen += await broker.receive("resnet", max_messages=3, max_wait=5.0)
            assert read() == 3
        await broker.complete(seen)
        assert read() == 0


async def test_on_redis_what_was_handed_back_for_later_is_counted_once(started):
    server = started(lambda folder: RedisServer(redis_program(), folder))
    read = reading_redis(server.url)
    async with open_broker(server.url) as broker:
        await broker.create_queue("resnet")
        await broker.send("resnet", [Message(id="m", body=b"x")])
        held = await broker.receive("resnet", max_messages=1, max_wait=5.0)
        await broker.abandon(held, delay=60.0)
        assert read() == 1


async def test_the_lag_of_redis_groups_would_tell_less(started):
    """Why the streams' own length is counted: of what runs the lag says nothing, and of what waits only sometimes."""
    server = started(lambda folder: RedisServer(redis_program(), folder))
    (_, normal, *_) = metadata(server.url)
    host, port = normal["address"].split(":")
    async with open_broker(server.url) as broker:
        await broker.create_queue("resnet")
        await broker.send("resnet", [Message(id=f"m{number}", body=b"x") for number in range(3)])
        held = await broker.receive("resnet", max_messages=3, max_wait=5.0)
        assert len(held) == 3
        with redis.Redis(host, int(port)) as client:
            groups = {group["name"]: group for group in client.xinfo_groups(normal["stream"])}
            assert client.xlen(normal["stream"]) == 3
        assert groups[b"dumbwaiter"]["lag"] == 0
        assert groups[b"dumbwaiter"]["pending"] == 3


async def test_on_nats(started):
    server = started(NatsServer)
    url = f"{server.url}?monitor={server.monitor}"
    triggers = metadata(url)

    def read():
        one = triggers[0]
        asked = urllib.parse.urlencode({"acc": one["account"], "consumers": "true", "config": "true"})
        found = page(f"http://{one['natsServerMonitoringEndpoint']}/jsz?{asked}")
        (account,) = found["account_details"]
        (stream,) = [each for each in account["stream_detail"] if each["name"] == one["stream"]]
        consumers = {each["name"]: each for each in stream["consumer_detail"]}
        chosen = [consumers[trigger["consumer"]] for trigger in triggers]
        return sum(each["num_pending"] + each["num_ack_pending"] for each in chosen)

    await follow(url, read)


async def test_on_rabbitmq(started):
    port = free_port()

    def with_management(folder):
        lines = (f"management.tcp.port = {port}", "management.tcp.ip = 127.0.0.1", "collect_statistics_interval = 500")
        server = RabbitmqServer(folder, *lines)
        (folder / "plugins").write_text("[rabbitmq_management].")
        return server

    server = started(with_management)
    (one,) = metadata(server.url, monitor=f"http://127.0.0.1:{port}")
    login = base64.b64encode(b"guest:guest").decode()

    def read():
        name = urllib.parse.quote_plus(one["queueName"])
        asked = f"page=1&use_regex={one['useRegex']}&pagination=false&name={name}&page_size=100"
        found = page(f"http://127.0.0.1:{port}/api/queues/%2F?{asked}", Authorization=f"Basic {login}")
        items = found["items"] if isinstance(found, dict) else found
        return sum(each.get("messages", 0) for each in items) if items else 0

    await follow(server.url, read)
