"""Servers that are killed, stopped, full, strict, or that forget; each rule on Redis and on Valkey."""

from __future__ import annotations

import asyncio
import signal

import pytest
from redis.asyncio import Redis
from servers import RedisServer, free_port, redis_program, valkey_program

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.redis import connection
from dumbwaiter.brokers.redis import inbox as inbox_module
from dumbwaiter.errors import BrokerUnavailableError, InboxGoneError, QueueNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio
PROGRAMS = {"redis": redis_program, "valkey": valkey_program}


@pytest.fixture(params=PROGRAMS)
def start(request, tmp_path):
    """Starts servers of their own, with settings of their own."""
    started = []

    def start_one(*settings: str) -> RedisServer:
        one = RedisServer(PROGRAMS[request.param](), tmp_path / str(len(started)), *settings)
        one.start()
        started.append(one)
        return one

    yield start_one
    for one in started:
        one.stop()


async def take(broker, queue, count=1):
    held = []
    async with asyncio.timeout(15.0):
        while len(held) < count:
            held += await broker.receive(queue, max_messages=count - len(held), max_wait=10.0)
    return held


async def test_all_that_a_queue_holds_survives_kill_9(start, queue):
    server = start()
    ready, locked, delayed, put_off, dead, done = (Message(body=name.encode()) for name in "rldpxc")
    async with open_broker(server.url, lock_duration=60.0) as broker:
        await broker.create_queue(queue)
        await broker.send(queue, [put_off, dead, done, locked, ready])
        held = await take(broker, queue, 4)
        await broker.abandon(held[:1], delay=3600.0)
        await broker.dead_letter(held[1:2], reason="why", detail="in detail")
        await broker.complete(held[2:3])
        await broker.send(queue, [delayed], delay=3600.0)
        server.stop()
        server.start()
    async with open_broker(server.url) as broker:
        stats = await broker.stats(queue)
        assert (stats.ready, stats.locked, stats.delayed, stats.dead) == (2, 0, 2, 1), "closing handed back the lock"
        (letter,) = await broker.dead_letters(queue)
        assert (letter.message, letter.reason, letter.detail) == (dead, "why", "in detail")
        await broker.send(queue, [ready, locked, delayed, put_off, dead, done])
        assert (await broker.stats(queue)) == stats or (await broker.stats(queue)).ready == 2, "ids are kept too"
        assert {d.message.id for d in await take(broker, queue, 2)} == {ready.id, locked.id}


async def test_locks_survive_a_restart_and_their_holder_settles_with_them(start, queue):
    server = start()
    async with open_broker(server.url, lock_duration=60.0) as broker:
        await broker.create_queue(queue)
        await broker.send(queue, [Message(), Message()])
        held = await take(broker, queue, 2)
        server.stop()
        server.start()
        held = await broker.renew_lock(held)
        await broker.complete(held)
        assert (await broker.stats(queue)).locked == 0


async def test_a_server_that_kept_nothing_says_that_the_queue_is_gone_and_takes_it_anew(start, queue):
    server = start("--appendonly", "no")
    async with open_broker(server.url) as broker:
        assert not broker.capabilities.durable
        await broker.create_queue(queue)
        inbox = await broker.open_inbox()
        server.stop()
        server.start()
        with pytest.raises(QueueNotFoundError):
            await broker.receive(queue, max_messages=1, max_wait=5.0)
        await broker.create_queue(queue)
        await broker.send(queue, [Message()])
        await broker.complete(await take(broker, queue))

        async def is_answered():
            try:
                await broker.reply(inbox.address, [Message(body=b"answer")])
            except InboxGoneError:
                return False
            return True

        await eventually(is_answered, within=10.0, what="an inbox that its owner has registered again")
        assert [m.body for m in await inbox.receive(max_messages=1, max_wait=10.0)] == [b"answer"]


async def test_scripts_that_the_server_forgot_are_sent_again(start, queue):
    server = start()
    async with open_broker(server.url) as broker, Redis.from_url(server.url, protocol=2) as admin:
        await broker.create_queue(queue)
        await broker.send(queue, [Message()])
        await admin.script_flush()
        held = await take(broker, queue)
        await admin.script_flush()
        await broker.complete(await broker.renew_lock(held))
        await admin.script_flush()
        assert (await broker.stats(queue)).ready == 0


