"""Looks at a real queue and at what workers say: what is seen, what is decided, and what a failed look changes."""

from __future__ import annotations

import secrets
import time

import msgspec
import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import WorkerStatus, announce
from dumbwaiter.blobs.profiles import ServiceProfile, add_to_profile
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import ScalingSettings
from dumbwaiter.demand import PoolWatcher, rules_of
from dumbwaiter.demand.pool import NO_QUEUE, UNBOUNDED
from dumbwaiter.errors import BlobError, BrokerUnavailableError, SignalUnknownError
from dumbwaiter.message import Message, QueueStats
from dumbwaiter.policies.scaling import Rules
from dumbwaiter.policies.service_times import Bucket, ServiceTimes
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def store():
    return open_store(f"memory:{secrets.token_hex(4)}")


@pytest.fixture
async def broker():
    async with open_broker("memory:") as it:
        yield it


def messages(count: int) -> list[Message]:
    return [Message(body=b"x") for _ in range(count)]


def worker(name: str, **facts) -> WorkerStatus:
    return WorkerStatus(**{"worker": name, "model": "cats", "state": "ready", "started_at": time.time(), **facts})


async def known(store, seconds: float, **facts) -> None:
    times = ServiceTimes(buckets={0: Bucket(seconds, 1.0, time.time())})
    await add_to_profile(store, ServiceProfile(model="cats", times=times, **facts), time.time())


def watcher(broker, store, **settings) -> PoolWatcher:
    return PoolWatcher(broker, store, "cats", ScalingSettings(**{"max_replicas": 50, **settings}))


async def test_what_waits_and_runs_is_seen_with_the_work_that_is_expected_of_it(broker, store):
    await broker.create_queue("cats")
    await broker.send("cats", messages(12))
    await broker.receive("cats", max_messages=2, max_wait=0.0)
    await known(store, 2.0)
    view = await watcher(broker, store).look()
    assert (view.look.waiting, view.look.in_flight, view.look.seconds_each) == (10, 2, 2.0)
    assert view.look.oldest_age is not None
    assert (view.decision.work, view.decision.desired) == (pytest.approx(22.0), 5)
    assert view.has_queue


async def test_a_model_that_never_had_a_worker_gets_one(broker, store):
    """Nobody else makes the queue, and until it is there nobody can ask."""
    view = await watcher(broker, store).look()
    assert (view.decision.desired, view.decision.why, view.has_queue) == (1, NO_QUEUE, False)
    assert (await watcher(broker, store, min_replicas=3).look()).decision.desired == 3
    assert await watcher(broker, store).is_waited_for()


async def test_workers_count_by_what_they_say_and_what_is_ordered(broker, store):
    await broker.create_queue("cats")
    states = ["ready", "ready", "loading", "failing", "draining"]
    for number, state in enumerate(states):
        await announce(store, worker(f"w{number}", state=state))
    view = await watcher(broker, store).look(pending=2, past={"w1"})
    assert (view.look.ready, view.look.starting) == (1, 3)
    assert {status.worker for status in view.workers} == {"w0", "w2", "w3", "w4"}


async def test_what_came_is_told_from_the_queue_and_from_what_workers_settled(broker, store):
    await broker.create_queue("cats")
    pool = watcher(broker, store)
    await announce(store, worker("old", settled=1000, started_at=time.time() - 60.0))
    assert (await pool.look()).look.arrived == 0
    await broker.send("cats", messages(3))
    await announce(store, worker("old", settled=1010, started_at=time.time() - 60.0))
    assert (await pool.look()).look.arrived == 13
    await announce(store, worker("new", settled=4, started_at=time.time() + 1.0))
    assert (await pool.look()).look.arrived == 4


async def test_a_message_that_waits_for_its_next_try_has_not_come_again(broker, store):
    await broker.create_queue("cats")
    await broker.send("cats", messages(1))
    deliveries = await broker.receive("cats", max_messages=1, max_wait=0.0)
    await broker.abandon(deliveries, delay=0.3)
    pool = watcher(broker, store)
    assert (await pool.look()).look.is_idle
    await eventually(pool.is_waited_for, within=10.0)
    look = (await pool.look()).look
    assert (look.waiting, look.arrived) == (1, 0)


