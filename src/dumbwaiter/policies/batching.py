"""When to run a batch, with whom, and how much to pull for it. Pure.

Never wait at low load; batch what is there, up to the knee of the measured latency curve tau(b) = a + c*b; wait for
more only when the gain is real; under overload drop early those that cannot make their deadline (Nexus, SOSP'19:
sizing the batch to the oldest message's slack instead collapses to tiny batches).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

#: Throughput at the knee, as a fraction of the curve's asymptote 1/c.
KNEE = 0.95
#: Utilisation above which waiting for a fuller batch may pay.
BUSY = 0.7
#: How much work to hold in hand for a model that takes one input at a time, in seconds of device time.
HORIZON = 0.02
#: And where others share the device: each change of hands costs some milliseconds in which nobody runs.
SHARED_HORIZON = 0.1
#: Most messages in hand for such a model, however fast it is.
MOST_SINGLES = 64
#: How long answers may be held back, in seconds: always, and where the device has more work in hand than ROUND_TRIP.
SHORT_HOLD, LONG_HOLD = 0.001, 0.01
#: A generous guess at the time from an answer to its caller's next request.
ROUND_TRIP = 0.01
#: A generous guess at the time in which a broker hands out a message that waits.
RECEIVING = 0.1


@dataclass(slots=True)
class LatencyCurve:
    """tau(b) = a + c*b in seconds, fitted by least squares over batches seen, older ones fading.

    Unknown until two different batch sizes have been seen; then predict() answers with the mean seen so far.
    """

    fade: float = 0.98
    _weight: float = 0.0
    _size: float = 0.0
    _seconds: float = 0.0
    _size_size: float = 0.0
    _size_seconds: float = 0.0

    def observe(self, size: int, seconds: float) -> None:
        """One batch of *size* took *seconds*."""
        keep = self.fade
        self._weight = self._weight * keep + 1.0
        self._size = self._size * keep + size
        self._seconds = self._seconds * keep + seconds
        self._size_size = self._size_size * keep + size * size
        self._size_seconds = self._size_seconds * keep + size * seconds

    def fit(self) -> tuple[float, float] | None:
        """(a, c) in seconds, neither below 0; None while the sizes seen do not differ enough to tell them apart."""
        spread = self._weight * self._size_size - self._size * self._size
        if self._weight < 3.0 or spread <= 0.02 * self._size * self._size:
            return None
        slope = (self._weight * self._size_seconds - self._size * self._seconds) / spread
        slope = max(slope, 0.0)
        return max((self._seconds - slope * self._size) / self._weight, 0.0), slope

    def predict(self, size: int) -> float:
        """Expected seconds of a batch of *size*; 0.0 before anything was seen."""
        fitted = self.fit()
        if fitted is not None:
            return fitted[0] + fitted[1] * size
        return self._seconds / self._weight if self._weight else 0.0

    def knee(self) -> int | None:
        """The smallest batch with KNEE of the best possible throughput; None while unknown or without a limit."""
        fitted = self.fit()
        if fitted is None or fitted[1] <= 0.0:
            return None
        return max(1, math.ceil(KNEE / (1.0 - KNEE) * fitted[0] / fitted[1]))


@dataclass(frozen=True, slots=True)
class Waiting:
    """One decoded input in hand. *deadline* in the same clock as *now*; *alone*: it must not share a batch."""

    deadline: float | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with the inputs in hand, as indices into them. With nothing to run: look again after *wait* s."""

    run: list[int] = field(default_factory=list)
    drop: list[int] = field(default_factory=list)
    wait: float | None = None


def target_size(curve: LatencyCurve, max_batch: int, latency_target: float | None = None) -> int:
    """The batch size worth aiming at: min(max_batch, the curve's knee, the largest within *latency_target*)."""
    size = max_batch
    knee = curve.knee()
    if knee is not None:
        size = min(size, knee)
    fitted = curve.fit()
    if latency_target is not None and fitted is not None and fitted[1] > 0.0:
        size = min(size, int((latency_target - fitted[0]) / fitted[1]))
    return max(1, size)


def decide_batch(
    waiting: Sequence[Waiting],
    now: float,
    *,
    curve: LatencyCurve,
    target: int,
    idle_since: float,
    decoding: int = 0,
    decode_gap: float = 0.0,
    arrival_gap: float | None = None,
) -> Decision:
    """Choose the next batch from *waiting* (in order), whom to drop, or how long to wait for more.

    *idle_since*: when the device became free for this batch. *decoding*: how many more inputs are being decoded, one
    about every *decode_gap* seconds. *arrival_gap*: expected seconds between arrivals, None if unknown.
    """
    drop = hopeless(waiting, now, curve=curve, target=target)
    alive = [index for index in range(len(waiting)) if index not in drop]
    if not alive:
        return Decision(drop=sorted(drop))
    if waiting[alive[0]].alone:
        return Decision(run=alive[:1], drop=sorted(drop))
    company = [index for index in alive if not waiting[index].alone][:target]
    if not drop and len(company) < target and len(company) == len(alive):
        wait = _worth_waiting(waiting, now, curve, idle_since, decoding, decode_gap, arrival_gap)
        if wait > 0.0:
            return Decision(wait=wait)
    return Decision(run=company, drop=sorted(drop))