async def test_a_full_server_refuses_sends_and_lets_queues_be_worked_off(start, queue):
    server = start()
    async with open_broker(server.url) as broker, Redis.from_url(server.url, protocol=2) as admin:
        inbox = await broker.open_inbox()
        await broker.create_queue(queue)
        await broker.send(queue, [Message(body=bytes(100_000)) for _ in range(20)])
        first = await take(broker, queue, 1)
        await admin.config_set("maxmemory", "1mb")
        await broker.create_queue(queue)
        await broker.reply(inbox.address, [Message()])
        for refused in (
            lambda: broker.send(queue, [Message()]),
            lambda: broker.send(queue, [Message()], delay=5.0),
            broker.check,
        ):
            with pytest.raises(BrokerUnavailableError, match="memory"):
                await refused()
        held = await take(broker, queue, 8)
        await broker.renew_lock(held)
        await broker.abandon(held[:1])
        await broker.dead_letter(held[1:2], reason="full")
        await broker.complete(held[2:])
        assert await broker.purge(queue) == 1
        await broker.complete(first)
        await broker.complete(await take(broker, queue, 12))
        await admin.config_set("maxmemory", "0")
        await broker.send(queue, [Message()])
        stats = await broker.stats(queue)
        assert (stats.ready, stats.locked, stats.dead) == (1, 0, 0), "what was refused was not sent in part"


async def test_a_server_that_hangs_is_unavailable_soon_and_serves_again_later(start, queue, monkeypatch):
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    monkeypatch.setattr(connection, "CONNECT_PATIENCE", 0.5)
    server = start()
    async with open_broker(server.url) as broker:
        await broker.create_queue(queue)
        waiting = asyncio.create_task(broker.receive(queue, max_messages=1, max_wait=60.0))
        await asyncio.sleep(0.1)
        server.pause(signal.SIGSTOP)
        try:
            async with asyncio.timeout(10.0):
                with pytest.raises(BrokerUnavailableError, match="does not answer"):
                    await broker.stats(queue)
                with pytest.raises(BrokerUnavailableError):
                    await waiting
        finally:
            server.pause(signal.SIGCONT)
        await broker.send(queue, [Message()])
        await broker.complete(await take(broker, queue))


async def test_replies_are_not_lost_with_the_connection_that_reads_them(start):
    server = start()
    async with open_broker(server.url) as asker, open_broker(server.url) as worker:
        inbox = await asker.open_inbox()
        answers = [Message() for _ in range(100)]
        async with Redis.from_url(server.url, protocol=2) as admin:
            replying = asyncio.create_task(_reply_one_by_one(worker, inbox.address, answers))
            came: list[str] = []
            for _ in range(5):
                came += [m.id for m in await inbox.receive(max_messages=10, max_wait=10.0)]
                for client in await admin.client_list():
                    if "xread" in client["cmd"]:
                        await admin.client_kill_filter(_id=client["id"])
            await replying
        async with asyncio.timeout(15.0):
            while len(came) < len(answers):
                came += [m.id for m in await inbox.receive(max_messages=100, max_wait=5.0)]
        assert came == [answer.id for answer in answers]


async def _reply_one_by_one(worker, address, answers):
    for answer in answers:
        await worker.reply(address, [answer])


async def test_an_inbox_is_gone_some_time_after_its_owner_died_and_lives_as_long_as_the_owner(start, monkeypatch):
    monkeypatch.setattr(inbox_module, "OWNER_SECONDS", 0.6)
    monkeypatch.setattr(inbox_module, "RENEW_EVERY", 0.1)
    server = start()
    async with open_broker(server.url) as alive, open_broker(server.url) as dying, open_broker(server.url) as worker:
        kept, lost = await alive.open_inbox(), await dying.open_inbox()
        dying._mailbox._reading.cancel()  # as if its process had been killed

        async def is_gone():
            try:
                await worker.reply(lost.address, [Message()])
            except InboxGoneError:
                return True
            return False

        await eventually(is_gone, within=10.0, every=0.05, what="the end of the dead owner's inbox")
        await worker.reply(kept.address, [Message()])
        assert len(await kept.receive(max_messages=10, max_wait=10.0)) == 1


async def test_junk_among_the_replies_is_passed_over(start):
    server = start()
    async with open_broker(server.url) as broker, Redis.from_url(server.url, protocol=2) as stranger:
        inbox = await broker.open_inbox()
        key = broker._mailbox._keys.replies
        for junk in (
            {"a": "b"},
            {"inbox": "x", "body": ""},
            {"inbox": "1"},
            {"inbox": "1", "body": "", "ce-time": "?"},
        ):
            await stranger.xadd(key, junk)
        answer = Message()
        await broker.reply(inbox.address, [answer])
        assert await inbox.receive(max_messages=10, max_wait=10.0) == [answer]


async def test_a_wake_up_that_somebody_else_swallowed_costs_a_second_and_no_message(start, queue):
    """As when the broker that was woken is killed before it received."""
    server = start()
    async with open_broker(server.url) as broker, Redis.from_url(server.url, protocol=2) as thief:
        await broker.create_queue(queue)
        stream = f"dumbwaiter:{{{queue}}}"
        stealing = asyncio.create_task(thief.xreadgroup("dumbwaiter-wake", "thief", {stream: ">"}, count=1, block=4000))
        await asyncio.sleep(0.1)
        receiving = asyncio.create_task(broker.receive(queue, max_messages=1, max_wait=60.0))
        await asyncio.sleep(0.1)
        async with open_broker(server.url) as producer:
            await producer.send(queue, [Message()])
            assert await stealing
        async with asyncio.timeout(10.0):
            assert len(await receiving) == 1


