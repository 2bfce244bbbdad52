"""What the suite does not say: other producers, other consumers of the same server, and what lies under which key."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.redis import RedisBroker
from dumbwaiter.brokers.redis import broker as broker_module
from dumbwaiter.brokers.served import BAD_ENVELOPE
from dumbwaiter.errors import InboxGoneError, LockLostError, QueueNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def take_one(broker, queue):
    (delivery,) = await broker.receive(queue, max_messages=1, max_wait=10.0)
    return delivery


class TestOtherProducers:
    async def test_a_bare_body_is_a_request_and_the_streams_id_is_its_id(self, broker, producer, queue):
        await broker.create_queue(queue)
        id_ = await producer.xadd(f"dumbwaiter:{{{queue}}}", {"body": b"\xff bare"})
        delivery = await take_one(broker, queue)
        assert (delivery.message.body, delivery.message.id) == (b"\xff bare", id_.decode())
        assert delivery.delivery_count == 1
        await broker.complete([delivery])

    async def test_attributes_are_fields_with_or_without_a_prefix_and_any_first_field_is_a_body(
        self, broker, producer, queue
    ):
        await broker.create_queue(queue)
        fields = {"payload": b"{}", "ce-id": "mine", "replyto": "somewhere", "ce_priority": "3", "shop": "7"}
        await producer.xadd(f"dumbwaiter:{{{queue}}}", fields)
        message = (await take_one(broker, queue)).message
        assert (message.body, message.id, message.reply_to, message.priority) == (b"{}", "mine", "somewhere", 3)
        assert message.extensions == {"shop": "7"}

    async def test_redis_cli_will_do(self, broker, redis_server, server, queue):
        program = shutil.which("redis-cli") or pytest.skip("redis-cli is missing: apt-get install redis-tools")
        await broker.create_queue(queue)
        command = (program, "-p", str(server.port), "XADD", f"dumbwaiter:{{{queue}}}", "*", "body", "hello")
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        assert (await take_one(broker, queue)).message.body == b"hello"

    async def test_what_was_added_before_the_queue_was_created_is_served(self, broker, producer, queue):
        await producer.xadd(f"dumbwaiter:{{{queue}}}", {"body": "early"})
        with pytest.raises(QueueNotFoundError):
            await broker.stats(queue)
        await broker.create_queue(queue)
        assert (await broker.stats(queue)).ready == 1
        assert (await take_one(broker, queue)).message.body == b"early"

    async def test_an_entry_wakes_a_receiver_that_waits(self, broker, producer, queue):
        await broker.create_queue(queue)
        receiving = asyncio.create_task(broker.receive(queue, max_messages=1, max_wait=60.0))
        await eventually(lambda: _is_blocked(producer), within=10.0, what="a blocked connection")
        await producer.xadd(f"dumbwaiter:{{{queue}}}", {"body": "now"})
        async with asyncio.timeout(10.0):
            assert [d.message.body for d in await receiving] == [b"now"]

    async def test_other_lanes_take_entries_too(self, broker, producer, queue):
        await broker.create_queue(queue)
        await producer.xadd(f"dumbwaiter:{{{queue}}}:low", {"body": "low"}, id="5-1")
        await producer.xadd(f"dumbwaiter:{{{queue}}}", {"body": "normal"}, id="5-1")
        await producer.xadd(f"dumbwaiter:{{{queue}}}:high", {"body": "high"}, id="5-1")
        came = await broker.receive(queue, max_messages=3, max_wait=10.0)
        found = {(d.message.body, d.message.id) for d in came}
        assert found == {(b"high", "5-1-high"), (b"normal", "5-1"), (b"low", "5-1-low")}

    async def test_an_envelope_that_cannot_be_read_is_a_dead_letter_and_holds_up_nobody(self, broker, producer, queue):
        await broker.create_queue(queue)
        receiving = asyncio.create_task(broker.receive(queue, max_messages=5, max_wait=60.0))
        await producer.xadd(f"dumbwaiter:{{{queue}}}", {"body": b"\xff", "ce-priority": "urgent", "note": b"\xfe"})
        await eventually(lambda: _dead(broker, queue, 1), within=10.0, what="the dead letter")
        await producer.xadd(f"dumbwaiter:{{{queue}}}", {"body": "good"})
        async with asyncio.timeout(10.0):
            assert [d.message.body for d in await receiving] == [b"good"]
        (letter,) = await broker.dead_letters(queue)
        assert (letter.reason, letter.message.body) == (BAD_ENVELOPE, b"\xff")
        assert "priority" in letter.detail
        assert "urgent" in letter.message.extensions["headers"]

    async def test_a_stream_that_somebody_trims_loses_only_what_was_trimmed(self, server, broker, producer, queue):
        await broker.create_queue(queue)
        await broker.send(queue, [Message(body=b"1"), Message(body=b"2"), Message(body=b"3")])
        held = await broker.receive(queue, max_messages=2, max_wait=10.0)
        await producer.xtrim(f"dumbwaiter:{{{queue}}}", maxlen=0, approximate=False)
        await broker.abandon(held[:1])
        assert await broker.receive(queue, max_messages=5, max_wait=0.0) == []
        await broker.complete(held[1:])
        stats = await broker.stats(queue)
        assert (stats.ready, stats.locked, stats.delayed) == (0, 0, 0)
        await producer.xadd(f"dumbwaiter:{{{queue}}}", {"body": "4"})
        assert (await take_one(broker, queue)).message.body == b"4"


class TestWhatOthersSee:
    async def test_pending_entries_are_the_locked_ones_and_the_lag_those_that_wait(self, broker, producer, queue):
        """So KEDA's trigger for streams scales by them."""
        await broker.create_queue(queue)
        await broker.send(queue, [Message() for _ in range(6)])
        held = await broker.receive(queue, max_messages=3, max_wait=10.0)
        await broker.complete(held[:1])
        groups = await producer.xinfo_groups(f"dumbwaiter:{{{queue}}}")
        (ours,) = [group for group in groups if group["name"] == b"dumbwaiter"]
        assert (ours["pending"], ours["lag"], ours["consumers"]) == (2, 3, 1)
        assert await producer.xlen(f"dumbwaiter:{{{queue}}}") == 5

    async def test_a_queue_that_was_worked_off_keeps_nothing_but_ids(self, broker, producer, queue):
        await broker.create_queue(queue)
        await broker.send(queue, [Message() for _ in range(50)])
        await broker.send(queue, [Message()], delay=0.01)
        done = 0
        while done < 51:
            held = await broker.receive(queue, max_messages=20, max_wait=10.0)
            await broker.complete(held)
            done += len(held)
        left = {}
        for key in await producer.keys(f"dumbwaiter:{{{queue}}}*"):
            kind = await producer.type(key)
            left[key.decode().rpartition("}")[2]] = await (producer.xlen if kind == b"stream" else producer.zcard)(key)
        assert left.pop(":ids") == 51
        left.pop(":bell")  # at most 100 empty entries
        assert left == {"": 0, ":high": 0, ":low": 0}

    async def test_brokers_with_other_prefixes_share_a_server_unseen(self, server, queue):
        async with open_broker(f"{server.url}?prefix=one") as one, open_broker(f"{server.url}?prefix=two") as two:
            await one.create_queue(queue)
            await one.send(queue, [Message()])
            assert queue not in await two.queues()
            assert not await two.has_queue(queue)
            with pytest.raises(QueueNotFoundError):
                await two.receive(queue, max_messages=1, max_wait=0.0)
            with pytest.raises(InboxGoneError):
                await two.reply((await one.open_inbox()).address, [Message()])

    async def test_two_databases_of_one_server_are_two_brokers(self, server, queue):
        async with open_broker(f"{server.url}/1") as one, open_broker(f"{server.url}/2") as two:
            await one.create_queue(queue)
            assert not await two.has_queue(queue)

    async def test_receivers_and_inboxes_of_one_broker_take_three_connections_however_many(self, server, producer):
        async with open_broker(server.url) as broker:
            before = {one["id"] for one in await _clients(producer)}
            queues = [f"many-{i}" for i in range(5)]
            for queue in queues:
                await broker.create_queue(queue)
            waiting = [
                asyncio.create_task(broker.receive(queue, max_messages=1, max_wait=60.0))
                for queue in queues
                for _ in range(5)
            ]
            inboxes = [await broker.open_inbox() for _ in range(5)]
            await broker.send(queues[-1], [Message() for _ in range(5)])
            async with asyncio.timeout(10.0):
                await asyncio.gather(*waiting[-5:])
            added = [one for one in await _clients(producer) if one["id"] not in before]
            assert len(added) <= 2, "beside the one connection that it had"
            for task in waiting:
                task.cancel()
            for inbox in inboxes:
                await inbox.close()


