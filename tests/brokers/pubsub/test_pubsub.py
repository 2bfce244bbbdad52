"""What the suite does not say: other producers, what others do to our queues, and where a process may die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import time
from pathlib import Path

import pytest
from google.pubsub_v1 import types
from servers import HOST, free_port

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.findings import worst
from dumbwaiter.brokers.pubsub import inbox as inboxes
from dumbwaiter.brokers.pubsub import topics as topics_module
from dumbwaiter.brokers.pubsub.api import Api
from dumbwaiter.brokers.pubsub.location import location_of
from dumbwaiter.brokers.served import BAD_ENVELOPE
from dumbwaiter.errors import (
    BrokerClosedError,
    BrokerUnavailableError,
    InboxGoneError,
    LockLostError,
    QueueNotFoundError,
)
from dumbwaiter.message import Message
from dumbwaiter.policies.lanes import NORMAL
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


class Raw:
    """Pub/Sub as others use it."""

    def __init__(self, api, prefix):
        self._api = api
        self._prefix = prefix

    async def publish(self, body, topic="q", **attributes):
        message = types.PubsubMessage.pb()(data=body, attributes=attributes)
        name = self._api.topic(f"{self._prefix}.{topic}")
        return (await self._api.ask("publish", types.PublishRequest.pb()(topic=name, messages=[message]))).message_ids[
            0
        ]

    async def pull(self, topic="q", count=10):
        name = self._api.subscription(f"{self._prefix}.{topic}")
        request = types.PullRequest.pb()(subscription=name, max_messages=count, return_immediately=True)
        return list((await self._api.ask("pull", request)).received_messages)

    async def hand_back(self, received, topic="q"):
        name = self._api.subscription(f"{self._prefix}.{topic}")
        ids = [one.ack_id for one in received]
        request = types.ModifyAckDeadlineRequest.pb()(subscription=name, ack_ids=ids, ack_deadline_seconds=0)
        await self._api.ask("modify_ack_deadline", request)

    async def delete(self, topic="q"):
        name = self._api.subscription(f"{self._prefix}.{topic}")
        await self._api.ask("delete_subscription", types.DeleteSubscriptionRequest.pb()(subscription=name))

    async def topics(self):
        answer = await self._api.ask("list_topics", types.ListTopicsRequest.pb()(project="projects/a-project"))
        return {topic.name.rpartition("/")[2] for topic in answer.topics}


@pytest.fixture
async def broker(emulator):
    async with open_broker(emulator.url(prefix=f"p{secrets.token_hex(4)}")) as broker:
        await broker.create_queue("q")
        yield broker


@contextlib.asynccontextmanager
async def raw_of(broker, emulator):
    api = Api(location_of(emulator.server.url))
    api.open()
    yield Raw(api, broker.url.rpartition("prefix=")[2])
    await api.close()


@pytest.fixture
async def raw(broker, emulator):
    async with raw_of(broker, emulator) as raw:
        yield raw


async def fails(*_, **__):
    raise BrokerUnavailableError("busy")


async def take(broker, count=1, queue="q"):
    deliveries = []
    while len(deliveries) < count:
        some = await broker.receive(queue, max_messages=count - len(deliveries), max_wait=10.0)
        assert some, f"only {len(deliveries)} of {count} messages came"
        deliveries += some
    return deliveries


async def letters_of(broker, count):
    async def all_there():
        letters = await broker.dead_letters("q")
        assert len(letters) == count
        return letters

    return await eventually(all_there, within=10.0)


# --- other producers and consumers ---


async def test_a_bare_body_of_another_producer_is_a_request(broker, raw):
    number = await raw.publish(b'{"x": 1}')
    (delivery,) = await take(broker)
    assert delivery.message.body == b'{"x": 1}'
    assert delivery.message.id.endswith(f".q-{number}")
    await broker.complete([delivery])


async def test_a_producer_may_publish_into_a_lane_of_priority(broker, raw):
    await raw.publish(b"x", "q~low", **{"Content-Type": "text/plain", "ce-tenant": "acme"})
    (delivery,) = await take(broker)
    assert (delivery.message.content_type, delivery.message.tenant) == ("text/plain", "acme")
    await broker.abandon([delivery], counted=False)
    assert (await take(broker))[0].delivery_count == 1


async def test_the_copy_of_a_bare_body_keeps_its_id(broker, raw):
    await raw.publish(b"x")
    (first,) = await take(broker)
    await broker.abandon([first], counted=False)
    (second,) = await take(broker)
    assert second.message == first.message


async def test_an_envelope_that_cannot_be_read_becomes_a_dead_letter(broker, raw):
    await raw.publish(b"bad", priority="very")
    await raw.publish(b"worse", **{"dumbwaiter-head": "7"})
    await broker.send("q", [Message(body=b"good")])
    (delivery,) = await take(broker)
    assert delivery.message.body == b"good"
    assert await broker.receive("q", max_messages=10, max_wait=0.1) == []
    letters = {letter.message.body: letter.reason for letter in await letters_of(broker, 2)}
    assert letters == {b"bad": BAD_ENVELOPE, b"worse": BAD_ENVELOPE}


async def test_an_envelope_that_cannot_be_dead_lettered_now_is_kept_and_costs_no_other(emulator, monkeypatch):
    url = emulator.url(prefix=f"p{secrets.token_hex(4)}")
    async with open_broker(url, lock_duration=1.0) as broker, raw_of(broker, emulator) as raw:
        await broker.create_queue("q")
        await raw.publish(b"bad", priority="very")
        await raw.publish(b"good")
        came = []

        async def good_came():
            with contextlib.suppress(BrokerUnavailableError):  # the other one may come alone
                came.extend(await broker.receive("q", max_messages=2, max_wait=1.0))
            return came

        with monkeypatch.context() as patch:
            patch.setattr(broker._topics, "publish", fails)
            await eventually(good_came, within=15.0)
        assert [one.message.body for one in came] == [b"good"]
        await broker.complete(came)

        async def is_buried():
            assert await broker.receive("q", max_messages=2, max_wait=2.0) == []
            return [letter.message.body for letter in await broker.dead_letters("q")] == [b"bad"]

        await eventually(is_buried, within=15.0)


async def test_an_envelope_that_cannot_be_dead_lettered_goes_back_on_close_as_it_came(broker, raw, monkeypatch):
    await raw.publish(b"bad", priority="very")
    await raw.publish(b"good")
    async with open_broker(broker.url) as leaving:

        async def both_are_held():
            with contextlib.suppress(BrokerUnavailableError):  # the bad one may come alone
                await leaving.receive("q", max_messages=2, max_wait=0.5)
            return len(leaving._holding._leases) == 2

        with monkeypatch.context() as patch:
            patch.setattr(leaving._topics, "publish", fails)
            await eventually(both_are_held, within=10.0)

    async def bad_is_there():
        return [one.message for one in await raw.pull() if one.message.data == b"bad"]

    (came,) = await eventually(bad_is_there, within=5.0)
    assert dict(came.attributes) == {"priority": "very"}


async def test_other_consumers_find_the_body_as_it_is(broker, raw):
    await broker.send("q", [Message(body=b"\xff body", id="i", content_type="image/jpeg")])
    (one,) = await raw.pull()
    assert one.message.data == b"\xff body"
    assert (one.message.attributes["ce-id"], one.message.attributes["Content-Type"]) == ("i", "image/jpeg")


async def test_what_a_dead_letter_policy_has_moved_is_a_dead_letter_of_ours(broker, raw, emulator, monkeypatch):
    monkeypatch.setattr(topics_module, "MOST_ATTEMPTS", 5)
    await broker.create_queue("poor")
    await raw.publish(b"poison", "poor")
    for attempt in range(1, 6):
        (one,) = await eventually(lambda: raw.pull("poor"), within=5.0)
        assert one.delivery_attempt == attempt
        await raw.hand_back([one], "poor")

    async def is_dead():
        assert await raw.pull("poor") == []
        return await broker.dead_letters("poor")

    (letter,) = await eventually(is_dead, within=10.0)
    assert (letter.message.body, letter.reason, letter.delivery_count) == (b"poison", "delivery-limit", 5)
    assert await broker.redrive("poor") == 1
    assert (await take(broker, queue="poor"))[0].delivery_count == 1


# --- locks ---


async def test_a_lock_that_ends_is_handed_back_then_and_not_when_pubsubs_own_ends(emulator):
    """Pub/Sub's own lasts ten seconds at least."""
    url = emulator.url(prefix=f"p{secrets.token_hex(4)}")
    async with open_broker(url, lock_duration=1.0) as holder, open_broker(url) as other:
        await holder.create_queue("q")
        await holder.send("q", [Message()])
        (held,) = await take(holder)
        (again,) = await other.receive("q", max_messages=1, max_wait=6.0)
        assert (again.message.id, again.delivery_count) == (held.message.id, 2)
        with pytest.raises(LockLostError):
            await holder.complete([held])
        await other.complete([again])


