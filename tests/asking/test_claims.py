"""The body that a message claims goes with it when it is certain never to be sent, and stays in all other cases."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slow_store import SlowStore

from dumbwaiter.asking import Asker
from dumbwaiter.asking.claims import Claims
from dumbwaiter.blobs import open_store
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import BrokerClosedError, BrokerUnavailableError, PredictionTimeoutError, QueueNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

LARGE = b"x" * 100
CLAIMED = Message(id="r1", data_ref="blob:claims/body")


@given(st.lists(st.booleans(), min_size=1, max_size=5), st.randoms())
def test_a_body_is_dropped_once_by_the_last_who_lets_go_unless_any_may_have_sent_it(sent, random):
    dropped = []
    claims = Claims(dropped.append)
    for _ in sent:
        claims.hold(CLAIMED)
    random.shuffle(sent)
    for place, one in enumerate(sent):
        assert not dropped, place
        claims.let_go(CLAIMED, sent=one)
    assert dropped == ([] if any(sent) else [CLAIMED])
    claims.hold(CLAIMED)
    claims.let_go(CLAIMED)
    assert dropped[-1:] == [CLAIMED], "what was sent before is forgotten with its last holder"


def test_a_message_that_claims_nothing_is_nothing_to_hold():
    claims = Claims(pytest.fail)
    claims.let_go(Message(body=b"soup"))


class Moody(MemoryBroker):
    """Sends once *gate* is set, and raises *error*, if there is one, before or (*late*) after it has sent."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = 0
        self.error = None
        self.late = False

    async def send(self, queue, messages, *, delay=0.0):
        self.begun += 1
        await self.gate.wait()
        if self.error is None or self.late:
            await super().send(queue, messages, delay=delay)
        if self.error is not None:
            raise self.error


@pytest.fixture
async def broker():
    async with Moody() as broker:
        await broker.create_queue("echo")
        yield broker


@pytest.fixture
async def store(tmp_path):
    store = open_store(f"file://{tmp_path}/blobs")
    await store.put("claims/body", b"soup")
    return store


async def settled(asker):
    await eventually(lambda: not asker._background)


def unknown_queue(asker, owns_body):
    return asker.send("nobody", CLAIMED, owns_body=owns_body)


def request_to_unknown_queue(asker, owns_body):
    return asker.begin("nobody", CLAIMED, confirm=True, owns_body=owns_body)


async def behind_a_slow_send(asker, owns_body):
    asker._broker.gate.clear()
    first = asyncio.create_task(asker.send("echo", Message(id="first")))
    await eventually(lambda: asker._broker.begun)
    sending = asyncio.create_task(asker.send("echo", CLAIMED, owns_body=owns_body))
    await eventually(lambda: asker._outbox._entries["echo"])
    sending.cancel()
    await asyncio.wait({sending})
    asker._broker.gate.set()
    await first
    sending.result()


async def an_inbox_that_does_not_open(asker, owns_body):
    async def down():
        raise BrokerUnavailableError("down")

    asker._broker.open_inbox = down
    await asker.begin("echo", CLAIMED, owns_body=owns_body)


async def an_id_in_use(asker, owns_body):
    waiting = await asker.begin("echo", Message(id="r1"), confirm=True)
    try:
        await asker.begin("echo", CLAIMED, owns_body=owns_body)
    finally:
        waiting.forget()


@pytest.mark.parametrize(
    "never_sent",
    [unknown_queue, request_to_unknown_queue, behind_a_slow_send, an_inbox_that_does_not_open, an_id_in_use],
)
@pytest.mark.parametrize("owns_body", [True, False])
async def test_what_is_never_sent_takes_its_body_along_unless_others_need_it(broker, store, never_sent, owns_body):
    async with Asker(broker, store) as asker:
        with contextlib.suppress(QueueNotFoundError, BrokerUnavailableError, ValueError, asyncio.CancelledError):
            await never_sent(asker, owns_body)
            pytest.fail("it was sent")
        await settled(asker)
        assert await store.list("claims/") == ([] if owns_body else ["claims/body"])


