"""Who starts and stops workers, and when: the local autoscaler, or Kubernetes with KEDA.

Both ask the same policy. What differs is how often they look, how long a worker takes to come, and what Kubernetes
makes of a number: its tolerance, its window, its limits, and KEDA's own way to zero and back.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from dumbwaiter.autoscale.following import GLANCE_EVERY
from dumbwaiter.plan.knowledge import Knowledge
from dumbwaiter.plan.pool import Pool
from dumbwaiter.policies.keda import is_active, keda_times
from dumbwaiter.policies.scaling import History, Rules, decide

PUSHED_AFTER = 0.1
"""Seconds after which KEDA has heard from our external scaler of a first message."""
ROUNDING = 1e-9
"""What floating point may be off where a ratio is compared or rounded up."""


@dataclass(frozen=True, slots=True)
class Machines:
    """*boot*: seconds from ordering a worker until its process starts, as for a node that has to come; *load*: from
    there until it serves. A worker that is sent away is stopped after *grace* seconds, whatever it runs; its process is
    gone, and no longer paid for, *leave* seconds after its last batch.
    """

    boot: float = 0.0
    load: float = 10.0
    grace: float = math.inf
    leave: float = 0.0

    @property
    def cold_start(self) -> float:
        """Seconds from ordering a worker to its first batch."""
        return self.boot + self.load


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The autoscaler of ``dumbwaiter serve``: looks *look_every* seconds, and starts and stops at once."""

    look_every: float = 2.0


@dataclass(frozen=True, slots=True)
class KedaSettings:
    """Seconds, as in a ScaledObject and its HPA; by itself as KEDA and Kubernetes have them where nobody says.

    *tolerance*: the HPA leaves changes of so small a part alone. *up_percent* and *up_pods*: it adds the larger of
    these in one sync; None: as many as it likes. *push*: our external scaler tells KEDA of the first message at once,
    and what each look asks for; else KEDA reads our page, by metrics-api: there it is what all the looks ask for.
    """

    polling_interval: float = 30.0
    cooldown: float = 300.0
    sync_every: float = 15.0
    tolerance: float = 0.1
    stabilization: float = 300.0
    up_percent: float | None = 100.0
    up_pods: int | None = 4
    push: bool = False


@dataclass(frozen=True, slots=True)
class Native:
    """A trigger of KEDA's own: so many messages for each worker; those in flight count too where *counts_in_flight*.
    The rest is what the ScaledObject's times are made from, as Rules say it.
    """

    messages_each: float
    counts_in_flight: bool = True
    max_replicas: int = 10
    min_replicas: int = 0
    scale_in_after: float = 60.0
    idle_after: float = 60.0
    cold_start: float = 0.0


def as_rendered(rules: Rules | Native, *, polling_interval: float, push: bool) -> KedaSettings:
    """KEDA as ``dumbwaiter deploy kubernetes`` tells it to be for a model with these *rules*."""
    told = keda_times(
        polling_interval=polling_interval,
        scale_in_after=rules.scale_in_after,
        idle_after=rules.idle_after,
        cold_start=rules.cold_start,
    )
    return KedaSettings(
        polling_interval=told.polling_interval,
        cooldown=told.cooldown,
        stabilization=told.window,
        up_percent=None,
        up_pods=None,
        push=push,
    )


class Actuator(ABC):
    """Acts on *pool* at next_at, again and again."""

    next_at = 0.0

    def __init__(self, pool: Pool, machines: Machines) -> None:
        self.pool = pool
        self.machines = machines

    @abstractmethod
    def act(self) -> None:
        """Look, decide, start and stop workers; and set next_at."""

    def scale_to(self, wanted: int) -> None:
        """Order or send away what is too few or too many."""
        missing = wanted - self.pool.current
        if missing > 0:
            for _ in range(missing):
                self.pool.order(1, self.pool.now + self.machines.cold_start)
        elif missing < 0:
            self.pool.retire(-missing, grace=self.machines.grace, leave=self.machines.leave)


class Local(Actuator):
    """The local autoscaler: every look's decision is done at once. A worker that is sent away finishes its batch."""

    def __init__(
        self, pool: Pool, machines: Machines, knowledge: Knowledge, rules: Rules, settings: LocalSettings
    ) -> None:
        super().__init__(pool, machines)
        self._knowledge = knowledge
        self._rules = rules
        self._every = settings.look_every
        self._history = History()

    def act(self) -> None:
        """One look."""
        pool = self.pool
        self._history, decision = decide(self._history, self._knowledge.look(), self._rules, pool.now)
        self.scale_to(decision.desired)
        if pool.current:
            self.next_at = pool.now + self._every
        elif math.isfinite(pool.next_arrival):  # the glances until then, which show nothing, are left out
            self.next_at = pool.now + GLANCE_EVERY * max(1, math.ceil((pool.next_arrival - pool.now) / GLANCE_EVERY))
        else:
            self.next_at = math.inf


