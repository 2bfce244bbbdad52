"""The autoscaler over a real queue and store, and a fleet whose workers only announce themselves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from pathlib import Path

import msgspec
import pytest

from dumbwaiter.autoscale import Autoscaler, Member, Pool
from dumbwaiter.autoscale.room import DeviceRoom, Room
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import WorkerStatus, announce, withdraw
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import ScalingSettings
from dumbwaiter.demand import PoolWatcher
from dumbwaiter.devices.contract import DeviceError
from dumbwaiter.devices.sharing import Terms
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio
QUICK = {"max_replicas": 4, "look_every": 0.05, "idle_after": 0.2, "scale_in_after": 0.1, "messages_each": 1.0}


class Fleet:
    """Keeps names, and says of each worker in the store that it is ready. *fails*: why none of them can be."""

    def __init__(self, store, *, prefix: str = "") -> None:
        self.store, self.prefix, self.fails = store, prefix, ""
        self.names: list[str] = []
        self.started = 0
        self.gone: set[str] = set()
        self.chores: set[asyncio.Task] = set()

    def members(self, model: str) -> list[Member]:
        state = "failing" if self.fails else "ready"
        return [Member(name=name, state=state, reason=self.fails, worker=name) for name in self.names]

    def past(self, model: str) -> set[str]:
        return self.gone

    def start(self, model: str) -> None:
        self.started += 1
        name = f"{self.prefix}{self.started}"
        self.names.append(name)
        if not self.fails:
            status = WorkerStatus(worker=name, model=model, state="ready", started_at=time.time())
            self._do(announce(self.store, status))

    def retire(self, model: str, name: str) -> None:
        self.names.remove(name)
        self.gone.add(name)
        self._do(withdraw(self.store, model, name))

    def _do(self, work) -> None:
        task = asyncio.create_task(work)
        self.chores.add(task)
        task.add_done_callback(self.chores.discard)


class Scene:
    def __init__(self, broker, store) -> None:
        self.broker, self.store = broker, store
        self.fleet = Fleet(store)
        self.news = []

    @contextlib.asynccontextmanager
    async def following(self, *, broker=None, fleet=None, room=None, **settings):
        scaling = ScalingSettings(**{"signal": "messages", **QUICK, **settings})
        watcher = PoolWatcher(broker or self.broker, self.store, "cats", scaling)
        nowhere = DeviceRoom(Terms(model="cats", device="none", ledgers=Path(), footprints=Path()))
        pool = Pool(watcher, scaling, room or nowhere)
        autoscaler = Autoscaler([pool], fleet or self.fleet, on_scaled=self.news.append)
        task = asyncio.create_task(autoscaler.run())
        try:
            yield
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def send(self, count: int) -> None:
        await self.broker.send("cats", [Message(body=b"x") for _ in range(count)])

    async def empty(self) -> None:
        deliveries = await self.broker.receive("cats", max_messages=1000, max_wait=0.0)
        await self.broker.complete(deliveries)

    async def has(self, count: int, fleet=None) -> None:
        names = (fleet or self.fleet).names
        await eventually(lambda: len(names) == count, within=10.0, what=f"{count} workers, not {names}")


@pytest.fixture
async def scene():
    async with open_broker("memory:") as broker:
        it = Scene(broker, open_store(f"memory:{secrets.token_hex(4)}"))
        await broker.create_queue("cats")
        yield it


async def test_workers_come_with_the_work_up_to_the_most_and_go_with_it_to_none(scene):
    async with scene.following():
        await scene.send(3)
        await scene.has(3)
        await scene.send(9)
        await scene.has(4)
        await scene.empty()
        await scene.has(0)
        await scene.send(1)
        await scene.has(1)
    steps = [(one.before, one.after) for one in scene.news]
    assert steps[0] == (0, 3)
    assert all(before == after for (_, before), (after, _) in itertools.pairwise(steps))
    assert (scene.news[0].model, scene.news[0].why) == ("cats", "messages")
    assert next(one for one in scene.news if one.after == 0).why == "idle"


async def test_a_pool_without_workers_does_not_wait_for_its_next_look(scene):
    """It is looked at every minute, and glanced at all the time."""
    broker = Outage(scene.broker)
    async with scene.following(broker=broker, look_every=60.0):
        await eventually(lambda: broker.asked > 2, within=10.0)
        await scene.send(2)
        await scene.has(2)


async def test_a_model_without_a_queue_gets_one_worker_that_makes_it(scene):
    async with open_broker("memory:") as empty, scene.following(broker=empty):
        await scene.has(1)
    assert scene.news[0].why == "no queue yet"


class Outage:
    """A broker that can be down."""

    def __init__(self, broker) -> None:
        self._broker, self.is_down, self.asked = broker, False, 0
        self.capabilities = broker.capabilities

    async def stats(self, queue: str):
        self.asked += 1
        if self.is_down:
            raise BrokerUnavailableError("it is being restarted")
        return await self._broker.stats(queue)


async def test_a_look_that_fails_changes_nothing_and_is_told_once(scene, caplog):
    caplog.set_level(logging.INFO)
    broker = Outage(scene.broker)
    async with scene.following(broker=broker):
        await scene.send(3)
        await scene.has(3)
        broker.is_down = True
        await scene.empty()
        asked = broker.asked
        await eventually(lambda: broker.asked > asked + 10, within=10.0, what="ten more looks")
        assert len(scene.fleet.names) == 3, "it would be none by now, if no answer meant no work"
        told = [one.getMessage() for one in caplog.records if "a look has failed" in one.getMessage()]
        assert told == ["the 3 worker(s) of cats stay, for a look has failed: it is being restarted"]
        broker.is_down = False
        await scene.has(0)
    assert "the workers of cats are looked at again" in caplog.text


async def test_a_look_that_hangs_has_failed(scene, caplog, monkeypatch):
    monkeypatch.setattr("dumbwaiter.autoscale.following._LOOK_WITHIN", 0.1)
    broker = Outage(scene.broker)

    async def hang(queue: str):
        await asyncio.Event().wait()

    broker.stats = hang
    async with scene.following(broker=broker):
        await eventually(lambda: "a look has failed: nothing was heard within" in caplog.text, within=10.0)


class Mute(Outage):
    """A broker that cannot count what waits."""

    async def stats(self, queue: str):
        return msgspec.structs.replace(await super().stats(queue), ready=None)


async def test_a_broker_that_cannot_tell_gets_one_worker_and_a_reason_and_whoever_listens_hears_of_it(scene, caplog):
    broker = Mute(scene.broker)
    async with scene.following(broker=broker):
        await scene.has(1)
        asked = broker.asked
        await eventually(lambda: broker.asked > asked + 10, within=10.0, what="ten more looks")
    assert [(one.before, one.after, one.why) for one in scene.news] == [(0, 1, "signal unknown")]
    (told,) = [one.getMessage() for one in caplog.records if "cannot tell" in one.getMessage()]
    assert told == (
        "cats: scaling by messages follows how many messages wait, which this broker cannot tell; set another"
        " scaling.signal, or a fixed number of replicas"
    )


async def test_where_the_broker_cannot_tell_one_worker_of_somebody_else_is_enough(scene):
    theirs = WorkerStatus(worker="theirs", model="cats", state="ready", started_at=time.time() - 100.0)
    await announce(scene.store, theirs)
    broker = Mute(scene.broker)
    async with scene.following(broker=broker):
        await eventually(lambda: broker.asked > 10, within=10.0, what="ten looks")
    assert scene.fleet.started == 0


async def test_where_the_broker_cannot_tell_the_least_number_that_is_set_holds(scene):
    async with scene.following(broker=Mute(scene.broker), min_replicas=2):
        await scene.has(2)
    assert [(one.before, one.after) for one in scene.news] == [(0, 2)]


async def test_while_a_model_cannot_be_loaded_no_further_worker_is_tried_and_it_is_said_once(scene, caplog):
    scene.fleet.fails = "cannot load 'network:Cats': no weights"
    broker = Outage(scene.broker)
    async with scene.following(broker=broker):
        await scene.send(9)
        await eventually(lambda: broker.asked > 20, within=10.0)
        assert scene.fleet.started == 4, "all at once, when nobody knew"
        scene.fleet.names.remove("1")
        asked = broker.asked
        await eventually(lambda: broker.asked > asked + 10, within=10.0)
        assert scene.fleet.started == 4
    held = [one.getMessage() for one in caplog.records if "should have" in one.getMessage()]
    assert held == [
        "cats should have 4 workers; 2 fails, and another one would too: cannot load 'network:Cats': no weights"
    ]


class Narrow:
    """A device with room for *count* workers, with *seated* there; None: that cannot be told."""

    name = "GPU-1"

    def __init__(self, count: int | None, seated=lambda: 0) -> None:
        self.count, self.seated = count, seated

    def look(self) -> Room:
        if self.count is None:
            raise DeviceError("the driver does not answer")
        return Room(self.count, self.seated())


async def test_no_more_workers_are_started_than_fit_on_the_device_and_why_is_said(scene, caplog):
    broker = Outage(scene.broker)
    async with scene.following(broker=broker, room=Narrow(2)):
        await scene.send(1)
        await scene.has(1)
        await scene.send(8)
        await scene.has(2)
        asked = broker.asked
        await eventually(lambda: broker.asked > asked + 10, within=10.0)
        assert scene.fleet.started == 2
    assert scene.news[-1].why == "messages, but the memory of GPU-1 has room for 2"
    assert "cats should have 4 workers; the memory of GPU-1 has room for 2" in caplog.text


async def test_a_burst_on_a_pool_without_workers_heeds_the_room_too(scene):
    broker = Outage(scene.broker)
    async with scene.following(broker=broker, room=Narrow(2)):
        await scene.send(9)
        await scene.has(2)
        asked = broker.asked
        await eventually(lambda: broker.asked > asked + 10, within=10.0)
    assert scene.fleet.started == 2


async def test_two_autoscalers_share_the_room_of_one_device(scene, monkeypatch):
    monkeypatch.setattr("dumbwaiter.autoscale.following._ROOM_FOR", 0.0)
    other, broker = Fleet(scene.store, prefix="other-"), Outage(scene.broker)
    room = Narrow(1, lambda: len(scene.fleet.names) + len(other.names))
    async with scene.following(room=room):
        await scene.send(9)
        await scene.has(1)
        async with scene.following(broker=broker, fleet=other, room=room):
            await eventually(lambda: broker.asked > 20, within=10.0)
    assert (scene.fleet.started, other.started) == (1, 0)


async def test_a_worker_that_hangs_is_no_reason_to_wait_for_it(scene, caplog, monkeypatch):
    monkeypatch.setattr("dumbwaiter.autoscale.choosing._MISSED_FOR", 0.2)
    monkeypatch.setattr("dumbwaiter.demand.pool.STALE_AFTER", 0.5)
    scene.fleet.start("cats")
    async with scene.following(min_replicas=1):
        await eventually(lambda: scene.fleet.started > 1, within=10.0)
    assert "1 of cats (1) is there and says nothing, as one that hangs" in caplog.text
    assert scene.fleet.names[0] == "1", "it stays, for it may only be slow"


async def test_a_fault_of_ours_in_one_pool_is_logged_and_it_is_followed_again(scene, caplog):
    class Faulty(Outage):
        async def stats(self, queue: str):
            self.asked += 1
            if self.asked < 3:
                raise OverflowError("no such number")
            return await self._broker.stats(queue)

    async with scene.following(broker=Faulty(scene.broker)):
        await scene.send(3)
        await scene.has(3)
    assert "the workers of cats stay, for to follow them has failed" in caplog.text
    assert "no such number" in caplog.text


async def test_one_that_cannot_serve_and_leaves_for_nothing_waits_says_both(scene):
    scene.fleet.fails = "cannot load 'network:Cats'\nTraceback"
    scene.fleet.start("cats")
    async with scene.following(signal="work"):
        await scene.has(0)
    assert scene.news[-1].why == "nothing waits, and 1 cannot serve: cannot load 'network:Cats'"


async def test_where_the_device_cannot_be_asked_the_settings_alone_bound_them(scene, caplog):
    async with scene.following(room=Narrow(None)):
        await scene.send(1)
        await scene.has(1)
        await scene.send(8)
        await scene.has(4)
    assert "how many workers of cats fit on its device cannot be told: the driver does not answer" in caplog.text


async def test_what_seems_wrong_is_said(scene, caplog):
    scene.fleet.start("cats")
    await asyncio.gather(*scene.fleet.chores)
    async with scene.following(signal="work", age_target=0.1):
        status = WorkerStatus(worker="1", model="cats", state="ready", seconds_each=0.001, started_at=time.time())
        await announce(scene.store, status)
        await scene.send(1)
        await eventually(lambda: "cats: the oldest message has waited" in caplog.text, within=10.0)


async def test_two_autoscalers_come_to_rest_together_and_start_again_when_work_comes(scene):
    """On one project: they may start too many, each what is missing, and neither sends the last one away."""
    other = Fleet(scene.store, prefix="other-")
    counts = []
    async with scene.following(idle_after=600.0), scene.following(fleet=other, idle_after=600.0):
        await scene.send(4)
        await eventually(lambda: len(scene.fleet.names) + len(other.names) >= 4, within=10.0)
        await scene.empty()
        await scene.send(1)
        await eventually(lambda: len(scene.fleet.names) + len(other.names) == 1, within=10.0)
        started = scene.fleet.started + other.started

        def again() -> bool:
            counts.append(len(scene.fleet.names) + len(other.names))
            return len(counts) > 30

        await eventually(again, within=10.0, every=0.05)
    assert set(counts) == {1}
    assert scene.fleet.started + other.started == started


async def test_workers_of_somebody_else_are_counted_and_left_alone(scene):
    theirs = WorkerStatus(worker="theirs", model="cats", state="ready", started_at=time.time() - 100.0)
    await announce(scene.store, theirs)
    async with scene.following():
        await scene.send(3)
        await scene.has(2)
        await scene.empty()
        await scene.has(0)
