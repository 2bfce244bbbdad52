"""What a model takes of a device: measured once, corrected by what its batches really take. Pure.

Bytes are ints, times are seconds; moments are seconds of one clock that goes on between runs (Unix time).

What is known of a batch size is a decayed maximum (Autopilot, EuroSys'20: limits from decayed peaks of the history and
a margin): a larger need counts at once, a smaller one brings it down slowly. A batch is granted what the worst shape of
input needs that came within LIVE, for nobody knows the shapes of messages that are still in the queue.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from dumbwaiter.policies.rungs import Rung

MIB = 1 << 20

HALF_LIFE = 600.0
"""A smaller need brings what is kept down by half of the difference for each so many seconds since it last moved."""
LIVE = 3600.0
"""A bucket that was not seen for so many seconds before the one seen last no longer counts for what is granted."""
FRESH = 60.0
"""For so many seconds another batch that was as expected is no news."""
RAN_OUT_LIFE = 86_400.0
"""How long it counts, in seconds, that a batch ran out of memory, if it never ran since. What was guessed from it may
be out of all reach although it was somebody else's doing, and then no batch would ever correct it.
"""
MARGIN = 1.1
"""For what differs from batch to batch of one shape: the choice of algorithms, and fragmentation."""
SLACK = 20 * MIB
"""Added to every estimate: one more segment than last time. PyTorch's caching allocator takes 20 MiB for a tensor of 1
to 10 MiB, so a batch that needs one tensor more may reserve that much more.
"""
RAN_OUT_FACTOR = 1.5
"""After running out of memory a batch gets so much more: few steps to any device's capacity, none much too long."""
MOST_BUCKETS, MOST_SIZES = 16, 32
"""How many buckets, and sizes of each, are remembered."""
GUESS = 0.1
"""Seconds of a batch while nothing is known."""
SMOOTHING = 0.2
"""What the newest batch's seconds count in the average."""
ENDLESS = 1 << 50
"""Bytes, more than any device has: no estimate goes beyond, so that all of them can be written down."""
LEAST = MIB
"""Bytes of activation that a batch takes at the least where its model's total was declared."""

Basis = Literal["exact", "at_most", "ran_out"]


class Measured(msgspec.Struct, frozen=True, array_like=True):
    """What a batch of some size took: *nbytes* of activation, the most in a while, and *seconds*; as of *at*.

    *seen*: when one last ran, if that was later and said nothing of its memory. *basis*: what *nbytes* rests on:
    measured, only bounded from above, or guessed after running out of memory.
    """

    nbytes: int
    seconds: float
    at: float
    seen: float = 0.0
    basis: Basis = "exact"

    @property
    def last(self) -> float:
        """When a batch of this size last ran."""
        return max(self.at, self.seen)


