"""What is not as it should be at the address: another server, another account, a queue that somebody else has made."""

from __future__ import annotations

import asyncio
import secrets

import aio_pika
import pytest
from servers import NatsServer, RedisServer, redis_program

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.rabbitmq.names import QUORUM
from dumbwaiter.cli import main
from dumbwaiter.errors import BrokerError, BrokerUnavailableError, ConfigError, QueueNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def broker(server):
    async with open_broker(f"{server.url}?prefix=t{secrets.token_hex(6)}") as broker:
        yield broker


@pytest.fixture
async def channel(server):
    connection = await aio_pika.connect(server.url)
    async with connection:
        yield await connection.channel()


async def test_a_server_that_speaks_something_else_is_told_as_such(tmp_path):
    server = NatsServer(tmp_path)
    server.start()
    try:
        with pytest.raises(
            BrokerUnavailableError, match=r"what listens at .* is not RabbitMQ: .*; look at the"
        ) as caught:
            await open_broker(server.url.replace("nats://", "amqp://")).open()
    finally:
        server.stop()
    assert "start it" not in str(caught.value)


async def test_a_server_that_waits_for_more_may_be_another_too(tmp_path):
    server = RedisServer(redis_program(), tmp_path)
    server.start()
    try:
        with pytest.raises(BrokerUnavailableError, match="look whether what listens there is RabbitMQ"):
            await open_broker(server.url.replace("redis://", "amqp://")).open()
    finally:
        server.stop()


async def test_who_wrote_user_and_password_is_not_told_to_write_them(server):
    with pytest.raises(BrokerUnavailableError, match=r"broker logfile; look at those in the URL"):
        await open_broker(server.url.replace("guest:guest@", "me:wrong@")).open()


async def test_nothing_is_sent_to_a_classic_queue_of_that_name_for_no_worker_takes_it(broker, channel):
    name = f"{broker._prefix}.classic"
    queue = await channel.declare_queue(name, durable=True)
    for _ in range(2):
        with pytest.raises(BrokerError, match=f"has a queue '{name}' already, and it is another kind") as caught:
            await broker.send("classic", [Message()])
        assert not isinstance(caught.value, BrokerUnavailableError), "to try again would not help"
        with pytest.raises(BrokerError, match="another kind"):
            await broker.send("classic", [Message()], delay=5.0)
        with pytest.raises(BrokerError, match="another kind"):
            await broker.stats("classic")
    with pytest.raises(ConfigError):
        await broker.create_queue("classic")
    assert (await channel.declare_queue(name, passive=True)).declaration_result.message_count == 0
    await queue.delete()
    with pytest.raises(QueueNotFoundError):
        await broker.send("classic", [Message()])


@pytest.mark.parametrize("priority", [-1, 0, 1])
async def test_each_lane_is_looked_at_before_the_first_message_goes_there(broker, channel, priority):
    await broker.create_queue("resnet")
    await broker.send("resnet", [Message(priority=priority)])
    for lane in ("", "/high", "/low"):
        await channel.queue_delete(f"{broker._prefix}.resnet{lane}")
    with pytest.raises(QueueNotFoundError):
        await broker.send("resnet", [Message(priority=priority)])
    for lane in ("", "/high", "/low"):
        await channel.declare_queue(f"{broker._prefix}.resnet{lane}", durable=True)
    with pytest.raises(BrokerError, match="another kind"):
        await broker.send("resnet", [Message(priority=priority)])


async def test_a_quorum_queue_of_that_name_is_sent_to_whoever_has_made_it(broker, channel):
    await channel.declare_queue(f"{broker._prefix}.mine", durable=True, arguments=dict(QUORUM))
    await broker.send("mine", [Message()])

    async def has_come():
        there = await channel.declare_queue(f"{broker._prefix}.mine", passive=True)
        return there.declaration_result.message_count == 1

    await eventually(has_come)


async def test_commands_tell_of_a_queue_of_another_kind(broker, channel, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    await channel.declare_queue(f"{broker._prefix}.classic", durable=True)
    for command in (["queues", "classic"], ["submit", "classic", "hi"]):
        assert await asyncio.to_thread(main, [*command, "--broker", broker.url]) == 1
        assert "is another kind" in capsys.readouterr().err


async def test_doctor_sends_nobody_where_he_comes_from(broker, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DUMBWAITER_BLOBS", f"file:{tmp_path}/blobs")
    assert await asyncio.to_thread(main, ["doctor", broker.url, "--queue", "nowhere", "--longest-run", "10m"]) == 0
    said = capsys.readouterr().out
    assert "-> dumbwaiter queues" not in said, "RabbitMQ lists none"
    assert "-> start that worker, or look at the name and at the ?prefix= of the URL" in said
    assert "-> name one that is there (dumbwaiter doctor URL --queue NAME)" in said
    assert "a worker that is killed frees its messages at once" in said
    assert "the longest run of 600 s is well below that" in said
    assert "long runs" not in said, "here there is a limit, and it is told"
