"""One model's pool, the workers that pull from its queue: looked at, and how many there should be.

Whoever scales looks through a PoolWatcher: the local autoscaler, and the scaler that Kubernetes asks. A look that fails
raises, and changes nothing of what is remembered.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

import msgspec

from dumbwaiter.blobs.presence import STALE_AFTER, WorkerStatus, said_of
from dumbwaiter.blobs.profiles import ServiceProfile, load_profile
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.config import ScalingSettings
from dumbwaiter.demand.hearing import Hearing
from dumbwaiter.demand.inflow import Inflow, most_each
from dumbwaiter.errors import BlobDamagedError, QueueNotFoundError, SignalUnknownError
from dumbwaiter.message import QueueStats
from dumbwaiter.policies.keda import cold_start_of
from dumbwaiter.policies.scaling import Decision, History, Look, Rules, decide, lacks, work_ahead

UNBOUNDED = 1_000_000
"""The most workers where the settings name none."""
NO_QUEUE = "no queue yet"
"""Why there should be a worker of a model that never had one: it makes the queue, and shows what the model takes."""
SIGNAL_UNKNOWN = "signal unknown"
"""Why there are as many as whoever looks wants where the broker does not tell what the settings follow."""


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """What a look showed and what follows from it.

    *workers*: all that were heard of lately, of every state; *silence*: how many seconds ago, by name. *rules* are the
    settings with the *cold_start* that is known now. *has_queue*: whether any worker ever was there to make it; without
    a queue nothing can wait.
    """

    model: str
    look: Look
    decision: Decision
    rules: Rules
    workers: Sequence[WorkerStatus] = ()
    silence: Mapping[str, float] = {}
    profile: ServiceProfile | None = None
    has_queue: bool = True


class PoolWatcher:
    """Looks at the pool of *model* on an open broker and a store, again and again, and remembers what decisions need.

    *boot*: seconds before a worker's own start, which is measured. Each of several watchers of one pool may look as
    often as it likes; none changes anything.
    """

    def __init__(
        self, broker: Broker, store: BlobStore, model: str, scaling: ScalingSettings, *, boot: float = 0.0
    ) -> None:
        self._broker = broker
        self._store = store
        self._scaling = scaling
        self._boot = boot
        self._history = History()
        self._inflow = Inflow()
        self._hearing = Hearing()
        self._silence: Mapping[str, float] = {}
        self._looked_at = time.time()
        self.model = model

    async def look(self, *, pending: int = 0, past: Collection[str] = (), if_unknown: int | None = None) -> PoolView:
        """Look at the queue and the workers, and decide. *pending*: workers that were ordered and say nothing yet.
        *past*: the names of workers that are known to be gone or about to, whatever the store still says of them.

        Where the broker does not tell what the settings follow, *if_unknown* workers are decided on, within the bounds
        that are set, and the alarm says why; without it that raises SignalUnknownError. Raises BrokerError, BlobError.
        """
        began = time.time()
        # Workers first: what they settle meanwhile is missed for a moment, rather than counted twice.
        heard = await self._heard()
        workers = [one for one in heard if one.worker not in past]
        profile = await self._profile()
        rules = rules_of(self._scaling, profile, boot=self._boot)
        ready, starting = _counted(workers, pending)
        try:
            stats = await self._broker.stats(self.model)
        except QueueNotFoundError:
            has_queue, seen = False, Look(0, 0, 0.0, 0, None, ready, starting)
            decision = self._decision(1, rules, NO_QUEUE)
        else:
            has_queue, (seen, inflow) = True, self._seen(stats, heard, profile, ready=ready, starting=starting)
            if unknown := lacks(seen, rules):
                decision = self._without_signal(seen, rules, SignalUnknownError(unknown, rules.signal), if_unknown)
            else:
                self._history, decision = decide(self._history, seen, rules, time.monotonic())
                self._inflow, self._looked_at = inflow, began
        return PoolView(
            model=self.model,
            look=seen,
            decision=decision,
            rules=rules,
            workers=workers,
            silence=self._silence,
            profile=profile,
            has_queue=has_queue,
        )

    async def is_waited_for(self) -> bool:
        """Whether anything waits, or there is no telling without a look(): a glance, for a pool without workers.

        Raises BrokerError.
        """
        try:
            stats = await self._broker.stats(self.model)
        except QueueNotFoundError:
            return True
        return stats.ready is None or stats.ready > 0

    async def _heard(self) -> list[WorkerStatus]:
        said = await said_of(self._store, self.model)
        self._hearing, self._silence = self._hearing.after(said, wall=time.time(), now=time.monotonic())
        return [status for status in said if self._silence[status.worker] < STALE_AFTER]

    async def _profile(self) -> ServiceProfile | None:
        try:
            return await load_profile(self._store, self.model)
        except BlobDamagedError:  # the next worker to write makes it whole; until then nothing is known
            return None

    def _without_signal(
        self, seen: Look, rules: Rules, unknown: SignalUnknownError, if_unknown: int | None
    ) -> Decision:
        if if_unknown is None:
            raise unknown
        return self._decision(if_unknown, rules, SIGNAL_UNKNOWN, work=work_ahead(seen), alarm=str(unknown))

    def _decision(self, wanted: int, rules: Rules, why: str, *, work: float = 0.0, alarm: str = "") -> Decision:
        """*wanted* workers, within the bounds of *rules*, whatever the policy would say."""
        wanted = min(max(wanted, rules.min_replicas), rules.max_replicas)
        return Decision(wanted, wanted, why, work, self._history.offered.load, alarm)

    def _seen(
        self,
        stats: QueueStats,
        heard: Sequence[WorkerStatus],
        profile: ServiceProfile | None,
        *,
        ready: int,
        starting: int,
    ) -> tuple[Look, Inflow]:
        in_hand = sum(status.in_hand for status in heard)
        waiting, in_flight = stats.ready, stats.locked
        if in_flight is None:
            in_flight = in_hand
            if waiting is not None and self._broker.capabilities.ready_includes_locked:
                waiting = max(0, waiting - in_hand)
        inflow, came, seconds_each = self._inflow, 0, _seconds_each(heard, profile)
        if waiting is not None:
            young = frozenset(status.worker for status in heard if status.started_at > self._looked_at)
            there = waiting + in_flight + (stats.delayed or 0)
            settled = {status.worker: status.settled for status in heard}
            most = most_each(seconds_each)
            inflow, came = inflow.after(there, settled, time.monotonic(), young=young, most_each=most)
        return Look(waiting, in_flight, stats.oldest_age, came, seconds_each, ready, starting), inflow


def rules_of(scaling: ScalingSettings, profile: ServiceProfile | None, *, boot: float = 0.0) -> Rules:
    """*scaling* as the policy takes it, with the cold start that is set, or else *boot* and what was measured. Pure."""
    measured = 0.0 if profile is None else profile.cold_start
    return Rules(
        max_replicas=UNBOUNDED if scaling.max_replicas is None else scaling.max_replicas,
        min_replicas=scaling.min_replicas,
        signal=scaling.signal,
        drain_target=scaling.drain_target,
        spare=scaling.spare,
        age_target=scaling.age_target,
        messages_each=scaling.messages_each,
        scale_in_after=scaling.scale_in_after,
        idle_after=scaling.idle_after,
        cold_start=cold_start_of(scaling.cold_start, boot=boot, measured=measured),
    )


def _counted(workers: Sequence[WorkerStatus], pending: int) -> tuple[int, int]:
    """How many serve, and how many are on their way. One that cannot load its model is neither, nor one that leaves."""
    states = [status.state for status in workers]
    return states.count("ready"), states.count("loading") + pending


def _seconds_each(workers: Sequence[WorkerStatus], profile: ServiceProfile | None) -> float | None:
    """What is expected of the next input; where the profile is lost, what workers have measured lately."""
    known = None if profile is None else profile.seconds_each(time.time())
    if known is not None:
        return known
    measured = [status.seconds_each for status in workers if status.seconds_each > 0.0]
    return sum(measured) / len(measured) if measured else None