async def test_a_wrong_password_is_named_without_telling_it(start):
    server = start("--requirepass", "right")
    for wrong in ("redis://:hush@", "redis://somebody:hush@", "redis://"):
        with pytest.raises(BrokerUnavailableError, match="password") as caught:
            await open_broker(server.url.replace("redis://", wrong)).open()
        assert "hush" not in str(caught.value)
    async with open_broker(server.url.replace("redis://", "redis://:right@")) as broker:
        await broker.check()


async def test_a_user_with_the_rights_that_the_documentation_names_needs_no_more(start, queue):
    server = start("--appendonly", "yes", "--appendfsync", "always")
    async with Redis.from_url(server.url, protocol=2) as admin:
        rights = ("resetchannels", "~dumbwaiter:*", "&*", "-@all", "+@read", "+@write", "+@scripting")
        more = ("+@connection", "-client|unblock", "+info", "+time")
        await admin.execute_command("ACL", "SETUSER", "worker", "on", ">pass", *rights, *more)
    async with open_broker(server.url.replace("redis://", "redis://worker:pass@")) as broker:
        assert not broker.capabilities.durable, "nobody knows, without the right to ask"
        other = f"{queue}-2"
        for name in (queue, other):
            await broker.create_queue(name)
        waiting = [asyncio.create_task(broker.receive(name, max_messages=1, max_wait=60.0)) for name in (queue, other)]
        await asyncio.sleep(0.1)
        await broker.send(other, [Message()])
        await broker.send(queue, [Message()])
        async with asyncio.timeout(10.0):
            for held in await asyncio.gather(*waiting):
                await broker.complete(held)
        inbox = await broker.open_inbox()
        await broker.reply(inbox.address, [Message()])
        assert await inbox.receive(max_messages=1, max_wait=10.0)
        await broker.check()
        assert [one.level for one in await broker.examine() if one.subject == "durability"] == ["warning"]


async def test_a_replica_is_refused_in_plain_words(start, queue):
    primary = start()
    replica = start("--replicaof", f"127.0.0.1 {primary.port}")
    async with open_broker(replica.url) as broker:
        with pytest.raises(BrokerUnavailableError, match="replica"):
            await broker.check()
        findings = {one.subject: one for one in await broker.examine()}
        assert findings["replication"].level == "danger"


async def test_an_unknown_address_and_a_database_that_is_not_there_are_unavailable(start):
    server = start()
    for url, named in ((f"{server.url}/99", "refuses: .*: write /0"), ("redis://127.0.0.1:1", "cannot reach")):
        with pytest.raises(BrokerUnavailableError, match=named):
            await open_broker(url).open()


async def test_a_cluster_of_one_node_serves_several_queues(start, queue):
    """Which proves that no script and no command touches keys of two slots, nor keys that it does not name."""
    server = start("--cluster-enabled", "yes", "--cluster-port", str(free_port()), *RedisServer.DURABLE)
    async with Redis.from_url(server.url, protocol=2) as admin:
        await admin.execute_command("CLUSTER", "ADDSLOTS", *range(16384))

        async def is_whole():
            return b"cluster_state:ok" in await admin.execute_command("CLUSTER", "INFO")

        await eventually(is_whole, within=15.0, what="a whole cluster")
    names = [f"{queue}-{i}" for i in range(3)]
    async with open_broker(server.url) as broker:
        for name in names:
            await broker.create_queue(name)
        waiting = [asyncio.create_task(broker.receive(name, max_messages=1, max_wait=60.0)) for name in names]
        inboxes = [await broker.open_inbox() for _ in range(2)]
        await asyncio.sleep(0.1)
        for name in names:
            await broker.send(name, [Message(), Message()])
        async with asyncio.timeout(15.0):
            held = [one for some in await asyncio.gather(*waiting) for one in some]
        await broker.renew_lock(held)
        await broker.abandon(held)
        held = [one for name in names for one in await take(broker, name, 2)]
        await broker.dead_letter(held, reason="over")
        for name in names:
            assert await broker.redrive(name) == 2
            await broker.dead_letter(await take(broker, name, 2), reason="over")
            assert len(await broker.dead_letters(name)) == 2
            assert await broker.purge(name) == 2
            await broker.send(name, [Message()], delay=60.0)
            assert (await broker.stats(name)).delayed == 1
        assert await broker.queues() == names
        for inbox in inboxes:
            await broker.reply(inbox.address, [Message()])
            assert await inbox.receive(max_messages=1, max_wait=10.0)
        assert [one.level for one in await broker.examine() if one.subject == "cluster"] == ["warning"]