async def test_a_worker_that_is_dated_ahead_is_a_ghost_until_it_speaks(broker, store):
    await broker.create_queue("cats")
    ghost = worker("ghost", announced_at=time.time() + 3600.0)
    await store.put("workers/cats/ghost.json", msgspec.json.encode(ghost))
    pool = watcher(broker, store)
    view = await pool.look()
    assert (view.look.ready, list(view.workers)) == (0, [])
    alive = msgspec.structs.replace(ghost, announced_at=ghost.announced_at + 5.0)
    await store.put("workers/cats/ghost.json", msgspec.json.encode(alive))
    view = await pool.look()
    assert view.look.ready == 1
    assert view.silence["ghost"] < 5.0


async def test_a_lie_of_what_was_settled_orders_few(broker, store):
    await broker.create_queue("cats")
    await known(store, 0.3)
    pool = watcher(broker, store)
    await announce(store, worker("liar", started_at=time.time() - 60.0))
    await pool.look()
    await announce(store, worker("liar", settled=1 << 52, started_at=time.time() - 60.0))
    assert (await pool.look()).look.arrived < 150
    assert (await pool.look()).look.arrived == 0


class Uncounted:
    """A broker that tells less than there is."""

    def __init__(self, broker, *, includes_locked: bool = False, **unknown) -> None:
        self._broker, self._unknown = broker, unknown
        self.capabilities = msgspec.structs.replace(broker.capabilities, ready_includes_locked=includes_locked)

    async def stats(self, queue: str) -> QueueStats:
        return msgspec.structs.replace(await self._broker.stats(queue), **self._unknown)


async def test_where_nobody_counts_what_runs_the_workers_tell(broker, store):
    await broker.create_queue("cats")
    await broker.send("cats", messages(10))
    await announce(store, worker("w1", in_hand=3))
    look = (await watcher(Uncounted(broker, locked=None), store).look()).look
    assert (look.waiting, look.in_flight) == (10, 3)
    look = (await watcher(Uncounted(broker, locked=None, includes_locked=True), store).look()).look
    assert (look.waiting, look.in_flight) == (7, 3)


async def test_one_that_retires_still_has_in_hand_what_it_has(broker, store):
    await broker.create_queue("cats")
    await announce(store, worker("w1", state="draining", in_hand=3))
    look = (await watcher(Uncounted(broker, locked=None), store).look(past={"w1"})).look
    assert (look.in_flight, look.is_idle, look.ready) == (3, False, 0)


async def test_a_signal_that_the_broker_does_not_tell_is_an_error_that_names_it(broker, store):
    await broker.create_queue("cats")
    deaf = Uncounted(broker, ready=None, oldest_age=None)
    with pytest.raises(SignalUnknownError, match="scaling by work follows how many messages wait"):
        await watcher(deaf, store).look()
    with pytest.raises(SignalUnknownError, match="scaling by age follows how long the oldest"):
        await watcher(deaf, store, signal="age").look()
    look = (await watcher(Uncounted(broker, ready=None), store, signal="age").look()).look
    assert look.waiting is None
    assert await watcher(deaf, store).is_waited_for(), "a glance cannot tell either"


async def test_whoever_says_how_many_are_wanted_then_gets_that_as_a_decision_within_the_bounds(broker, store):
    await broker.create_queue("cats")
    await broker.send("cats", messages(5))
    await announce(store, worker("w1", seconds_each=2.0))
    deaf = Uncounted(broker, oldest_age=None)
    view = await watcher(deaf, store, signal="age").look(if_unknown=1)
    assert (view.decision.desired, view.decision.raw, view.decision.why) == (1, 1, "signal unknown")
    assert view.decision.alarm.startswith("scaling by age follows how long the oldest message has waited, which this")
    assert view.decision.work == 10.0, "what is known is told"
    assert [status.worker for status in view.workers] == ["w1"]
    assert (await watcher(deaf, store, signal="age", min_replicas=3).look(if_unknown=1)).decision.desired == 3
    assert (await watcher(broker, store, signal="age").look(if_unknown=7)).decision.why != "signal unknown"


