"""How many workers a model should have. Pure.

The same functions drive the local autoscaler, KEDA's external scaler and its metrics, and the simulator. They speak of
one *pool*: the workers that pull from one queue. Work is in seconds of one worker, each input's share of its batch.

    desired = max( ceil(W/T + R), ceil(R + beta*sqrt(R)), age guard, 1 if anything is in flight )

W is the work that waits and runs, R the work that comes in a second (offered load, in workers), T the time within which
what waits is to be done: the target that is set, or a cold start where that is longer. W/T + R follows the backlog, and
R is its feed-forward: workers ordered by the backlog alone come too late, by their boot and load time, and then are too
many. R + beta*sqrt(R) is square-root staffing (Halfin and
Whitt, 1981; Borst, Mandelbaum and Reiman, 2004): the spare that random arrivals need grows with the root of the load.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

MEMORY = 45.0
"""Seconds after which an arrival counts for 1/e of a new one in the offered load."""
WATCHED_AT_LEAST = 10.0
"""Offered load is taken over no fewer seconds: what a first short look shows may be a lump of a longer time."""
TOLERANCE = 0.1
"""A load that is less by no more than this part is the same load to those who serve it, as it is to Kubernetes."""
COLD_STARTS = 3.0
"""Nobody is sent away whom the next burst within so many cold starts would call back."""


NOTHING_WAITS = "nothing waits"
"""The reason of a look that asks for no worker."""

_LEAST_WEIGHT = 1.0 - math.exp(-WATCHED_AT_LEAST / MEMORY)
_MOST = 1e12
"""What is beyond it, or no number at all, is a damaged file or a lie: nothing here is to overflow for it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is aimed at; config.ScalingSettings says what each means. *cold_start* is 0.0 while nobody knows it."""

    max_replicas: int
    min_replicas: int = 0
    signal: Literal["work", "messages", "age"] = "work"
    drain_target: float = 5.0
    spare: float = 3.0
    age_target: float = 10.0
    messages_each: float = 2.0
    scale_in_after: float = 60.0
    idle_after: float = 60.0
    cold_start: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a pool showed. Counts are of messages; None: nobody can tell.

    *waiting*: ready to be received. *in_flight*: received and not settled. *oldest_age*: seconds that the oldest one
    has been ready. *arrived*: since the look before this one. *seconds_each*: expected work of one message that waits;
    None while nothing was measured. *ready* and *starting*: workers that serve, and those ordered that do not yet.
    """

    waiting: int | None
    in_flight: int | None
    oldest_age: float | None
    arrived: int
    seconds_each: float | None
    ready: int
    starting: int

    @property
    def current(self) -> int:
        """Workers that are there or on their way."""
        return self.ready + self.starting

    @property
    def is_idle(self) -> bool:
        """Whether it is known that nothing waits or runs."""
        return self.waiting == 0 and self.in_flight == 0


@dataclass(frozen=True, slots=True)
class Offered:
    """Offered load so far: an exponential mean with MEMORY, corrected for how short it has been watched."""

    total: float = 0.0
    weight: float = 0.0

    @property
    def load(self) -> float:
        """Work-seconds a second, which is workers' worth."""
        return self.total / max(self.weight, _LEAST_WEIGHT)

    def after(self, seconds: float, work: float) -> Offered:
        """With *work* seconds of work that came in the last *seconds*."""
        if seconds <= 0.0:
            return self
        kept = math.exp(-seconds / MEMORY)
        rate = _bounded(_bounded(work) / seconds)
        return Offered(self.total * kept + (1.0 - kept) * rate, self.weight * kept + (1.0 - kept))


@dataclass(frozen=True, slots=True)
class History:
    """What a pool's decisions remember: *at*, the moment of the last look; the offered load; *idle_since*; the *wanted*
    counts within the window, each with its moment, the newest last; and *odd_since*, from when on all looks alarmed.
    """

    at: float | None = None
    offered: Offered = Offered()
    idle_since: float | None = None
    wanted: tuple[tuple[float, int], ...] = ()
    odd_since: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """*desired* workers now; *raw* is what this look alone asks for, for who smooths by himself, as Kubernetes does.

    *work* is W and *offered* is R; *why* names the term that decided, and *alarm* says what seems wrong, or is empty.
    """

    desired: int
    raw: int
    why: str
    work: float
    offered: float
    alarm: str = ""


