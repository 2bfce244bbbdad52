"""How long the model takes: tau(b) = a + c*b for a batch of b inputs, given or measured, and how inputs differ."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np

from dumbwaiter.plan.bounds import LONGEST_SERVICE, SHORTEST_SERVICE
from dumbwaiter.plan.traces import USUAL_NBYTES, Floats, Sizes
from dumbwaiter.policies.batching import LatencyCurve, most_in_hand, target_size
from dumbwaiter.policies.service_times import ServiceTimes, expected_of

_NUMBER = r"(\d+(?:\.\d*)?(?:[eE]-?\d+)?|\.\d+)"
_CURVE = re.compile(rf"\s*{_NUMBER}\s*\+\s*{_NUMBER}\s*\*?\s*b\s*")
GREATEST = 2**40
"""Bytes. No body is larger."""


@dataclass(frozen=True, slots=True)
class Heavy:
    """Inputs that take *seconds* more than others in their batch: *share* of all, and *later* of those that come in
    the second half of the time.
    """

    seconds: float
    share: float
    later: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A batch takes *fixed* seconds, and *each* for each of its at most *max_batch* inputs."""

    fixed: float = 0.0
    each: float = 0.15
    max_batch: int = 1
    decode_threads: int = 2

    @property
    def target(self) -> int:
        """The batch worth aiming at, as the runner decides it once it knows this curve."""
        learnt = LatencyCurve()
        for size in (1, 2, 4, 8, max(self.max_batch, 2)):
            learnt.observe(size, self.fixed + self.each * size)
        return target_size(learnt, self.max_batch)

    def helping(self, each: float | None = None) -> int:
        """How many messages a worker asks for at a time that has learnt what inputs add to their batches: *each*."""
        target = self.target
        seconds_each = self.fixed / target + (self.each if each is None else each)
        if seconds_each < SHORTEST_SERVICE:
            seconds_each = 0.0
        return most_in_hand(target, seconds_each, max_batch=self.max_batch, decode_threads=self.decode_threads)


@dataclass(frozen=True, slots=True)
class Inputs:
    """How the inputs of a model differ: *heavy* ones, by a lognormal factor with the coefficient of variation
    *varies*, or as *measured*. *sizes_tell*: heavy inputs have larger bodies, in proportion.
    """

    curve: Curve
    heavy: Heavy | None = None
    varies: float = 0.0
    sizes_tell: bool = True
    measured: ServiceTimes | None = field(default=None)

    def drawn(self, rng: np.random.Generator, arrivals: Floats, duration: float) -> tuple[Floats, Sizes]:
        """For requests at *arrivals*: what each adds to its batch, in seconds, and the size of its body."""
        count = len(arrivals)
        if self.measured is not None and self.measured.is_known:
            return _as_measured(rng, self.measured, count)
        each = np.full(count, self.curve.each)
        nbytes = np.full(count, USUAL_NBYTES, dtype=np.int64)
        if self.heavy is not None:
            later = self.heavy.share if self.heavy.later is None else self.heavy.later
            share = np.where(arrivals < duration / 2, self.heavy.share, later)
            heavy = rng.random(count) < share
            each[heavy] = self.heavy.seconds
            if self.sizes_tell:
                nbytes[heavy] = _proportional(self.heavy.seconds, self.curve.each)
        if self.varies > 0.0:
            spread = math.sqrt(math.log1p(self.varies**2))
            each *= rng.lognormal(-(spread**2) / 2, spread, count)
        return np.minimum(each, LONGEST_SERVICE), nbytes

    def of_sizes(self, nbytes: Sizes) -> Floats:
        """What inputs of these sizes add to their batches: as measured, else all the same."""
        if self.measured is None or not self.measured.is_known:
            return np.full(len(nbytes), self.curve.each)
        known, places = np.unique(nbytes, return_inverse=True)
        seconds = np.array([expected_of(self.measured, int(one)) or 0.0 for one in known])
        return seconds[places]


def parse_curve(text: str, max_batch: int) -> Curve:
    """``0.02+0.004b``: seconds of a batch of b. Raises ValueError."""
    found = _CURVE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no curve; write the seconds of a batch of b inputs as 0.02+0.004b")
    fixed, each = float(found[1]), float(found[2])
    if not SHORTEST_SERVICE <= fixed + each * max_batch <= LONGEST_SERVICE or 0.0 < each < SHORTEST_SERVICE:
        raise ValueError(
            f"{text!r} is no time that a batch takes; the largest may take from {SHORTEST_SERVICE:g} to"
            f" {LONGEST_SERVICE:g} s, and each input of it nothing or {SHORTEST_SERVICE:g} s and more"
        )
    return Curve(fixed=fixed, each=each, max_batch=max_batch)


def parse_heavy(text: str) -> Heavy:
    """``3:0.02`` is 3 seconds for 2 % of the inputs; ``3:0.02:0.25``: 25 % from the half on. Raises ValueError."""
    parts = text.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not 2 <= len(numbers) <= 3 or not numbers[0] > 0 or not all(0 <= share <= 1 for share in numbers[1:]):
        raise ValueError(f"{text!r} says no heavy inputs; write SECONDS:SHARE or SECONDS:SHARE:LATER, such as 3:0.02")
    if not SHORTEST_SERVICE <= numbers[0] <= LONGEST_SERVICE:
        raise ValueError(f"{text!r}: heavy inputs may take from {SHORTEST_SERVICE:g} to {LONGEST_SERVICE:g} s")
    return Heavy(numbers[0], numbers[1], numbers[2] if len(numbers) == 3 else None)


def _proportional(seconds: float, usual: float) -> int:
    return min(GREATEST, round(USUAL_NBYTES * max(1.0, seconds / usual))) if usual > 0.0 else USUAL_NBYTES


def _as_measured(rng: np.random.Generator, measured: ServiceTimes, count: int) -> tuple[Floats, Sizes]:
    keys = sorted(measured.buckets)
    weights = np.array([measured.buckets[key].weight for key in keys])
    drawn = rng.choice(len(keys), size=count, p=weights / weights.sum())
    seconds = np.array([measured.buckets[key].seconds for key in keys])
    sizes = np.array([2**key for key in keys], dtype=np.int64)
    return np.minimum(seconds[drawn], LONGEST_SERVICE), sizes[drawn]
