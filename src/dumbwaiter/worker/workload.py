"""What one worker has done so far, counted for whoever scales: a few additions for each input."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from dumbwaiter.blobs.profiles import ServiceProfile
from dumbwaiter.policies.batch_times import bin_of, gathered
from dumbwaiter.policies.batching import LatencyCurve
from dumbwaiter.policies.service_times import Bucket, ServiceTimes, bucket_of
from dumbwaiter.worker.hand import Held
from dumbwaiter.worker.pipe import Done

_RECENT = 64


class Workload:
    """Counters of the worker of *model*; *start_seconds*: how long its process had run when it was made.

    *work_seconds* is the device time of all inputs so far, each one's share of its batch. *load_seconds* is how long
    the newest runner took to become ready. What was counted since the last take() is news for the model's profile.
    There an input's work is its share of a batch of the size that is aimed at: where little waits batches are small and
    a share is large, but more workers would make them smaller still.
    """

    def __init__(self, model: str, *, start_seconds: float = 0.0) -> None:
        self._model = model
        self._sums: dict[int, tuple[float, int]] = {}
        self._batches: dict[int, float] = {}
        self._loaded = 0.0
        self._curve = LatencyCurve()
        self._last = (0.0, 0)
        self._started = start_seconds
        self.work_seconds = 0.0
        self.load_seconds = 0.0
        self.recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        """The last batches: how many inputs, and how many seconds they took."""

    def note_loaded(self, seconds: float) -> None:
        """A runner was ready *seconds* after it was started."""
        self.load_seconds = self._loaded = seconds

    def note_done(self, inputs: Sequence[Held], done: Done) -> None:
        """The runner is *done* with *inputs*, in the order of its results."""
        for held, result in zip(inputs, done.results, strict=True):
            seconds, size = result.device, max(result.batch_size, 1)
            if seconds > 0.0:
                self._note_batch(seconds, size)
            bucket = bucket_of(held.nbytes)
            total, count = self._sums.get(bucket, (0.0, 0))
            self._sums[bucket] = (total + seconds / size * self._saving(size, done.target), count + 1)
            self.work_seconds += seconds / size

    def _note_batch(self, seconds: float, size: int) -> None:
        """Once for each input of a batch; the latency curve hears of a batch once."""
        number = bin_of(seconds)
        self._batches[number] = self._batches.get(number, 0.0) + 1.0 / size
        if (seconds, size) != self._last:
            self._last = (seconds, size)
            self._curve.observe(size, seconds)
            self.recent.append((size, seconds))

    def _saving(self, size: int, target: int) -> float:
        """An input's share in a batch of *target*, as a part of its share in one of *size*; 1.0 while nobody knows."""
        if size >= target or self._curve.fit() is None:
            return 1.0
        return min(1.0, self._curve.predict(target) / target / (self._curve.predict(size) / size))

    @property
    def has_news(self) -> bool:
        """Whether take() would say anything."""
        return bool(self._sums) or self._loaded > 0.0

    @property
    def mean(self) -> float | None:
        """Seconds of work of an input, of those since the last take(); None if there were none."""
        count = sum(count for _, count in self._sums.values())
        return sum(total for total, _ in self._sums.values()) / count if count else None

    def take(self, now: float) -> ServiceProfile:
        """What is new since the last call, as of *now*, seconds since the Unix epoch."""
        buckets = {key: Bucket(total / count, float(count), now) for key, (total, count) in self._sums.items()}
        news = ServiceProfile(
            model=self._model,
            times=ServiceTimes(buckets=buckets),
            batches=gathered(self._batches, now),
            load_seconds=self._loaded,
            start_seconds=self._started,
        )
        self._sums, self._batches, self._loaded, self._started = {}, {}, 0.0, 0.0
        return news


def process_age() -> float:
    """Seconds since this process was started, to a hundredth; 0.0 where the kernel does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        started_at = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_at)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