async def test_what_may_be_acknowledged_already_is_not_claimed(broker, monkeypatch):
    """Nobody is to hand that back once this process is dead."""
    await broker.send("q", [Message()])
    held = await take(broker)
    assert broker.claim_of(held[0]) is not None

    async def cut_off(*_, **__):
        raise BrokerUnavailableError("the answer was lost")

    monkeypatch.setattr(broker._holding._settling, "acknowledge", cut_off)
    with pytest.raises(BrokerUnavailableError):
        await broker.complete(held)
    assert broker.claim_of(held[0]) is None
    monkeypatch.undo()
    await broker.complete(held)


async def test_a_lock_that_is_longer_than_the_longest_ack_deadline_is_kept_up_by_signs_of_life(emulator, monkeypatch):
    """With a longest one of two seconds, so that it need not take ten minutes."""
    monkeypatch.setattr("dumbwaiter.brokers.pubsub.topics.LONGEST_DELAY", 2)
    monkeypatch.setattr("dumbwaiter.brokers.pubsub.holding.LONGEST_DELAY", 2)
    url = emulator.url(prefix=f"p{secrets.token_hex(4)}")
    async with open_broker(url, lock_duration=900.0) as holder, open_broker(url) as other:
        await holder.create_queue("q")
        await holder.send("q", [Message()])
        (held,) = await take(holder)
        assert await other.receive("q", max_messages=1, max_wait=4.0) == []
        await holder.complete([held])


