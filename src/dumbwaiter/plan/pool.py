"""One queue and the workers that pull from it, as they stand at a moment that only goes on.

Between two decisions nothing but arrivals and completions happens, so advance() goes from one to the next in a tight
loop over a heap of workers. Requests are known by their place in the trace; what becomes of each is kept in arrays.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dumbwaiter.plan.services import Curve
from dumbwaiter.plan.traces import Floats, Sizes, Trace
from dumbwaiter.policies.batching import pull_size, was_nearly_full
from dumbwaiter.policies.leaving import SHARE_FOR_BATCH
from dumbwaiter.policies.retiring import turn

Workers: TypeAlias = npt.NDArray[np.int32]
"""By request, a place among the workers."""
_NEVER = (inf, -1)


@dataclass(slots=True)
class Worker:
    """From *ordered* on it is paid for; it serves from *ready* on, and ends at *end*."""

    ordered: float
    ready: float
    end: float = inf


class Pool:
    """*trace*'s requests and their workers. *pulls_ahead*: as the running system, a busy worker pulls its next
    messages while there are many; without it, it is the queue of the textbooks, where nobody holds more than a batch.

    finish[i] is the moment at which request i was answered, NaN before; by[i] the worker that did; work[i] what that
    one tells of it: its part of the seconds of its batch, or of one of the size that is aimed at, if that is larger.
    """

    def __init__(self, trace: Trace, curve: Curve, *, pulls_ahead: bool = True) -> None:
        self.now = 0.0
        self.workers: list[Worker] = []
        self._count = len(trace)
        self._arrivals = array("d", trace.arrivals.tobytes())
        self._arrivals.append(inf)
        self._each = array("d", trace.each.tobytes())
        self._fixed = curve.fixed
        self._target = curve.target
        self._ahead = pulls_ahead
        self._helping = curve.helping(float(trace.each.mean()) if len(trace) else None) if pulls_ahead else self._target
        self._pulled = 0
        self._arrived = 0
        self._finish = array("d", bytes(8 * self._count))
        self._work = array("d", bytes(8 * self._count))
        self._by = array("i", bytes(4 * self._count))
        self.finish: Floats = np.frombuffer(self._finish, dtype=np.float64)
        self.work: Floats = np.frombuffer(self._work, dtype=np.float64)
        self.by: Workers = np.frombuffer(self._by, dtype=np.int32)
        self.finish[:] = np.nan
        self._in_flight: Sizes = np.empty(0, dtype=np.int64)
        self._seen = 0
        # The busy, each with the end of its batch; the idle, longest first; what each has pulled and not begun.
        self._busy: list[tuple[float, int]] = [_NEVER]
        self._idle: deque[int] = deque()
        self._hands: list[deque[int]] = []
        self._running: list[list[int]] = []
        self._full: list[bool] = []
        self._returned: list[tuple[float, int]] = []

    # --- what can be seen ---

    @property
    def is_done(self) -> bool:
        """Whether all requests are answered by now."""
        return self._pulled == self._count and not self._returned and not self._still_in_flight().size

    @property
    def next_arrival(self) -> float:
        """When the next request comes that has not come yet; infinite after the last."""
        return self._arrivals[self._arrived_by(self.now)]

    @property
    def waiting(self) -> int:
        """Messages that are ready to be received."""
        back = sum(at <= self.now for at, _ in self._returned)
        return self._arrived_by(self.now) - self._pulled + back

    @property
    def in_flight(self) -> int:
        """Messages that workers have in hand, or had when they were killed and whose locks have not run out."""
        return int(self._still_in_flight().size) - sum(at <= self.now for at, _ in self._returned)

    @property
    def oldest_age(self) -> float:
        """Seconds that the oldest waiting message has been ready; 0.0 when none waits."""
        oldest = self._arrivals[self._pulled] if self._pulled < self._count else inf
        oldest = min([oldest, *(at for at, _ in self._returned)])
        return max(0.0, self.now - oldest)

    @property
    def ready(self) -> int:
        """Workers that serve."""
        return len(self._alive()) - self.starting

    @property
    def starting(self) -> int:
        """Workers ordered that do not serve yet."""
        return sum(self.workers[one].ready > self.now for one in self._alive())

    @property
    def current(self) -> int:
        """Workers that are there or on their way, without those that only finish what they have begun."""
        return len(self._busy) - 1 + len(self._idle)

    def finished_since(self) -> Sizes:
        """The places of the requests that were answered since this was asked before."""
        before = self._refreshed()
        ended = before[self.finish[before] <= self.now]
        self._in_flight = before[~(self.finish[before] <= self.now)]
        return ended

    # --- what workers are ordered and sent away ---

    def order(self, count: int, ready: float) -> None:
        """Start *count* workers that serve from *ready* on."""
        for _ in range(count):
            place = len(self.workers)
            self.workers.append(Worker(self.now, ready))
            self._hands.append(deque())
            self._running.append([])
            self._full.append(False)
            heappush(self._busy, (ready, place))

    def retire(self, count: int, *, grace: float = inf, leave: float = 0.0) -> None:
        """Send *count* workers away, in the order of policies.retiring. What they have not begun goes back to the queue
        at once, and so does what takes longer than *grace*. They are paid for until *leave* seconds after that.
        """
        places = sorted(self._alive(), key=self._turn)[:count]
        self._leave(places)
        for place in places:
            self._end(place, grace=grace, back_after=0.0)
            self.workers[place].end += leave

    def kill(self, places: list[int], *, notice: float, lock: float) -> None:
        """Take these workers away. After a *notice* of some seconds they end as those that are sent away, what runs
        within the share of it that is a batch's; without one what they held is seen by nobody until its locks run out
        after *lock* seconds.
        """
        self._leave(places)
        for place in places:
            self._end(place, grace=SHARE_FOR_BATCH * notice, back_after=0.0 if notice > 0.0 else lock)

    def alive(self) -> list[int]:
        """The places in workers of those that are there or on their way."""
        return sorted(self._alive())

    # --- time ---

    def advance(self, until: float) -> None:
        """Let everything happen that happens before *until*."""
        if self._returned:
            self._go_slowly(until)
        elif not self._ahead and self._target == 1 and not self._idle:
            self._go_alone(until)
        else:
            self._go(until)
        self.now = until

    def _go_alone(self, until: float) -> None:
        """One at a time, nothing pulled ahead: the idle stay in the heap, since the longest idle is at its top."""
        busy, arrivals, each, finish = self._busy, self._arrivals, self._each, self._finish
        place, fixed, running, work, by = self._pulled, self._fixed, self._running, self._work, self._by
        while True:
            free, worker = busy[0]
            start = arrivals[place]
            if free > start:  # noqa: PLR1730 - max() would take a tenth longer, ten million times
                start = free
            if start >= until:
                break
            seconds = work[place] = fixed + each[place]
            finish[place] = end = start + seconds
            running[worker] = [place]
            by[place] = worker
            heapreplace(busy, (end, worker))
            place += 1
        self._pulled = place

    def _go(self, until: float) -> None:
        """Each event is a worker that becomes free, or a request that meets an idle one."""
        busy, idle, arrivals, begin = self._busy, self._idle, self._arrivals, self._begin
        while True:
            now, worker = busy[0]
            if idle and arrivals[self._pulled] <= now:
                now = arrivals[self._pulled]
                if now >= until:
                    return
                begin(now, idle.popleft())
            elif now >= until:
                return
            else:
                heappop(busy)
                begin(now, worker)

    def _go_slowly(self, until: float) -> None:
        """As _go(), with messages that came back: they are first in the queue once they are ready again."""
        while self._returned:
            now, worker = self._busy[0]
            comes = max(min(self._returned[0][0], self._arrivals[self._pulled]), self.now)
            if self._idle and comes <= now:
                now, worker = comes, self._idle.popleft()
                if now >= until:
                    self._idle.appendleft(worker)
                    return
            elif now >= until:
                return
            else:
                heappop(self._busy)
            self._begin(now, worker)
        self._go(until)

    def _begin(self, now: float, worker: int) -> None:
        """*worker* is free: it takes what it has in hand, or in the queue, and begins its next batch."""
        hand = self._hands[worker]
        if not hand:
            asked = self._helping
            self._full[worker] = was_nearly_full(asked, self._pull(now, hand, asked))
            if not hand:
                self._idle.append(worker)
                return
        if self._target == 1:
            place = hand.popleft()
            seconds = self._work[place] = self._fixed + self._each[place]
            self._finish[place] = end = now + seconds
            batch = [place]
        else:
            end, batch = self._begin_batch(now, hand)
        self._running[worker] = batch
        for place in batch:
            self._by[place] = worker
        heappush(self._busy, (end, worker))
        while self._ahead and self._full[worker]:
            asked = pull_size(len(batch) + len(hand), self._helping, last_was_full=True)
            if asked == 0:
                return
            self._full[worker] = was_nearly_full(asked, self._pull(now, hand, asked))

    def _begin_batch(self, now: float, hand: deque[int]) -> tuple[float, list[int]]:
        batch = [hand.popleft() for _ in range(min(self._target, len(hand)))]
        seconds = self._fixed + sum(self._each[place] for place in batch)
        saved = self._fixed / len(batch) - self._fixed / self._target
        for place in batch:
            self._work[place] = seconds / len(batch) - saved
            self._finish[place] = now + seconds
        return now + seconds, batch

    def _pull(self, now: float, hand: deque[int], most: int) -> int:
        """Take up to *most* of what waits at *now* into *hand*; how many there were."""
        before = len(hand)
        while self._returned and self._returned[0][0] <= now and len(hand) - before < most:
            hand.append(heappop(self._returned)[1])
        place, arrivals = self._pulled, self._arrivals
        end = place + most - (len(hand) - before)
        while place < end and arrivals[place] <= now:
            hand.append(place)
            place += 1
        self._pulled = place
        return len(hand) - before

    # --- inside ---

    def _alive(self) -> set[int]:
        return {worker for _, worker in self._busy if worker >= 0}.union(self._idle)

    def _arrived_by(self, now: float) -> int:
        """How many requests have come: all moments asked for only go on, so the search goes on from the last one."""
        place, arrivals = self._arrived, self._arrivals
        if arrivals[place] <= now:
            place += int(np.searchsorted(np.frombuffer(arrivals)[place:], now, side="right"))
            self._arrived = min(place, self._count)
        return self._arrived

    def _refreshed(self) -> Sizes:
        if self._seen < self._pulled:
            new = np.arange(self._seen, self._pulled, dtype=np.int64)
            self._in_flight = np.concatenate([self._in_flight, new])
            self._seen = self._pulled
        return self._in_flight

    def _still_in_flight(self) -> Sizes:
        places = self._refreshed()
        return places[~(self.finish[places] <= self.now)]

    def _turn(self, place: int) -> tuple[int, int, int]:
        in_hand = len(self._hands[place]) + sum(self._finish[one] > self.now for one in self._running[place])
        return turn("ready" if self.workers[place].ready <= self.now else "loading", in_hand=in_hand, place=place)

    def _leave(self, places: list[int]) -> None:
        leaving = set(places)
        self._idle = deque(one for one in self._idle if one not in leaving)
        self._busy = [one for one in self._busy if one[1] not in leaving]
        heapify(self._busy)

    def _end(self, place: int, *, grace: float, back_after: float) -> None:
        worker, now = self.workers[place], self.now
        back = list(self._hands[place])
        running = [one for one in self._running[place] if self._finish[one] > now]
        end = max((self._finish[one] for one in running), default=now)
        if end - now > grace:
            back += running
            for one in running:
                self._finish[one] = np.nan
            end = now
        worker.end = max(now, end)
        for one in back:
            heappush(self._returned, (now + back_after, one))
        self._hands[place].clear()


def costs(workers: list[Worker], start: float, end: float) -> Iterator[float]:
    """The seconds between *start* and *end* that each of *workers* is paid for."""
    for one in workers:
        yield max(0.0, min(one.end, end) - max(one.ordered, start))
