"""The double of Service Bus itself, with the vendor's client: it must refuse what the service refuses."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
import uuid

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus._pyamqp.error import MessageException
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusError,
)
from proton import Message

from dumbwaiter.testing.servers.servicebus import KEY, LESSER_KEY, SECRET, ServicebusServer
from dumbwaiter.testing.servers.servicebus.queue_settings import Settings, seconds_of
from dumbwaiter.testing.servers.servicebus.store import DEAD, LockLostError, Store
from dumbwaiter.testing.servers.servicebus.tokens import Key, key_of
from dumbwaiter.testing.servers.servicebus.wire import parts

pytestmark = pytest.mark.anyio

NOW = 1_764_000_000.0


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    store.create("Q", Settings({"LockDuration": "PT10S", "MaxDeliveryCount": "3"}))
    return store


@pytest.fixture
def raw():
    return Message(body=b"body", id="m1").encode()


# --- the store ---


def test_the_oldest_comes_first_and_one_that_was_handed_back_at_its_old_place(store, raw):
    queue = store.entities["q"]
    first, second, third = store.send(queue, [(raw, 0.0)] * 3, NOW)
    token, kept = store.take(queue, NOW)
    assert kept.number == first
    store.abandon(queue, token, NOW)
    assert [store.take(queue, NOW)[1].number for _ in range(3)] == [first, second, third]
    assert store.take(queue, NOW) is None


def test_a_lock_that_is_over_settles_nothing_also_before_it_was_seen_to_end(store, raw):
    queue = store.entities["q"]
    store.send(queue, [(raw, 0.0)], NOW)
    token, _ = store.take(queue, NOW)
    for settle in (store.complete, store.renew, store.abandon):
        with pytest.raises(LockLostError):
            settle(queue, token, NOW + 10.0)
    assert store.tick(NOW + 9.9) == []
    assert store.tick(NOW + 10.0) == [queue]
    again, kept = store.take(queue, NOW + 10.0)
    assert (again != token, kept.count) == (True, 1)


def test_renewing_lasts_from_now_on(store, raw):
    queue = store.entities["q"]
    store.send(queue, [(raw, 0.0)], NOW)
    token, _ = store.take(queue, NOW)
    assert store.renew(queue, token, NOW + 9.0) == NOW + 19.0
    assert store.tick(NOW + 18.0) == []


def test_what_was_delivered_too_often_is_dead(store, raw):
    queue, dead = store.entities["q"], store.entities["q" + DEAD]
    store.send(queue, [(raw, 0.0)], NOW)
    for _ in range(3):
        token, _ = store.take(queue, NOW)
        store.abandon(queue, token, NOW)
    assert store.take(queue, NOW) is None
    _, kept = store.take(dead, NOW)
    assert (kept.reason, kept.count) == ("MaxDeliveryCountExceeded", 3)


def test_a_released_message_was_not_delivered(store, raw):
    queue = store.entities["q"]
    store.send(queue, [(raw, 0.0)], NOW)
    for _ in range(5):
        token, kept = store.take(queue, NOW)
        assert kept.count == 0
        store.abandon(queue, token, NOW, counted=False)


def test_what_is_scheduled_comes_when_it_is_due_and_can_be_cancelled(store, raw):
    queue = store.entities["q"]
    soon, later = store.send(queue, [(raw, NOW + 5.0), (raw, NOW + 6.0)], NOW)
    assert store.cancel(queue, later)
    assert not store.cancel(queue, later)
    assert store.take(queue, NOW) is None
    store.tick(NOW + 7.0)
    assert store.take(queue, NOW + 7.0)[1].number == soon
    assert store.take(queue, NOW + 7.0) is None


def test_a_restart_finds_all_but_the_locks(tmp_path, store, raw):
    queue = store.entities["q"]
    store.send(queue, [(raw, 0.0), (raw, 0.0), (raw, NOW + 5.0)], NOW)
    token, _ = store.take(queue, NOW)
    store.dead_letter(queue, token, NOW, "over", "because")
    store.take(queue, NOW)
    again = Store(tmp_path / "store.sqlite")
    queue, dead = again.entities["q"], again.entities["q" + DEAD]
    assert again.shown == {"q": "Q"}
    assert (len(queue.ready), len(queue.scheduled)) == (1, 1)
    (kept,) = dead.kept.values()
    assert (kept.raw, kept.reason, kept.description) == (raw, "over", "because")
    assert again.send(queue, [(raw, 0.0)], NOW)[0] > max(queue.kept) - 1


def test_names_differ_by_more_than_capitals(store):
    assert not store.create("q", Settings({}))
    assert store.delete("Q")
    assert not store.delete("q")
    assert store.create("q", Settings({}))


@pytest.mark.parametrize(
    "given",
    [
        {"LockDuration": "PT4S"},
        {"LockDuration": "PT6M"},
        {"LockDuration": "5"},
        {"MaxDeliveryCount": "0"},
        {"AutoDeleteOnIdle": "PT1M"},
    ],
)
def test_settings_that_the_service_refuses_are_refused(given):
    with pytest.raises(ValueError, match=r"must be|is no"):
        Settings(given)


def test_durations_are_read():
    assert seconds_of("P1DT2H3M4.5S") == 93_784.5


def test_a_batch_is_told_from_a_message_whose_body_begins_like_one():
    inner = [Message(body=bytes([i]), id=str(i)).encode() for i in range(2)]
    assert parts(Message(body=inner[0], inferred=True).encode()) == [inner[0]]
    for body in (b"\x00\x53\x75 but no message", b"\x00\x53", b""):
        plain = Message(body=body, inferred=True).encode()
        assert parts(plain) == [plain]
    with pytest.raises(ValueError, match="not a message"):
        parts(b"nonsense")


# --- tokens ---


def test_only_a_token_that_a_known_key_has_signed_is_good():
    from azure.servicebus._pyamqp.utils import generate_sas_token

    keys = {"k": Key("secret")}
    token = generate_sas_token("sb://host/q", "k", "secret", int(NOW) + 60)
    assert key_of(token, keys, now=NOW) == keys["k"]
    assert key_of(token, keys, now=NOW + 61) is None
    assert key_of(generate_sas_token("sb://host/q", "k", "other", int(NOW) + 60), keys, now=NOW) is None
    assert key_of(generate_sas_token("sb://host/q", "other", "secret", int(NOW) + 60), keys, now=NOW) is None
    assert key_of(token.replace("sr=", "sr=x"), keys, now=NOW) is None
    assert key_of("nonsense", keys, now=NOW) is None


# --- with the client ---


@pytest.fixture
def queue(server):
    """A fresh queue that locks for 5 seconds."""
    name = f"double-{uuid.uuid4().hex}"
    _manage(server, "PUT", name, _description("<LockDuration>PT5S</LockDuration>"))
    return name


def _description(settings):
    space = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
    inner = f'<QueueDescription xmlns="{space}">{settings}</QueueDescription>'
    return f'<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml">{inner}</content></entry>'


def _manage(server, verb, name, body="", *, key=KEY):
    from azure.servicebus._pyamqp.utils import generate_sas_token

    place = f"http://127.0.0.1:{server.management_port}/{name}"
    token = generate_sas_token(place, key, SECRET, int(time.time()) + 60)
    request = urllib.request.Request(place, body.encode() or None, {"Authorization": token}, method=verb)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read().decode()


def client_of(server, *, key=KEY, secret=SECRET):
    string = f"Endpoint=sb://127.0.0.1:{server.port};SharedAccessKeyName={key};SharedAccessKey={secret};"
    return ServiceBusClient.from_connection_string(f"{string}UseDevelopmentEmulator=true;", retry_total=0)


async def test_it_refuses_a_lock_that_is_over_on_the_link_and_at_the_management_node(server, queue):
    async with client_of(server) as client:
        sender = client.get_queue_sender(queue, keep_alive=0)
        receiver = client.get_queue_receiver(queue, keep_alive=0)
        async with sender, receiver:
            await sender.send_messages(ServiceBusMessage(b"x"))
            (message,) = await receiver.receive_messages(1, max_wait_time=5)
            await asyncio.sleep(5.2)
            with pytest.raises(MessageLockLostError):
                await receiver.renew_message_lock(message)
            # complete_message would look at the client's own clock first.
            with pytest.raises(MessageException, match="message-lock-lost"):
                await receiver._settle_message(message, "complete")
            (again,) = await receiver.receive_messages(1, max_wait_time=5)
            assert (again.delivery_count, again.lock_token != message.lock_token) == (1, True)
            await receiver.complete_message(again)


async def test_a_wrong_key_gets_no_link(server, queue):
    async with client_of(server, secret="wrong") as client:
        with pytest.raises(ServiceBusAuthenticationError):
            await client.get_queue_sender(queue, keep_alive=0).send_messages(ServiceBusMessage(b"x"))


async def test_a_queue_that_is_not_there_is_not_found(server):
    async with client_of(server) as client:
        with pytest.raises(MessagingEntityNotFoundError):
            await client.get_queue_receiver("no-such-queue", keep_alive=0).receive_messages(1, max_wait_time=2)


async def test_too_large_a_message_is_refused(server, queue):
    async with client_of(server) as client, client.get_queue_sender(queue, keep_alive=0) as sender:
        with pytest.raises(MessageSizeExceededError):
            await sender.send_messages(ServiceBusMessage(bytes(262_144)))


@pytest.mark.parametrize("odd_at", [0, 1])
async def test_a_batch_with_a_message_that_cannot_be_read_is_refused(server, queue, odd_at):
    messages = [ServiceBusMessage(b"good"), ServiceBusMessage(b"good")]
    messages.insert(odd_at, ServiceBusMessage(b"odd", content_type="image/\xe9"))
    async with client_of(server) as client:
        sender = client.get_queue_sender(queue, keep_alive=0)
        receiver = client.get_queue_receiver(queue, keep_alive=0)
        async with sender, receiver:
            for unreadable in (messages, messages[odd_at]):
                with pytest.raises(ServiceBusError, match="not a message"):
                    await sender.send_messages(unreadable)
            await sender.send_messages([ServiceBusMessage(b"next")])
            (came,) = await receiver.receive_messages(5, max_wait_time=5)
            assert b"".join(came.body) == b"next"
            await receiver.complete_message(came)


async def test_messages_are_scheduled_cancelled_and_peeked(server, queue):
    async with client_of(server) as client:
        sender = client.get_queue_sender(queue, keep_alive=0)
        receiver = client.get_queue_receiver(queue, keep_alive=0)
        async with sender, receiver:
            import datetime as dt

            due = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
            first, second = await sender.schedule_messages([ServiceBusMessage(b"1"), ServiceBusMessage(b"2")], due)
            await sender.cancel_scheduled_messages(first)
            (peeked,) = await receiver.peek_messages(10)
            assert (peeked.sequence_number, b"".join(peeked.body)) == (second, b"2")


@pytest.mark.parametrize(
    ("verb", "name", "body", "key", "status"),
    [
        ("PUT", "bad", "nonsense", KEY, 400),
        ("PUT", "bad", _description("<LockDuration>PT1S</LockDuration>"), KEY, 400),
        ("DELETE", "not-there", "", KEY, 404),
        ("GET", "not-there", "", LESSER_KEY, 401),
        ("GET", "not-there", "", "nobody", 401),
    ],
)
def test_the_management_endpoint_refuses(server, verb, name, body, key, status):
    with pytest.raises(urllib.error.HTTPError) as error:
        _manage(server, verb, name, body, key=key)
    assert error.value.code == status
    error.value.close()


def test_a_list_of_queues_has_pages(server, queue):
    page = _manage(server, "GET", "$Resources/queues?$skip=0&$top=1")
    assert 'rel="next"' in page or page.count("<entry") == 1


def test_it_comes_back_with_its_data_at_the_same_address(tmp_path):
    server = ServicebusServer(tmp_path)
    server.start()
    try:
        _manage(server, "PUT", "kept", _description(""))
        server.stop()
        server.start()
        assert "kept" in _manage(server, "GET", "kept")
    finally:
        server.stop()