class Keda(Actuator):
    """KEDA between 0 and 1, the HPA above; which pods go the ReplicaSet decides, by the cost that workers patch."""

    def __init__(
        self,
        pool: Pool,
        machines: Machines,
        knowledge: Knowledge,
        rules: Rules | Native,
        settings: KedaSettings,
    ) -> None:
        super().__init__(pool, machines)
        self._settings = settings
        self._read = _meter(knowledge, rules, pool, push=settings.push)
        self._is_pushed = settings.push and not isinstance(rules, Native)
        self._least, self._most = rules.min_replicas, rules.max_replicas
        self._replicas = rules.min_replicas
        self._recommended: list[tuple[float, int]] = []
        self._active_at = -math.inf
        self._next_poll = 0.0
        self._next_sync = settings.sync_every

    def act(self) -> None:
        """A poll of KEDA's, or a sync of the HPA's, whichever is due; and the ReplicaSet replaces who was lost."""
        now, settings = self.pool.now, self._settings
        if now >= self._next_poll:
            self._poll(now)
            self._next_poll = now + settings.polling_interval
        if now >= self._next_sync:
            if self._replicas:
                self._sync(now)
            self._next_sync = now + settings.sync_every
        self.scale_to(self._replicas)
        if self._is_pushed and self._replicas == 0:
            self._next_poll = min(self._next_poll, max(now, self.pool.next_arrival) + PUSHED_AFTER)
        self.next_at = min(self._next_poll, self._next_sync)

    def _poll(self, now: float) -> None:
        """From zero on when there is anything; to zero, from however many, when there was nothing for the cooldown."""
        _, active = self._read()
        if active:
            self._active_at = now
            if self._replicas == 0:
                self._replicas = max(1, self._least)
                self._recommended = []
        elif self._least == 0 and now - self._active_at >= self._settings.cooldown:
            self._replicas = 0

    def _sync(self, now: float) -> None:
        value, _ = self._read()
        self._recommended, self._replicas = synced(
            self._recommended, self._replicas, value, now, self._settings, self._least, self._most
        )


def synced(
    recommended: list[tuple[float, int]],
    replicas: int,
    value: float,
    now: float,
    settings: KedaSettings,
    least: int,
    most: int,
) -> tuple[list[tuple[float, int]], int]:
    """One sync of an HPA at *replicas* pods for a metric of AverageValue 1: what it remembers, and its new count.

    Source: kubernetes.io, "Horizontal Pod Autoscaling", and pkg/controller/podautoscaler of Kubernetes.
    """
    asked = replicas if abs(value / replicas - 1.0) <= settings.tolerance + ROUNDING else math.ceil(value - ROUNDING)
    asked = min(max(asked, 1, least), most)
    kept = [(at, count) for at, count in recommended if now - at < settings.stabilization]
    kept.append((now, asked))
    if asked > replicas:
        return kept, min(asked, _up_to(replicas, settings))
    return kept, min(replicas, max(count for _, count in kept))


def _up_to(replicas: int, settings: KedaSettings) -> int:
    if settings.up_percent is None and settings.up_pods is None:
        return 2**31
    by_percent = math.ceil(replicas * (1 + (settings.up_percent or 0.0) / 100))
    return max(by_percent, replicas + (settings.up_pods or 0))


def _meter(knowledge: Knowledge, rules: Rules | Native, pool: Pool, *, push: bool) -> Callable[[], tuple[float, bool]]:
    """What KEDA reads, in workers, and whether it is a sign of work: our policy's answer to one look, or a count of
    messages over its target.
    """
    if isinstance(rules, Native):
        native = rules

        def count() -> tuple[float, bool]:
            messages = pool.waiting + (pool.in_flight if native.counts_in_flight else 0)
            return messages / native.messages_each, messages > 0

        return count
    history, followed = History(), rules

    def ask() -> tuple[float, bool]:
        nonlocal history
        look = knowledge.look()
        history, decision = decide(history, look, followed, pool.now)
        if push:
            return float(decision.raw), is_active(look, followed)
        return float(decision.desired), decision.desired > 0

    return ask