@pytest.mark.trial
async def test_a_lock_that_is_longer_than_the_ack_deadline_is_made_so_while_it_is_held(broker, raw):
    """Only then: what is completed soon costs no request for it."""
    await broker.send("q", [Message()])
    held = await take(broker)
    until = time.monotonic() + 11.0
    while time.monotonic() < until:
        assert await raw.pull() == []
        await asyncio.sleep(0.2)
    await broker.complete(held)


async def test_a_lock_that_is_shorter_than_the_ack_deadline_frees_a_killed_workers_message_in_time(emulator):
    url = emulator.url(prefix=f"p{secrets.token_hex(4)}")
    async with open_broker(url, lock_duration=300.0) as broker:
        await broker.create_queue("q")
        child = await receiver(url, 1.0)
        try:
            assert await line_of(child) == "ready"
            await broker.send("q", [Message(id="first")])
            assert await line_of(child) == "first"
        finally:
            child.kill()
            await child.wait()
        started = time.monotonic()
        await broker.send("q", [Message(id="second")])
        assert {d.message.id for d in await take(broker)} <= {"first", "second"}
        assert time.monotonic() - started < 6.0


async def test_a_holder_that_was_stopped_settles_nothing_of_what_somebody_else_holds(emulator):
    url = emulator.url(prefix=f"p{secrets.token_hex(4)}")
    async with open_broker(url, lock_duration=60.0) as broker:
        await broker.create_queue("q")
        child = await receiver(url, 1.0, "hold")
        try:
            assert await line_of(child) == "ready"
            await broker.send("q", [Message(id="it")])
            assert await line_of(child) == "it"
            child.send_signal(signal.SIGSTOP)
            (held,) = await take(broker)
            child.send_signal(signal.SIGCONT)
            assert await line_of(child) == "lost"
            await broker.complete([held])
        finally:
            child.kill()
            await child.wait()


