"""What a worker says in its seat, and asks for, by what is known of its model. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from dumbwaiter.devices.admission import Moved, What
from dumbwaiter.policies import admission, footprints
from dumbwaiter.policies.admission import IDLE, Rung, Seat
from dumbwaiter.policies.batching import SHARED_HORIZON
from dumbwaiter.policies.footprints import Footprint

#: A batch of which nothing is known is asked for as this, and gets all the room there is.
LEAST = 2**20
_PROBE_SECONDS = 1.0
#: A batch is worth running if its inputs take at most so many times what they take in the best one.
WORTHWHILE = 1.25
#: What is known fades slowly: for so many seconds a ladder is good.
_LADDER_SECONDS = 60.0
#: After so many idle seconds a worker beside others keeps no more than a look into its queue takes.
HOARD_SECONDS = 1.0
#: How long it takes a runner to end, and the kernel and the driver to clear up.
_RETIRE_SECONDS = 0.3
#: How long loading, with a measurement of all that a model takes, is expected to last when nothing is known.
_FIRST_LOAD_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of a model on its device.

    *footprint* is None before anything was measured. *declared*: bytes that its users say it takes in all. *target* is
    the batch worth aiming at; a model that *takes_one* is given so many inputs one after the other, each
    of which takes *seconds_each*. *most*: bytes of activation that can be granted at all, None if that is not known.
    *is_fixed*: the runner that is there could not be parked when that was tried.
    """

    model: str
    weight: float
    declared: int | None
    footprint: Footprint | None = None
    target: int = 1
    takes_one: bool = True
    seconds_each: float = 0.0
    most: int | None = None
    is_fixed: bool = False
    _ladders: dict[int, tuple[float, Sequence[Rung]]] = field(default_factory=dict, init=False, compare=False)

    @property
    def must_be_measured(self) -> bool:
        """Whether it has to be loaded with nobody else on the device: also where batches were declared, for nobody
        can tell what a process's context takes while others come and go.
        """
        return self.footprint is None

    @property
    def parks(self) -> bool:
        """Whether its weights can leave the device while its process stays."""
        return self.footprint is not None and self.footprint.parked is not None and not self.is_fixed

    def probe_size(self, want: int, room: int) -> int | None:
        """The batch that has to be measured before *want* inputs can be granted as they should be."""
        if self.footprint is None or self.declared is not None:
            return None
        size = footprints.next_probe(self.footprint, 1 if self.takes_one else self.target, room=room)
        return size if size is not None and size <= want else None

    def may_grow(self, now: float) -> bool:
        """Whether the smallest batch could be granted more than it is now. *now* is Unix time."""
        if self.declared is not None:
            return False
        rungs = self._rungs(1, now)
        return bool(rungs) and self.most is not None and rungs[0].nbytes < self.most

    def ladder(self, want: int, now: float) -> Sequence[Rung]:
        """What is worth asking for, for *want* inputs, ascending; *size* counts inputs. *now* is Unix time.

        A smaller batch than WORTHWHILE is not, where there is work for a larger one that fits on the device: whoever
        takes what is left beside others would go on like that, and so would they.
        """
        rungs = self.all(want, now)
        best = min((rung.seconds / rung.size for rung in rungs), default=0.0)
        return [rung for rung in rungs if self.takes_one or rung.seconds / rung.size <= WORTHWHILE * best]

    def all(self, want: int, now: float) -> Sequence[Rung]:
        """Everything that could be run for *want* inputs, ascending; the last one in several batches, if need be."""
        most = 1 if self.takes_one else self.target
        return self._with_several(want, self._rungs(min(want, most), now), most)

    def smallest(self, want: int, now: float) -> Sequence[Rung]:
        """What a look into the queue is worth, for at most *want* inputs: the least that is of any use."""
        return self._with_several(want if self.takes_one else 1, self._rungs(1, now), 1)

    def _with_several(self, want: int, rungs: Sequence[Rung], most: int) -> Sequence[Rung]:
        if not rungs or want <= most or rungs[-1].size < most:
            return rungs
        last = rungs[-1]
        each = self.seconds_each if self.takes_one and self.seconds_each else last.seconds
        return [*rungs, Rung(want, last.nbytes, each * math.ceil(want / most))]

    def _rungs(self, most: int, now: float) -> Sequence[Rung]:
        made_at, rungs = self._ladders.get(most, (-math.inf, ()))
        if not made_at <= now < made_at + _LADDER_SECONDS:
            known = self.footprint or Footprint()
            rungs = footprints.ladder(known, most, now, declared=self.declared, room=self.most)
            rungs = [rung for rung in rungs if self.most is None or rung.nbytes <= self.most] or rungs[:1]
            if rungs and rungs[0].size == 1 and self.declared is None and rungs[0].nbytes < (least := _alone(known)):
                rungs = [replace(rungs[0], nbytes=least)]
            self._ladders[most] = (now, rungs)
        return rungs


def _alone(footprint: Footprint) -> int:
    """Bytes that an input alone was measured to take: where there are fewer, it is no use to try."""
    ones = [sizes[1] for sizes in footprint.batches.values() if 1 in sizes]
    newest = max((one.last for one in ones), default=0.0)
    exact = [one.nbytes for one in ones if one.basis == "exact" and one.last >= newest - footprints.LIVE]
    return max(exact, default=0)


def introduced(seat: Seat, known: Knowledge, now: float) -> Seat:
    """*seat* with all that is known of its model. *now* is Unix time."""
    footprint = known.footprint or Footprint()
    full = max(footprint.full, seat.resident)
    # What was declared is all that it takes, so the batch's part of that is known once the weights are.
    ladder = known.ladder(1 if known.takes_one else known.target, now) if known.footprint is not None else ()
    first = ladder[0] if ladder else Rung(1, LEAST, _PROBE_SECONDS)
    last = ladder[-1] if ladder else first
    reload_seconds = (footprint.wake_seconds if known.parks else 0.0) or footprint.load_seconds
    is_loaded = seat.resident >= full > 0
    return msgspec.structs.replace(
        seat,
        full=full,
        parked=footprint.context + (footprint.parked or 0) if known.parks else 0,
        need=first.nbytes,
        seconds=first.seconds,
        # A grant is for a batch, or several short ones, and is prolonged by as much while nobody waits.
        longest=2 * max(last.seconds, SHARED_HORIZON),
        reload_seconds=reload_seconds,
        park_seconds=footprint.park_seconds if known.parks else _RETIRE_SECONDS,
        load_seconds=0.0 if is_loaded else seat.load_seconds or footprint.load_seconds or _FIRST_LOAD_SECONDS,
    )


def after_move(seat: Seat, what: What, moved: Moved, known: Knowledge, now: float) -> Seat:
    """*seat* once its runner's memory was *moved*, or could not be."""
    context = known.footprint.context if known.footprint is not None else 0
    held = context + moved.reserved
    if what == "park":
        seat = admission.parked(seat) if moved.is_done else msgspec.structs.replace(seat, doing=IDLE)
        return msgspec.structs.replace(seat, resident=held) if moved.is_done else seat
    if what == "wake" and not moved.is_done:
        seat = admission.give_back(seat, now, was_used=False)
        return msgspec.structs.replace(seat, resident=held, load_seconds=seat.reload_seconds)
    if what == "wake":
        seat = admission.loaded(seat, now)
    return msgspec.structs.replace(seat, resident=held, full=max(seat.full, held))