def lacks(look: Look, rules: Rules) -> str | None:
    """What *rules* follow and the broker does not tell, in words that go before "which"; None: nothing."""
    if rules.signal == "age":
        return "how long the oldest message has waited" if look.oldest_age is None else None
    return "how many messages wait" if look.waiting is None else None


def decide(history: History, look: Look, rules: Rules, now: float) -> tuple[History, Decision]:
    """The workers that the pool should have at *now*, seconds of any clock that only goes on, and the new history.

    Raises ValueError where *look* lacks() what *rules* follow. A failed look is not passed here either: it says
    nothing, and nothing is changed by it.
    """
    if unknown := lacks(look, rules):
        raise ValueError(f"scaling by {rules.signal} follows {unknown}, which is unknown")
    offered = _offered(history, look, now)
    raw, why, alarm = _raw(look, offered.load, rules)
    if look.is_idle:
        raw = min(raw, look.current)  # load that came may keep workers, but orders none while nothing is there
    elif look.current and rules.signal == "work":
        raw, why = _unless_too_late(look, offered.load, rules, raw, why)
    raw = min(max(raw, rules.min_replicas), rules.max_replicas)
    idle_since = _idle_since(history, look, now)
    window = max(rules.scale_in_after, COLD_STARTS * rules.cold_start)
    before = history.wanted if history.at is not None else ((now, look.current),)
    kept = max(raw, _worth_keeping(look, offered.load, rules))
    wanted = (*((at, count) for at, count in before if now - at <= window), (now, kept))
    desired = _settled(wanted, raw, look.current)
    if _may_end(idle_since, rules, now):
        desired, why = 0, "idle"
    elif look.current and rules.min_replicas == 0:
        desired = max(desired, 1)
    odd_since = (now if history.odd_since is None else history.odd_since) if alarm else None
    told = alarm if _has_lasted(odd_since, look, rules, now) else ""
    return (
        History(now, offered, idle_since, _thinned(wanted), odd_since),
        Decision(desired, raw, why, work_ahead(look), offered.load, told),
    )


def work_ahead(look: Look) -> float:
    """W: seconds of work that wait or run, where one that runs is half done on average; 0.0 while nobody can tell."""
    if look.seconds_each is None:
        return 0.0
    return _bounded((_bounded(look.waiting or 0) + _bounded(look.in_flight or 0) / 2) * _bounded(look.seconds_each))


def arrivals(*, before: int, after: int, settled: int) -> int:
    """Messages that came between two counts of a queue, waiting and in flight, while *settled* left it."""
    return max(0, after - before + settled)


# --- one look ---


def _offered(history: History, look: Look, now: float) -> Offered:
    if history.at is None or look.seconds_each is None:
        return history.offered
    return history.offered.after(now - history.at, _bounded(look.arrived) * _bounded(look.seconds_each))


def _raw(look: Look, load: float, rules: Rules) -> tuple[int, str, str]:
    """What this look asks for, unbounded; which term said so; and what seems wrong."""
    terms: dict[str, int] = {}
    alarm = ""
    if rules.signal == "messages":
        terms["messages"] = _ceil((_bounded(look.waiting or 0) + _bounded(look.in_flight or 0)) / rules.messages_each)
    elif rules.signal == "age":
        # By those that serve: counted with those on their way, each look would multiply what the one before ordered.
        terms["age"] = _ceil(max(1, look.ready) * _bounded(look.oldest_age or 0.0) / rules.age_target)
    elif look.seconds_each is not None:
        terms["backlog"] = _ceil(work_ahead(look) / _within(rules) + load)
        terms["load"] = _staffing(load, rules)
        # Of one that nobody hears of, and that is there all the same, the first one more is the second one.
        needed = max(1, *terms.values())
        if _is_late(look, rules) and needed <= max(1, look.current) and not look.starting:
            # A guard and no controller: one more than is needed, however long it lasts and how many are there.
            terms["age"] = needed + 1
            alarm = f"the oldest message has waited {_bounded(look.oldest_age or 0.0):.3g} s, {_what_seems_wrong(look)}"
    terms["in use"] = 0 if look.is_idle else 1
    why = max(terms, key=lambda name: terms[name])
    return terms[why], why if terms[why] else NOTHING_WAITS, alarm