class TestManyAtOnce:
    async def test_a_send_that_is_too_much_for_one_call_arrives_whole_and_in_order(
        self, broker, queue, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(broker_module, "MAX_CALL_NBYTES", 10_000)
        monkeypatch.setattr(broker_module, "MAX_CALL_MESSAGES", 30)
        messages = [Message(body=bytes(900)) for _ in range(100)]
        await broker.create_queue(queue)
        await broker.send(queue, messages)
        held = await broker.receive(queue, max_messages=1000, max_wait=10.0)
        assert [d.message.id for d in held] == [message.id for message in messages]
        await broker.renew_lock(held)
        await broker.dead_letter(held, reason="many")
        assert await broker.redrive(queue) == 100
        assert await broker.purge(queue) == 0
        held = await broker.receive(queue, max_messages=1000, max_wait=10.0)
        await broker.dead_letter(held, reason="many")
        assert await broker.purge(queue) == 100
        assert (await broker.stats(queue)).dead == 0

    async def test_a_thousand_locks_that_run_out_together_all_come_back(self, server, broker, queue):
        await broker.create_queue(queue)
        await broker.send(queue, [Message() for _ in range(1200)])
        async with open_broker(server.url, lock_duration=0.2) as holder:
            for _ in range(3):
                await holder.receive(queue, max_messages=500, max_wait=10.0)

            async def all_back():
                return (await broker.stats(queue)).ready == 1200

            await eventually(all_back, within=10.0, what="all messages ready again")
        came = 0
        while came < 1200:
            came += len(await broker.receive(queue, max_messages=500, max_wait=10.0))

    async def test_settling_with_tokens_that_are_none_touches_nothing(self, broker, queue):
        await broker.create_queue(queue)
        await broker.send(queue, [Message()])
        held = await take_one(broker, queue)
        for token in ("", "no token", "1|2-3", "9|0-1|x", held.lock_token + "0", "%d|%d-%d|%s"):
            other = type(held)(message=held.message, queue=queue, lock_token=token, locked_until=0.0, delivery_count=1)
            with pytest.raises(LockLostError):
                await broker.abandon([other])
        assert (await broker.stats(queue)).locked == 1


async def _clients(producer):
    return [one for one in await producer.client_list() if one["name"] == "dumbwaiter"]


async def _is_blocked(producer):
    return (await producer.info("clients"))["blocked_clients"] > 0


async def _dead(broker: RedisBroker, queue: str, count: int) -> bool:
    return (await broker.stats(queue)).dead == count


class TestLargeBodies:
    async def test_large_bodies_come_a_few_at_a_time_and_all_of_them(self, broker, queue):
        """Hundreds of a mebibyte in one answer would hold up whoever else speaks over that connection."""
        await broker.create_queue(queue)
        messages = [Message(body=bytes(2**20)) for _ in range(20)]
        await broker.send(queue, messages)
        came: list[str] = []
        hauls = 0
        while len(came) < 20:
            held = await broker.receive(queue, max_messages=20, max_wait=10.0)
            hauls += 1
            assert len(held) < 17
            came += [d.message.id for d in held]
            if hauls == 1:
                await broker.abandon(held)
                came.clear()
            else:
                await broker.dead_letter(held, reason="large")
        assert came == [message.id for message in messages]
        assert [letter.message.id for letter in await broker.dead_letters(queue)] == came
        assert await broker.purge(queue) == 20


class TestLocksThatRanOut:
    async def test_one_still_settles_while_nobody_has_taken_the_message_since(self, server, broker, queue):
        """Its work is done, so why do it again."""
        await broker.create_queue(queue)
        await broker.send(queue, [Message(), Message(), Message()])
        async with open_broker(server.url, lock_duration=0.05) as holder:
            done, again, dead = await holder.receive(queue, max_messages=3, max_wait=10.0)

            async def have_run_out():
                return (await broker.stats(queue)).ready == 3

            await eventually(have_run_out, within=10.0, what="locks that ran out")
            with pytest.raises(LockLostError):
                await holder.renew_lock([done])
            await holder.complete([done])
            await holder.abandon([again], delay=60.0)
            await holder.dead_letter([dead], reason="late")
        stats = await broker.stats(queue)
        assert (stats.ready, stats.locked, stats.delayed, stats.dead) == (0, 0, 1, 1)

    async def test_one_whose_message_was_handed_back_by_closing_does_not(self, server, broker, queue):
        await broker.create_queue(queue)
        await broker.send(queue, [Message()])
        async with open_broker(server.url) as holder:
            held = await take_one(holder, queue)
        with pytest.raises(LockLostError):
            await broker.complete([held])
        assert (await take_one(broker, queue)).delivery_count == 1