async def receiver(url, lock_duration, *more):
    command = (sys.executable, str(Path(__file__).with_name("pubsub_receiver.py")), url, "q", str(lock_duration), *more)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)


async def line_of(child):
    async with asyncio.timeout(20.0):
        return (await child.stdout.readline()).decode().strip()


# --- settling ---


async def test_of_a_batch_only_what_somebody_else_took_is_lost(broker, raw, emulator):
    await broker.send("q", [Message() for _ in range(3)])
    held = await take(broker, 3)
    ack_ids = {lease.delivery.lock_token: lease.held.ack_id for lease in broker._holding._leases.find(held)[0]}
    thief = [types.ReceivedMessage.pb()(ack_id=ack_ids[held[1].lock_token])]
    await raw.hand_back(thief)
    with pytest.raises(LockLostError) as caught:
        await broker.complete(held)
    assert list(caught.value.deliveries) == [held[1]]
    assert [d.message.id for d in await take(broker)] == [held[1].message.id]


async def test_completing_again_after_an_answer_was_lost_is_no_error(broker, monkeypatch):
    await broker.send("q", [Message()])
    held = await take(broker)
    true = broker._api.settle

    async def done_and_cut_off(*arguments, **options):
        await true(*arguments, **options)
        raise BrokerUnavailableError("cut off")

    monkeypatch.setattr(broker._api, "settle", done_and_cut_off)
    with pytest.raises(BrokerUnavailableError):
        await broker.complete(held)
    monkeypatch.undo()
    await broker.complete(held)
    assert await broker.receive("q", max_messages=1, max_wait=0.1) == []


@pytest.mark.parametrize("deed", ["complete", "abandon", "dead_letter", "close"])
async def test_whoever_was_not_told_that_it_handed_back_touches_nothing_of_the_next_holder(broker, monkeypatch, deed):
    await broker.send("q", [Message()])
    async with open_broker(broker.url) as former:
        held = await take(former)
        true = former._api.settle

        async def done_and_cut_off(*arguments, **options):
            await true(*arguments, **options)
            raise BrokerUnavailableError("cut off")

        with monkeypatch.context() as patch:
            patch.setattr(former._api, "settle", done_and_cut_off)
            with pytest.raises(BrokerUnavailableError):
                await former.abandon(held)
        again = await take(broker)
        assert [one.delivery_count for one in again] == [2]
        deeds = {
            "complete": lambda: former.complete(held),
            "abandon": lambda: former.abandon(held, counted=False),
            "dead_letter": lambda: former.dead_letter(held, reason="over"),
        }
        if deed in deeds:
            with pytest.raises(LockLostError):
                await deeds[deed]()
    assert await broker.receive("q", max_messages=1, max_wait=0.5) == []
    await broker.complete(await broker.renew_lock(again))
    assert await broker.dead_letters("q") == []


async def test_a_dead_letter_is_buried_once_though_its_removal_failed_at_first(broker, monkeypatch):
    await broker.send("q", [Message()])
    held = await take(broker)

    async def fails(*_, **__):
        raise BrokerUnavailableError("cut off")

    monkeypatch.setattr(broker._api, "settle", fails)
    with pytest.raises(BrokerUnavailableError):
        await broker.dead_letter(held, reason="over")
    monkeypatch.undo()
    await broker.dead_letter(held, reason="over")
    await letters_of(broker, 1)


async def test_a_message_that_comes_long_before_its_time_is_put_off_again_and_again(broker, monkeypatch):
    """With a longest delay of one second, so that it need not take ten minutes."""
    for module in ("topics", "holding", "wire"):
        monkeypatch.setattr(f"dumbwaiter.brokers.pubsub.{module}.LONGEST_DELAY", 1)
    sent_at = time.monotonic()
    await broker.send("q", [Message(id="late")], delay=3.0)
    (delivery,) = await take(broker)
    assert time.monotonic() - sent_at >= 2.4
    assert delivery.delivery_count == 1