async def test_a_look_that_cannot_tell_is_as_if_it_had_not_been(broker, store):
    await broker.create_queue("cats")
    pool = watcher(broker, store)
    await pool.look()
    await broker.send("cats", messages(5))
    pool._broker = Uncounted(broker, ready=None)
    await pool.look(if_unknown=1)
    pool._broker = broker
    assert (await pool.look()).look.arrived == 5


class Broken:
    """A broker that fails *often*, and then is well."""

    def __init__(self, broker, often: int) -> None:
        self._broker, self._left = broker, often
        self.capabilities = broker.capabilities

    async def stats(self, queue: str) -> QueueStats:
        self._left -= 1
        if self._left >= 0:
            raise BrokerUnavailableError("it is being restarted")
        return await self._broker.stats(queue)


async def test_a_failed_look_raises_and_is_as_if_it_had_not_been(broker, store):
    await broker.create_queue("cats")
    await broker.send("cats", messages(5))
    pool, broken = watcher(broker, store), Broken(broker, 2)
    await pool.look()
    await broker.send("cats", messages(5))
    pool._broker = broken
    for _ in range(2):
        with pytest.raises(BrokerUnavailableError):
            await pool.look()
    assert (await pool.look()).look.arrived == 5


async def test_a_store_that_is_down_is_no_sign_that_there_are_no_workers(broker, tmp_path):
    await broker.create_queue("cats")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "workers").write_text("no folder")
    with pytest.raises(BlobError):
        await watcher(broker, open_store(f"file://{tmp_path}/blobs")).look()


async def test_a_glance_tells_whether_anything_waits(broker, store):
    await broker.create_queue("cats")
    pool = watcher(broker, store)
    assert not await pool.is_waited_for()
    await broker.send("cats", messages(1))
    assert await pool.is_waited_for()


async def test_where_the_profile_is_lost_the_workers_have_measured(broker, store):
    await broker.create_queue("cats")
    await store.put("profiles/cats.json", b"{")
    for name, seconds in [("w1", 1.0), ("w2", 3.0), ("w3", 0.0)]:
        await announce(store, worker(name, seconds_each=seconds))
    assert (await watcher(broker, store).look()).look.seconds_each == 2.0


async def test_nothing_measured_is_no_guess(broker, store):
    await broker.create_queue("cats")
    assert (await watcher(broker, store).look()).look.seconds_each is None


async def test_the_cold_start_is_the_one_that_is_set_or_else_was_measured(broker, store):
    await broker.create_queue("cats")
    booting = PoolWatcher(broker, store, "cats", ScalingSettings(max_replicas=50), boot=120.0)
    assert (await watcher(broker, store).look()).rules.cold_start == 0.0
    assert (await booting.look()).rules.cold_start == 120.0
    await known(store, 1.0, load_seconds=7.0, start_seconds=2.0)
    assert (await watcher(broker, store).look()).rules.cold_start == 9.0
    assert (await booting.look()).rules.cold_start == 129.0, "what was measured since then counts at the next look"
    assert (await watcher(broker, store, cold_start=1.0).look()).rules.cold_start == 1.0


def test_the_rules_are_the_settings_one_by_one():
    settings = ScalingSettings(
        signal="messages",
        min_replicas=1,
        max_replicas=9,
        drain_target=2.0,
        spare=1.5,
        age_target=3.0,
        messages_each=4.0,
        scale_in_after=5.0,
        idle_after=6.0,
        cold_start=7.0,
    )
    rules = rules_of(settings, None)
    assert {name: getattr(rules, name) for name in Rules.__slots__} == {
        name: getattr(settings, name) for name in Rules.__slots__
    }
    assert rules_of(ScalingSettings(), None).max_replicas == UNBOUNDED