class Observation(msgspec.Struct, frozen=True, array_like=True):
    """One batch of *size*, whose largest input is of the shape *bucket*, took *nbytes* of activation and *seconds*.

    *is_exact*: nothing was cached when it began, so it needed all of that; else it needed that at the most.
    *is_out_of_memory*: there was not enough for it, and *nbytes* is what it had got to.
    """

    bucket: str
    size: int
    nbytes: int
    seconds: float
    is_exact: bool = False
    is_out_of_memory: bool = False


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What one model takes of one device.

    *context*: what the process takes before it loads anything; *weights*: what is reserved once the model is loaded and
    nothing cached; *parked*: what of the weights stays on the device when it is parked, None if it cannot be parked.
    *batches*: what batches took, by shape bucket and size.
    """

    context: int = 0
    weights: int = 0
    parked: int | None = None
    load_seconds: float = 0.0
    park_seconds: float = 0.0
    wake_seconds: float = 0.0
    batches: dict[str, dict[int, Measured]] = {}

    @property
    def full(self) -> int:
        """Bytes held when loaded."""
        return self.context + self.weights


def observed(footprint: Footprint, observation: Observation, now: float, *, room: int | None = None) -> Footprint:
    """*footprint* with what one more batch took.

    * Exact: a larger need counts at once; a smaller one brings the known value down by half of the difference per
      HALF_LIFE, and at once where that was only a bound.
    * Not exact: it needed *nbytes* at the most, so it can only bring the value down, in the same way. Of a size not
      known yet it records that bound, or what was expected if that is less: what an earlier and larger batch left in
      the cache says nothing about this one, and would keep all batches small. A larger bound changes no bytes.
    * Out of memory: the value rises to RAN_OUT_FACTOR times the most of what was known, what such a batch is granted
      and what it had got to. Repeated, that is soon more than the device has, and the size is asked for no more, until
      RAN_OUT_LIFE has passed. The seconds of such a batch are not counted.

    *room*: bytes of activation that the device has for this model when nobody else is there. A batch of one is never
    guessed to need more: there is no smaller one, so it would not run again, and nothing would correct the guess.
    """
    sizes = dict(footprint.batches.get(observation.bucket, {}))
    sizes[observation.size] = _judged(footprint, observation, now, room)
    batches = {**footprint.batches, observation.bucket: _newest_sizes(sizes)}
    return msgspec.structs.replace(footprint, batches=_newest_buckets(batches))


def tells(footprint: Footprint, observation: Observation, now: float) -> bool:
    """Whether *observation* says anything that observed() would make much of; most batches are like the one before."""
    known = footprint.batches.get(observation.bucket, {}).get(observation.size)
    if known is None or observation.is_out_of_memory or now - known.last >= FRESH:
        return True
    is_larger = observation.is_exact and observation.nbytes > known.nbytes
    return is_larger or abs(observation.seconds - known.seconds) > known.seconds / 4


def activation(footprint: Footprint, size: int, now: float, *, room: int | None = None) -> int | None:
    """Bytes that a batch of *size* has to be granted, whatever the shape of its inputs; None while nothing is known.

    MARGIN times what the worst live bucket needs, and SLACK; never less for a larger batch. Between measured sizes
    needs are taken to be linear, below the smallest to be the smallest's. Above its largest a bucket is taken to grow
    as those do that were measured further, and in proportion by what it needs more than they; where none was, by the
    steepest slope seen, and at least in proportion. The margin alone never lifts it above *room*, for a batch that fits
    without it ran there.
    """
    hulls = _live_hulls(footprint, now)
    return _granted(_worst(hulls, size), room) if hulls else None


def seconds(footprint: Footprint, size: int) -> float:
    """How long a batch of *size* is expected to run; a guess while nothing is known.

    The mean over the buckets, each counting half as much per HALF_LIFE that it was seen before the newest. In a
    bucket, times are linear between sizes, below the smallest its own, and above the largest on the line from the
    smallest to it, or in proportion.
    """
    return _expected(_paces(footprint), size)


def next_probe(footprint: Footprint, most: int, *, room: int | None = None) -> int | None:
    """The next size to measure, with nobody else on the device, before batches of *most* can be granted.

    1, 2, 4, ... that no bucket knows yet, and *most* itself unless a larger one is known; None when all are known, or
    when the least that the next one can be expected to need leaves nothing of *room*, bytes of activation on the empty
    device. That is less than activation() says: a probe that runs out of memory hurts nobody, one not tried would keep
    the batches small.
    """
    known = {size for sizes in footprint.batches.values() for size in sizes}
    steps = [*_steps(most)[:-1], *([most] if most > max(known, default=0) else [])]
    size = next((size for size in steps if size not in known), None)
    if size is None or room is None:
        return size
    least = [_least(_hull(sizes), size) for sizes in footprint.batches.values() if sizes]
    return size if not least or max(least) < room else None


def ladder(
    footprint: Footprint, most: int, now: float, *, declared: int | None = None, room: int | None = None
) -> Sequence[Rung]:
    """The batches up to *most* that can be asked for, ascending, none with less than a smaller one; empty while nothing
    is known.

    Of 1, 2, 4, ... and *most* those up to twice the largest size known: larger ones need a probe first. *declared*: the
    bytes that the whole model takes when it runs, its context and weights included; then that is what *most* takes.
    *room* as for activation(); a batch of one never asks for more, for all there is may do.
    """
    if declared is not None:
        return (Rung(most, min(max(declared - footprint.full, LEAST), ENDLESS), seconds(footprint, most)),)
    hulls = _live_hulls(footprint, now)
    if not hulls:
        return ()
    reach = 2 * max(hull.largest for hull in hulls)
    paces = _paces(footprint)
    return tuple(
        Rung(size, _granted(_worst(hulls, size), room, may_exceed=size > 1), _expected(paces, size))
        for size in _steps(most)
        if size <= reach
    )


# --- one observation ---


def _judged(footprint: Footprint, new: Observation, now: float, room: int | None) -> Measured:
    known = footprint.batches.get(new.bucket, {}).get(new.size)
    took = _smoothed(footprint, new, known)
    if new.is_out_of_memory:
        return Measured(_after_running_out(footprint, new, now, room), took, now, basis="ran_out")
    nbytes = max(0, new.nbytes)
    basis: Basis = "exact" if new.is_exact else "at_most"
    if known is None:
        return Measured(nbytes if new.is_exact else _tempered(footprint, new, now), took, now, basis=basis)
    if nbytes < known.nbytes:
        if known.basis == "at_most":
            return Measured(nbytes, took, now, basis=basis)
        return Measured(_lowered(known, nbytes, now), took, now)
    if new.is_exact:
        return Measured(nbytes, took, now)
    # The clock of the decay does not begin anew: this batch confirmed nothing.
    return msgspec.structs.replace(known, seconds=took, at=min(known.at, now), seen=now)


def _lowered(known: Measured, nbytes: int, now: float) -> int:
    left = math.exp2(-max(0.0, now - known.at) / HALF_LIFE)
    return nbytes + math.ceil((known.nbytes - nbytes) * left)


def _tempered(footprint: Footprint, new: Observation, now: float) -> int:
    """A bound for a size not known yet, or what was expected if that is less: so it never raises what others need."""
    own = footprint.batches.get(new.bucket)
    hulls = [*_furthest(_live_hulls(footprint, now)), *([_hull(own)] if own else [])]
    return min(max(0, new.nbytes), math.ceil(_worst(hulls, new.size))) if hulls else max(0, new.nbytes)


def _after_running_out(footprint: Footprint, new: Observation, now: float, room: int | None) -> int:
    known = footprint.batches.get(new.bucket, {}).get(new.size)
    before = 0 if known is None else known.nbytes
    had = max(new.nbytes, before, activation(footprint, new.size, now, room=room) or SLACK)
    raised = min(math.ceil(RAN_OUT_FACTOR * had), ENDLESS)
    return raised if room is None or new.size > 1 else max(before, min(raised, room))


def _smoothed(footprint: Footprint, new: Observation, known: Measured | None) -> float:
    if new.is_out_of_memory:
        return seconds(footprint, new.size) if known is None else known.seconds
    took = max(0.0, new.seconds)
    return took if known is None else known.seconds + SMOOTHING * (took - known.seconds)


# --- what is remembered ---


def _newest_sizes(sizes: Mapping[int, Measured]) -> dict[int, Measured]:
    """Ascending. Probes go by powers of two and want the largest: those stay, or they would be measured again."""
    if len(sizes) > MOST_SIZES:
        largest = max(sizes)

        def rank(size: int) -> tuple[bool, float]:
            return size & (size - 1) == 0 or size == largest, sizes[size].last

        sizes = {size: sizes[size] for size in sorted(sizes, key=rank, reverse=True)[:MOST_SIZES]}
    return dict(sorted(sizes.items()))


def _newest_buckets(batches: dict[str, dict[int, Measured]]) -> dict[str, dict[int, Measured]]:
    if len(batches) <= MOST_BUCKETS:
        return batches
    newest = sorted(batches, key=lambda bucket: _last(batches[bucket]), reverse=True)[:MOST_BUCKETS]
    return {bucket: batches[bucket] for bucket in newest}


def _last(sizes: Mapping[int, Measured]) -> float:
    return max((one.last for one in sizes.values()), default=0.0)


# --- sizes that were not measured ---


class _Curve(NamedTuple):
    """Values at *sizes*, ascending; at least one."""

    sizes: Sequence[int]
    values: Sequence[float]

    @property
    def largest(self) -> int:
        return self.sizes[-1]

    def at(self, size: int) -> float:
        """The value at *size*, linear between two; before the first and behind the last, theirs."""
        sizes, values = self
        above = bisect_left(sizes, size)
        if above == len(sizes):
            return values[-1]
        if above == 0 or sizes[above] == size:
            return values[above]
        below = above - 1
        share = (size - sizes[below]) / (sizes[above] - sizes[below])
        return values[below] + (values[above] - values[below]) * share

    def steepest(self) -> float:
        """The most that one input more adds between two sizes; 0 of one size alone."""
        pairs = itertools.pairwise(zip(self.sizes, self.values, strict=True))
        return max(((more - less) / (large - small) for (small, less), (large, more) in pairs), default=0.0)


def _hull(sizes: Mapping[int, Measured]) -> _Curve:
    """Of each size what it needs or a smaller one does, whichever is more."""
    ascending = sorted(sizes)
    return _Curve(ascending, list(itertools.accumulate((sizes[size].nbytes for size in ascending), max)))


def _live_hulls(footprint: Footprint, now: float) -> list[_Curve]:
    # A clock may have been put back: what lies ahead of it was seen just now.
    newest = min(now, max(map(_last, footprint.batches.values()), default=now))
    live = [sizes for sizes in footprint.batches.values() if sizes and _last(sizes) >= newest - LIVE]
    fresh = [{size: one for size, one in sizes.items() if not _is_stale(one, now)} for sizes in live]
    return [_hull(sizes) for sizes in ([sizes for sizes in fresh if sizes] or live)]


def _is_stale(measured: Measured, now: float) -> bool:
    return measured.basis == "ran_out" and now - measured.at > RAN_OUT_LIFE


def _furthest(hulls: Sequence[_Curve]) -> list[_Curve]:
    end = max((hull.largest for hull in hulls), default=0)
    return [hull for hull in hulls if hull.largest == end]


def _worst(hulls: Sequence[_Curve], size: int) -> float:
    furthest = _furthest(hulls)
    end = furthest[0].largest
    need = max(_beside(hull, furthest, min(size, end)) for hull in hulls)
    if size <= end:
        return need
    return need + max(need / end, *(hull.steepest() for hull in hulls)) * (size - end)


def _beside(hull: _Curve, furthest: Sequence[_Curve], size: int) -> float:
    """What a bucket needs at *size*, beside *furthest*, which were measured up to there."""
    own, last = hull.largest, hull.values[-1]
    if size <= own:
        return hull.at(size)
    theirs = max(other.at(own) for other in furthest)
    growth = max(other.at(size) for other in furthest) - theirs
    return last + growth + max(0.0, last - theirs) / own * (size - own)


def _least(hull: _Curve, size: int) -> float:
    """The least that a bucket can be expected to need: of one size alone nothing is known of its slope."""
    return hull.values[-1] + hull.steepest() * max(0, size - hull.largest)


class _Pace(NamedTuple):
    """The seconds of a bucket's batches, what each input beyond the largest adds, and what the bucket counts."""

    curve: _Curve
    slope: float
    weight: float


