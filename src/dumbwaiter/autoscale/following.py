"""The autoscaler: looks at each pool, and has a fleet start and retire workers. It decides nothing by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from dumbwaiter.autoscale.choosing import Change, Watch, change, doubt_of, free, others_of
from dumbwaiter.autoscale.fleet import Fleet, Member
from dumbwaiter.autoscale.room import DeviceRoom, Room
from dumbwaiter.config import ScalingSettings
from dumbwaiter.demand import PoolView, PoolWatcher
from dumbwaiter.errors import BlobError, BrokerError, DumbwaiterError
from dumbwaiter.tasks import end

_log = logging.getLogger(__name__)
GLANCE_EVERY = 0.1
"""Seconds between two glances at the queue of a pool without workers: whoever comes first waits so much longer. A
broker that answers slowly is asked less often.
"""
_GLANCE_SHARE = 0.1
_LOOK_WITHIN = 15.0
"""A look that takes so many seconds has failed."""
_ROOM_FOR = 5.0
"""Seconds for which the room on a device is not looked at again."""
_IF_UNKNOWN = 1
"""Workers of a model whose queue its broker does not count: without any nothing would ever be answered."""
_LONGEST_PAUSE = 60.0
"""Seconds after which a pool is followed again at the latest that a fault of ours has stopped."""


class Scaled(msgspec.Struct, frozen=True, kw_only=True):
    """The workers of *model* that are kept here are *after* now, not *before*; *why*, by the policy or what held it.

    *work*: seconds of work that waits or runs. *offered*: workers' worth of work that comes.
    """

    model: str
    before: int
    after: int
    why: str
    work: float
    offered: float


@dataclass(frozen=True, slots=True)
class _RoomSeen:
    """*room* at *at*, while the members named *ready* were."""

    at: float
    room: Room | None
    ready: frozenset[str]


OnScaled = Callable[[Scaled], None]


class Pool:
    """What the autoscaler follows for one model."""

    def __init__(self, watcher: PoolWatcher, scaling: ScalingSettings, room: DeviceRoom) -> None:
        self.watcher = watcher
        self.scaling = scaling
        self.room = room
        self.told: dict[str, str] = {}
        self.doubt = ""
        self.room_seen: _RoomSeen | None = None
        self.watch = Watch()

    @property
    def model(self) -> str:
        """Its model's name."""
        return self.watcher.model