def _has_lasted(odd_since: float | None, look: Look, rules: Rules, now: float) -> bool:
    """Whether those that serve have had the time to do what waits: it may be old because nobody served before them."""
    return odd_since is not None and (not look.current or now - odd_since >= _within(rules))


def _what_seems_wrong(look: Look) -> str:
    if not look.current:
        return "and no worker is heard of: it cannot be started, cannot load its model, or hangs"
    return (
        "although the work that is known of needs no more workers: its service time is underestimated, or a worker is"
        " stuck"
    )


def _within(rules: Rules) -> float:
    """Seconds within which what waits is to be done: no fewer than a worker takes to come. What waits by then is that
    late anyhow, and to drain it in an instant takes many workers who then have nothing to do.
    """
    return max(rules.drain_target, rules.cold_start)


def _staffing(load: float, rules: Rules) -> int:
    return _ceil(load + rules.spare * math.sqrt(load))


def _worth_keeping(look: Look, load: float, rules: Rules) -> int:
    """Those of the workers that are there whom a load that is larger by TOLERANCE would call back: a load that hovers
    at the edge between two counts must not start and end a worker again and again.
    """
    if rules.signal != "work" or look.is_idle:
        return 0
    return min(look.current, rules.max_replicas, _staffing(load * (1.0 + TOLERANCE), rules))


def _is_late(look: Look, rules: Rules) -> bool:
    """Those that nobody hears of may be on their way, as on a cluster: they have their cold start."""
    patience = rules.age_target if look.current else rules.age_target + rules.cold_start
    return look.oldest_age is not None and look.oldest_age > patience


def _unless_too_late(look: Look, load: float, rules: Rules, raw: int, why: str) -> tuple[int, str]:
    """Cold-start awareness: a worker ordered now does nothing of what those that serve finish before it is there."""
    if why != "backlog" or raw <= look.current or not rules.cold_start:
        return raw, why
    left = max(0.0, work_ahead(look) - max(0.0, look.ready - load) * rules.cold_start)
    needed = max(_ceil(left / _within(rules) + load), _staffing(load, rules))
    return (raw, why) if needed >= raw else (max(needed, look.current), "cold start")


# --- over time ---


def _settled(wanted: tuple[tuple[float, int], ...], raw: int, current: int) -> int:
    """More at once; fewer only down to the most that was wanted within the window."""
    return raw if raw >= current else min(current, max(count for _, count in wanted))


def _idle_since(history: History, look: Look, now: float) -> float | None:
    if not look.is_idle:
        return None
    # What came since the look before and is gone again was work too, although no look ever met it.
    return now if history.idle_since is None or look.arrived else history.idle_since


def _may_end(idle_since: float | None, rules: Rules, now: float) -> bool:
    if idle_since is None or rules.min_replicas > 0:
        return False
    return now - idle_since >= max(rules.idle_after, rules.cold_start)


def _thinned(wanted: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    """Without those that a later and larger one covers: they can never be the most again."""
    kept: list[tuple[float, int]] = []
    for at, count in wanted:
        while kept and kept[-1][1] <= count:
            kept.pop()
        kept.append((at, count))
    return tuple(kept)


# --- numbers that may be anything ---


def _bounded(value: float) -> float:
    """*value* between 0.0 and _MOST; 0.0 where it is no number, which is unknown."""
    # Not float(value) first: an int may be too large for it.
    return float(min(value, _MOST)) if value > 0 else 0.0


def _ceil(value: float) -> int:
    return math.ceil(_bounded(value))