async def test_one_that_was_put_off_too_often_is_copied_before_the_policy_takes_it(broker, monkeypatch):
    monkeypatch.setattr("dumbwaiter.brokers.pubsub.holding.MOST_ATTEMPTS", 2)
    for module in ("topics", "holding", "wire"):
        monkeypatch.setattr(f"dumbwaiter.brokers.pubsub.{module}.LONGEST_DELAY", 1)
    await broker.send("q", [Message(id="late")], delay=4.0)
    (delivery,) = await take(broker)
    assert (delivery.message.id, delivery.delivery_count) == ("late", 1)


# --- what comes for nobody ---


async def test_what_a_long_poll_brings_for_nobody_goes_back_at_once_and_uncounted(broker, emulator):
    assert await broker.receive("q", max_messages=1, max_wait=0.2) == []  # its long polls stand now
    async with open_broker(broker.url) as other:
        await other.send("q", [Message(id="it")])
        (delivery,) = await take(other)
        assert (delivery.message.id, delivery.delivery_count) == ("it", 1)


async def test_what_a_closed_broker_gets_by_its_last_long_poll_goes_back_at_once(broker, emulator):
    async with open_broker(broker.url) as leaving:
        assert await leaving.receive("q", max_messages=1, max_wait=0.2) == []
    await broker.send("q", [Message(id="it")])
    (delivery,) = await take(broker)
    assert delivery.delivery_count == 1


# --- dead letters ---


async def test_a_look_waits_for_the_last_ones_where_only_a_pull_that_waits_shows_that_there_is_nothing(broker):
    await broker.send("q", [Message() for _ in range(3)])
    await broker.dead_letter(await take(broker, 3), reason="over")
    broker._dead.last_wait = 2.0
    assert len(await broker.dead_letters("q")) == 3
    assert len(await broker.dead_letters("q")) == 3, "a look hands back what it has seen"


async def test_two_who_look_at_once_through_one_broker_both_see_all(broker):
    await broker.send("q", [Message() for _ in range(20)])
    await broker.dead_letter(await take(broker, 20), reason="over")
    looks = await asyncio.gather(*(broker.dead_letters("q") for _ in range(5)))
    assert [len(letters) for letters in looks] == [20] * 5


async def test_a_look_that_finds_nothing_waits_until_another_process_that_has_all_in_hand_gives_them_back(broker):
    await broker.send("q", [Message() for _ in range(3)])
    await broker.dead_letter(await take(broker, 3), reason="over")
    async with open_broker(broker.url) as other:
        for one in (broker, other):
            one._dead.last_wait = 2.0
        first = asyncio.create_task(broker.dead_letters("q"))
        await asyncio.sleep(0.3)
        assert len(await other.dead_letters("q")) == len(await first) == 3


async def test_a_look_that_is_cancelled_hides_nothing(broker):
    await broker.send("q", [Message()])
    await broker.dead_letter(await take(broker), reason="over")
    for turns in range(6):
        looking = asyncio.create_task(broker.dead_letters("q"))
        for _ in range(turns):
            await asyncio.sleep(0.002)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        assert len(await broker.dead_letters("q")) == 1


# --- queues ---


async def test_a_queue_whose_subscription_was_deleted_is_missing_and_can_be_made_anew(broker, raw):
    await raw.delete()
    assert not await broker.has_queue("q")
    with pytest.raises(QueueNotFoundError):
        await broker.send("q", [Message()])
    await broker.create_queue("q")
    await broker.send("q", [Message(id="new")])
    assert (await take(broker))[0].message.id == "new"