def _paces(footprint: Footprint) -> list[_Pace]:
    newest = max(map(_last, footprint.batches.values()), default=0.0)
    paces = []
    for sizes in filter(None, footprint.batches.values()):
        ascending = sorted(sizes)
        times = [sizes[size].seconds for size in ascending]
        rise = max(0.0, times[-1] - times[0]) / max(1, ascending[-1] - ascending[0])
        slope = times[-1] / ascending[-1] if len(times) == 1 else min(rise, times[-1] / ascending[-1])
        paces.append(_Pace(_Curve(ascending, times), slope, math.exp2((_last(sizes) - newest) / HALF_LIFE)))
    return paces


def _expected(paces: Sequence[_Pace], size: int) -> float:
    if not paces:
        return GUESS
    times = (pace.weight * (pace.curve.at(size) + pace.slope * max(0, size - pace.curve.largest)) for pace in paces)
    return sum(times) / sum(pace.weight for pace in paces)


# --- what is asked for ---


def _granted(need: float, room: int | None, *, may_exceed: bool = True) -> int:
    granted = min(math.ceil(MARGIN * need) + SLACK, ENDLESS)
    if room is None:
        return granted
    return min(granted, max(room, math.ceil(need)) if may_exceed else room)


def _steps(most: int) -> list[int]:
    return [*(1 << power for power in range(max(0, (most - 1).bit_length()))), most]