@pytest.mark.parametrize("owns_body", [True, False])
async def test_closing_drops_the_bodies_of_what_waits_to_be_sent_unless_others_need_them(broker, store, owns_body):
    broker.gate.clear()
    asker = Asker(broker, store)
    first = asyncio.create_task(asker.send("echo", Message(id="first")))
    await eventually(lambda: broker.begun)
    behind = asyncio.create_task(asker.send("echo", CLAIMED, owns_body=owns_body))
    await eventually(lambda: asker._outbox._entries["echo"])
    await asker.close()
    for call in (first, behind):
        with pytest.raises(BrokerClosedError):
            await call
    assert await store.list("claims/") == ([] if owns_body else ["claims/body"])


@pytest.mark.parametrize("late", [True, False])
async def test_the_body_of_what_may_have_arrived_stays(broker, store, late):
    broker.error, broker.late = BrokerUnavailableError("the connection broke"), late
    async with Asker(broker, store) as asker:
        with pytest.raises(BrokerUnavailableError):
            await asker.send("echo", CLAIMED)
        with pytest.raises(BrokerUnavailableError):
            await asker.ask("echo", CLAIMED, timeout=5.0)
        await settled(asker)
    assert await store.list("claims/") == ["claims/body"]


async def test_whoever_tries_again_writes_its_body_once_and_drops_it_if_no_try_got_it_out(broker, tmp_path):
    store = open_store(f"file://{tmp_path}/others")
    async with Asker(broker, store, claim_threshold=10) as asker:
        async with asker.claiming(Message(id="r1", body=LARGE), durable=False, timeout=5.0) as request:
            for _ in range(3):
                with pytest.raises(QueueNotFoundError):
                    await asker.ask("nobody", request, timeout=5.0)
                assert [f"blob:{key}" for key in await store.list("claims/")] == [request.data_ref]
        await settled(asker)
        assert await store.list("claims/") == []
        async with asker.claiming(Message(id="r1", body=LARGE), durable=False) as request:
            broker.error = BrokerUnavailableError("the connection broke")
            with pytest.raises(BrokerUnavailableError):
                await asker.ask("echo", request, timeout=5.0)
            broker.error = None
            with pytest.raises(QueueNotFoundError):
                await asker.ask("nobody", request, timeout=5.0)
        await settled(asker)
        assert [f"blob:{key}" for key in await store.list("claims/")] == [request.data_ref], (
            "the first may have arrived"
        )


async def test_what_is_written_in_vain_for_one_who_has_gone_is_dropped(broker, store, monkeypatch):
    put, written = store.put, []

    async def witnessed(key, data, *, durable=True):
        await put(key, data, durable=durable)
        written.append(key)

    monkeypatch.setattr(store, "put", witnessed)
    slow = SlowStore(store, "put")
    async with Asker(broker, slow, claim_threshold=10) as asker:
        for call in (
            asker.send("echo", Message(body=LARGE)),
            asker.begin("echo", Message(body=LARGE)),
        ):
            task, begun = asyncio.create_task(call), slow.begun
            await eventually(lambda begun=begun: slow.begun > begun)
            task.cancel()
            await asyncio.wait({task})
        with pytest.raises(PredictionTimeoutError):
            await asker.ask("echo", Message(body=LARGE), timeout=0.01)
        slow.gate.set()
        await eventually(lambda: len(written) == 3)
        await settled(asker)
        assert await store.list("claims/") == ["claims/body"]


async def test_only_the_body_of_what_is_kept_has_to_survive_a_power_cut(broker, store, monkeypatch):
    put, written = store.put, []

    async def witnessed(key, data, *, durable=True):
        written.append(durable)
        await put(key, data, durable=durable)

    monkeypatch.setattr(store, "put", witnessed)
    async with Asker(broker, store, claim_threshold=10) as asker:
        await asker.send("echo", Message(body=LARGE))
        await asker.begin("echo", Message(body=LARGE), confirm=True)
    assert written == [True, False]