async def test_a_queue_whose_topic_was_deleted_says_so_and_what_waits_in_it_is_served_still(broker, raw):
    await broker.send("q", [Message(id="waits", body=b"soup")])
    await broker._api.ask(
        "delete_topic", types.DeleteTopicRequest.pb()(topic=broker._api.topic(broker._topics.id("q", NORMAL)))
    )
    with pytest.raises(QueueNotFoundError):
        await broker.send("q", [Message(body=b"more")])
    with pytest.raises(BrokerUnavailableError, match=r"was deleted.*gcloud pubsub subscriptions delete"):
        await broker.create_queue("q")
    assert [one.message.id for one in await take(broker)] == ["waits"]


async def test_queues_of_other_prefixes_and_inboxes_are_not_listed(broker, emulator):
    await broker.open_inbox()
    async with open_broker(emulator.url(prefix=f"p{secrets.token_hex(4)}")) as other:
        await other.create_queue("q2")
        await other.create_queue("q1")
        assert await other.queues() == ["q1", "q2"]
    assert await broker.queues() == ["q"]


async def test_findings_of_a_well_made_queue_hold_no_danger_and_of_one_without_a_policy_do(broker, raw):
    found = await broker.examine(longest_run=300.0)
    assert worst(found) in ("ok", "note")
    api = broker._api
    name = broker._topics.subscription("bad", 1)
    topic = api.topic(broker._topics.id("bad", 1))
    await api.ask("create_topic", types.Topic.pb()(name=topic))
    await api.ask("create_subscription", types.Subscription.pb()(name=name, topic=topic, ack_deadline_seconds=10))
    found = [one for one in await broker.examine() if one.subject.endswith(".bad")]
    dangers = " ".join(one.text for one in found if one.level == "danger")
    assert "exactly-once" in dangers
    assert "does not count deliveries" in dangers
    assert all(one.remedy.startswith("gcloud pubsub") for one in found if one.level == "danger")


# --- inboxes ---


async def test_a_reply_to_what_is_no_inbox_of_ours_is_never_published(broker, raw):
    for address in ("p.q", "q", "", f"{broker.url.rpartition('prefix=')[2]}.q", "dumbwaiter~inbox~0"):
        with pytest.raises(InboxGoneError):
            await broker.reply(address, [Message()])
    assert await raw.pull() == []


async def test_a_closed_inbox_leaves_nothing_behind(broker, raw):
    inbox = await broker.open_inbox()
    assert inbox.address in await raw.topics()
    await inbox.close()
    await inbox.close()
    assert inbox.address not in await raw.topics()
    with pytest.raises(BrokerClosedError):
        await inbox.receive(max_messages=1, max_wait=0.0)


async def test_the_topic_of_an_inbox_whose_subscription_has_expired_is_swept_and_no_other(broker, raw, emulator):
    mine, expired = await broker.open_inbox(), await broker.open_inbox()
    name = broker._api.subscription(expired.address)
    await broker._api.ask("delete_subscription", types.DeleteSubscriptionRequest.pb()(subscription=name))
    await inboxes.sweep(broker._api, now=time.time())
    assert {mine.address, expired.address} <= await raw.topics(), "it may be about to get its subscription"
    await inboxes.sweep(broker._api, now=time.time() + inboxes.EXPIRES_AFTER + 10)
    left = await raw.topics()
    assert mine.address in left
    assert expired.address not in left


# --- reaching it ---


async def test_nobody_there_is_told_with_the_address():
    async with asyncio.timeout(15.0):
        with pytest.raises(BrokerUnavailableError, match=r"cannot reach pubsub://a-project.*; look at .* in the URL"):
            await open_broker(f"pubsub://a-project?emulator={HOST}:{free_port()}").open()


async def test_missing_credentials_are_told_with_what_to_do(monkeypatch):
    with pytest.raises(BrokerUnavailableError, match="gcloud auth application-default login"):
        await open_broker("pubsub://a-project").open()


async def test_an_event_loop_that_ends_while_long_polls_stand_is_no_trouble_to_the_next(emulator):
    url = emulator.url(prefix=f"p{secrets.token_hex(4)}")

    async def once():
        async with open_broker(url) as broker:
            await broker.create_queue("q")
            assert await broker.receive("q", max_messages=1, max_wait=0.1) == []

    for _ in range(3):
        await asyncio.to_thread(asyncio.run, once())