def hopeless(waiting: Sequence[Waiting], now: float, *, curve: LatencyCurve, target: int) -> set[int]:
    """Early drop: those whose deadline passes before the batch that would start with them ends.

    Only messages with a deadline are ever dropped. Nothing seen yet of the model: only those already past.
    """
    drop: set[int] = set()
    for index, item in enumerate(waiting):
        if item.deadline is None:
            continue
        window = 1 if item.alone else min(target, len(waiting) - index)
        if now + curve.predict(window) > item.deadline:
            drop.add(index)
    return drop


def _worth_waiting(
    waiting: Sequence[Waiting],
    now: float,
    curve: LatencyCurve,
    idle_since: float,
    decoding: int,
    decode_gap: float,
    arrival_gap: float | None,
) -> float:
    """Seconds to wait for one more member, 0.0 for run now."""
    fitted = curve.fit()
    if fitted is None:
        return 0.0
    fixed, size = fitted[0], len(waiting)
    if decoding:
        gap = decode_gap  # certain to come, so no question of load
    elif arrival_gap is not None and curve.predict(size) / size > BUSY * arrival_gap:
        gap = arrival_gap
    else:
        return 0.0
    # One more member saves the fixed cost once and costs everyone here the gap; and all waits together
    # must not cost more than what a batch saves.
    if fixed <= size * gap or now + gap - idle_since > fixed:
        return 0.0
    latest = now + gap + curve.predict(size + 1)
    if any(item.deadline is not None and item.deadline < latest for item in waiting):
        return 0.0
    return gap


def most_in_hand(
    target: int,
    seconds_each: float,
    *,
    max_batch: int,
    decode_threads: int,
    decode_seconds: float = 0.0,
    horizon: float = HORIZON,
) -> int:
    """How many messages the runner should hold at most in one helping, so that it neither starves nor hoards.

    For a batched model as many whole batches as *horizon*, seconds of work, has room for, and one at least; for a
    one-at-a-time model about that many seconds of work, and as many as *decode_threads* decode, *decode_seconds* each,
    where the device would wait for them. What a slow model held beyond that another worker could have begun.
    """
    if max_batch > 1:
        batch_seconds = seconds_each * target
        batches = int(horizon / batch_seconds) if batch_seconds > 0.0 and horizon > HORIZON else 1
        return target * max(1, min(batches, MOST_SINGLES // target))
    if seconds_each <= 0.0:
        return MOST_SINGLES
    by_time = math.ceil(min(horizon / seconds_each, MOST_SINGLES))
    coming = math.ceil(min((RECEIVING + decode_seconds) / seconds_each, decode_threads))
    return max(1, by_time, coming)


def decoders_wanted(ready: int, *, target: int, threads: int) -> int:
    """How many of the decode *threads* may work now, when *ready* inputs wait for a device that runs *target* at once.

    One decodes ahead. The others help only while the device would have to wait for inputs: on a machine with few
    cores they slow down the model otherwise, for nothing.
    """
    return threads if ready < target else 1


def may_hold_answers(held_for: float, *, ready: int, seconds_each: float) -> bool:
    """Whether answers of a one-at-a-time model may wait for the next one, to travel and be settled together.

    *held_for*: how long the oldest of them has waited; *ready*: inputs that wait for the device, each of which takes
    *seconds_each*, and so long would they wait more. A few milliseconds of that buy fewer commits, but only where the
    device has work for longer than the answers' callers need to ask again: else it would wait for them.
    """
    until = held_for + seconds_each
    return until < SHORT_HOLD or (until < LONG_HOLD and ready * seconds_each > ROUND_TRIP)


def pull_size(in_hand: int, helping: int, *, last_was_full: bool) -> int:
    """How many messages to ask the broker for now; 0 for none.

    Idle: one helping. Busy: one more helping in advance, only when the last receive was nearly full;
    otherwise messages stay in the queue for whoever is idle. Not for the sake of a few crumbs.
    """
    if in_hand == 0:
        return helping
    if not last_was_full:
        return 0
    room = 2 * helping - in_hand
    return min(room, helping) if room >= max(1, helping // 4) else 0


def was_nearly_full(asked: int, got: int) -> bool:
    """Whether a receive suggests that more is waiting in the queue."""
    return got >= max(1, math.ceil(0.75 * asked))