class Autoscaler:
    """Follows *pools* with the workers of *fleet* until cancelled; *on_scaled* hears of each change."""

    def __init__(self, pools: Sequence[Pool], fleet: Fleet, *, on_scaled: OnScaled) -> None:
        self._pools = pools
        self._fleet = fleet
        self._on_scaled = on_scaled

    async def run(self) -> None:
        """Follow all pools, each by itself. A fault of ours in one is logged, and it is tried again more slowly."""
        tasks = [asyncio.create_task(self._follow(pool)) for pool in self._pools]
        try:
            await asyncio.gather(*tasks)
        finally:
            await end(tasks)

    async def _follow(self, pool: Pool) -> None:
        pause = pool.scaling.look_every
        while True:
            try:
                view = await self._look(pool)
                if view is not None:
                    await self._act(pool, view)
                await self._wait(pool, view)
            except Exception:  # one pool is not to end the others, nor a gateway beside them
                _log.exception("the workers of %s stay, for to follow them has failed", pool.model)
                await asyncio.sleep(pause)
                pause = min(2.0 * pause, max(_LONGEST_PAUSE, pool.scaling.look_every))
            else:
                pause = pool.scaling.look_every

    async def _look(self, pool: Pool) -> PoolView | None:
        """None after a look that failed: nothing is changed by it, and why it failed is said once."""
        own = self._fleet.members(pool.model)
        pending = sum(member.state == "starting" for member in own)
        try:
            async with asyncio.timeout(_LOOK_WITHIN):
                past = self._fleet.past(pool.model)
                view = await pool.watcher.look(pending=pending, past=past, if_unknown=_IF_UNKNOWN)
        except (BrokerError, BlobError, TimeoutError) as error:
            why = str(error) or f"nothing was heard within {_LOOK_WITHIN:.0f} s"
            self._tell(pool, "look", f"the {len(own)} worker(s) of {pool.model} stay, for a look has failed: {why}")
            return None
        self._tell(pool, "look", "")
        return view

    async def _act(self, pool: Pool, view: PoolView) -> None:
        own = self._fleet.members(pool.model)
        others = others_of(view.workers, own, self._fleet.past(pool.model), view.silence)
        desired = view.decision.desired
        silent = self._silent(pool, view, own)
        is_bounded = len(own) - len(silent) + len(others) < desired and (own or desired > 1)
        seen = await self._room(pool, own) if is_bounded else None
        # What happened meanwhile: a worker that was there has died, or another one is.
        own = self._fleet.members(pool.model)
        pool.doubt = doubt_of(own, pool.doubt)
        made = change(
            *(desired, own, others, view.workers),
            doubt=pool.doubt,
            room=None if seen is None or seen.room is None else free(seen.room, own, seen.ready),
            room_of=_room_of(pool, seen),
            silent=silent,
            most=view.rules.max_replicas,
        )
        for _ in range(made.start):
            self._fleet.start(pool.model)
        for name in made.retire:
            self._fleet.retire(pool.model, name)
        self._tell(pool, "held", f"{pool.model} should have {desired} workers; {made.held}" if made.held else "")
        self._tell(pool, "alarm", f"{pool.model}: {view.decision.alarm}" if view.decision.alarm else "")
        if made.start or made.retire:
            self._on_scaled(_scaled(pool.model, own, made, view))

    def _silent(self, pool: Pool, view: PoolView, own: Sequence[Member]) -> frozenset[str]:
        """The names of those that are there and say nothing; it is told when they become some."""
        now = time.monotonic()
        pool.watch = pool.watch.after(own, view.workers, now)
        silent = pool.watch.silent(own, now)
        one = "".join(
            f"{member.name} of {pool.model} ({member.worker}) is there and says nothing, as one that hangs: no work"
            " waits for it, and what is missing is started beside it; kill -9 it, and it is started anew"
            for member in silent[:1]
        )
        self._tell(pool, "silent", one)
        return frozenset(member.name for member in silent)

    async def _room(self, pool: Pool, own: Sequence[Member]) -> _RoomSeen:
        now = time.monotonic()
        if pool.room_seen is None or now - pool.room_seen.at > _ROOM_FOR:
            ready = frozenset(member.name for member in own if member.state == "ready")
            try:
                room = await asyncio.to_thread(pool.room.look)
                self._tell(pool, "room", "")
            except (DumbwaiterError, OSError) as error:
                self._tell(pool, "room", f"how many workers of {pool.model} fit on its device cannot be told: {error}")
                room = None
            pool.room_seen = _RoomSeen(now, room, ready)
        return pool.room_seen

    async def _wait(self, pool: Pool, view: PoolView | None) -> None:
        """Until the next look; without workers, at most until something waits that did not before."""
        again_at = time.monotonic() + pool.scaling.look_every
        glances = view is not None and view.look.waiting == 0 and not self._fleet.members(pool.model)
        pause = GLANCE_EVERY
        while (left := again_at - time.monotonic()) > 0.0:
            if not glances:
                await asyncio.sleep(left)
                return
            await asyncio.sleep(min(left, pause))
            began = time.monotonic()
            try:
                async with asyncio.timeout(_LOOK_WITHIN):
                    if await pool.watcher.is_waited_for():
                        return
            except (BrokerError, TimeoutError):
                glances = False  # the next look says what is wrong
            pause = max(GLANCE_EVERY, (time.monotonic() - began) / _GLANCE_SHARE)

    def _tell(self, pool: Pool, kind: str, text: str) -> None:
        """Log *text* of a *kind* of which nothing was told since its end, which an empty one is."""
        before = pool.told.get(kind, "")
        # Numbers and times in a reason change with each look.
        if bool(text) != bool(before):
            pool.told[kind] = text
            if text:
                _log.warning("%s", text)
            elif kind == "look":
                _log.info("the workers of %s are looked at again", pool.model)


def _room_of(pool: Pool, seen: _RoomSeen | None) -> str:
    return (
        ""
        if seen is None or seen.room is None
        else f"the memory of {pool.room.name} has room for {max(1, seen.room.fits)}"
    )


def _why(own: Sequence[Member], made: Change, view: PoolView) -> str:
    if made.held:
        return f"{view.decision.why}, but {made.held}"
    fails = [member for member in own if member.name in made.retire and member.state == "failing"]
    if not fails:
        return view.decision.why
    return f"{view.decision.why}, and {fails[0].name} cannot serve: {fails[0].reason.partition(chr(10))[0]}"


def _scaled(model: str, own: Sequence[Member], made: Change, view: PoolView) -> Scaled:
    decision = view.decision
    return Scaled(
        model=model,
        before=len(own),
        after=len(own) + made.start - len(made.retire),
        why=_why(own, made, view),
        work=round(decision.work, 3),
        offered=round(decision.offered, 3),
    )
