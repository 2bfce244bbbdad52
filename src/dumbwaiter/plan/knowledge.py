"""What the running system would know of a pool at a moment: counts, ages, and service times of answered inputs."""

from __future__ import annotations

import numpy as np

from dumbwaiter.blobs.presence import ANNOUNCE_EVERY
from dumbwaiter.demand.inflow import Inflow
from dumbwaiter.plan.pool import Pool
from dumbwaiter.plan.services import Curve
from dumbwaiter.plan.traces import Floats, Sizes, Trace
from dumbwaiter.policies.scaling import Look
from dumbwaiter.policies.service_times import Bucket, ServiceTimes, bucket_of, expected, merged

_FORMER = 100
"""Inputs that were answered before, as far as they still count."""
_ALL = "all"


class Knowledge:
    """Of *pool*. What is expected of an input is wrong by the factor *wrong* all the time; *times* are known from
    before, as from a profile. Workers tell what they have measured and settled every few seconds, not all at once.
    """

    def __init__(self, pool: Pool, trace: Trace, *, wrong: float = 1.0, times: ServiceTimes | None = None) -> None:
        self.times = times or ServiceTimes()
        self._pool = pool
        self._wrong = wrong
        sizes, kinds = np.unique(trace.nbytes, return_inverse=True)
        of_sizes = np.array([bucket_of(int(one)) for one in sizes], dtype=np.int64)
        buckets, places = np.unique(of_sizes, return_inverse=True)
        self._buckets = [int(one) for one in buckets]
        self._kinds: Sizes = places[kinds]
        self._untold: Sizes = np.empty(0, dtype=np.int64)
        self._told_at: Floats = np.empty(0)
        self._begun: Floats = np.empty(0)
        """When each worker answered its first input; NaN before."""
        self._settled = 0
        # Before the start there was nothing, and that was seen.
        self._inflow = Inflow(sums=((0.0, 0),))

    def look(self) -> Look:
        """What the policy may see now."""
        pool = self._pool
        self._hear()
        waiting, in_flight = pool.waiting, pool.in_flight
        settled = {_ALL: self._settled}
        self._inflow, came = self._inflow.after(waiting + in_flight, settled, pool.now, young=frozenset(settled))
        seconds = expected(self.times, pool.now)
        return Look(
            waiting=waiting,
            in_flight=in_flight,
            oldest_age=pool.oldest_age,
            arrived=came,
            seconds_each=None if seconds is None else seconds * self._wrong,
            ready=pool.ready,
            starting=pool.starting,
        )

    def _hear(self) -> None:
        """What workers have told by now of the inputs that they have answered."""
        pool = self._pool
        ended = pool.finished_since()
        if ended.size:
            ended = ended[np.argsort(pool.finish[ended], kind="stable")]
            self._untold = np.concatenate([self._untold, ended])
            self._told_at = np.concatenate([self._told_at, self._tellings(ended)])
        if not self._untold.size:
            return
        if not self.times.is_known:
            self.times = self._news(self._untold[:1])
        is_told = self._told_at <= pool.now
        told, self._untold, self._told_at = self._untold[is_told], self._untold[~is_told], self._told_at[~is_told]
        self._settled += int(told.size)
        if told.size:
            self.times = merged(self.times, self._news(told), pool.now)

    def _tellings(self, ended: Sizes) -> Floats:
        """When each of *ended*, in the order of their ends, is told: again and again by each worker from the end of its
        first one on, of which it has only measured by then how long it took.
        """
        pool = self._pool
        who, ends = pool.by[ended], pool.finish[ended]
        workers, firsts = np.unique(who, return_index=True)
        missing = len(pool.workers) - len(self._begun)
        self._begun = np.concatenate([self._begun, np.full(missing, np.nan)])
        new = np.isnan(self._begun[workers])
        self._begun[workers[new]] = ends[firsts[new]]
        begun = self._begun[who]
        return np.asarray(begun + ANNOUNCE_EVERY * np.maximum(1.0, np.ceil((ends - begun) / ANNOUNCE_EVERY)))

    def _news(self, places: Sizes) -> ServiceTimes:
        """As workers count: by bucket of sizes, the mean work of an input, and how many there were."""
        kinds, work = self._kinds[places], self._pool.work[places]
        counts = np.bincount(kinds, minlength=len(self._buckets))
        sums = np.bincount(kinds, weights=work, minlength=len(self._buckets))
        buckets: dict[int, Bucket] = {}
        for kind in np.flatnonzero(counts):
            count = float(counts[kind])
            buckets[self._buckets[kind]] = Bucket(float(sums[kind]) / count, count, self._pool.now)
        return ServiceTimes(buckets=buckets)


def known_before(trace: Trace, curve: Curve) -> ServiceTimes:
    """What the model's profile would hold from inputs such as the first of *trace*, answered before it began."""
    sizes, work = trace.nbytes[:_FORMER], trace.each[:_FORMER] + curve.fixed / curve.target
    kinds = np.array([bucket_of(int(one)) for one in sizes], dtype=np.int64)
    return ServiceTimes(
        buckets={
            int(kind): Bucket(float(work[kinds == kind].mean()), float((kinds == kind).sum()), 0.0)
            for kind in np.unique(kinds)
        }
    )
