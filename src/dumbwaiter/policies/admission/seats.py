"""What each worker process says of itself to the others on its device, and how that changes. Pure.

Bytes are ints, times are seconds of one clock that all processes of the device share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

#: What is never given out: the larger of so many bytes and of this part of the capacity.
LEAST_RESERVE, RESERVE = 256 * 2**20, 0.03
#: How long a poll of an empty queue may look before others can have its room, in seconds.
POLL_SLICE = 0.02
#: How long the memory of a dead process is expected back at any moment; then others leave instead.
QUARANTINE_GRACE = 1.0
#: After so many seconds it counts as leaked.
LONGEST_QUARANTINE = 10.0
#: A ticket whose owner has not looked for so many seconds is passed over until it looks again.
STALE = 2.0
#: A grant is overdue after so many times its predicted length, and OVERDUE_SECONDS more.
OVERDUE, OVERDUE_SECONDS = 3.0, 1.0
#: Half of what was known of how often a seat is used is forgotten after so many seconds.
HALF_LIFE = 60.0

IDLE, RUNNING, POLLING, LOADING, PROBING, PARKING = "idle", "running", "polling", "loading", "probing", "parking"

_GB = 1e9
_LEAST_BYTES, _LEAST_SECONDS = 2**20, 1e-4


@dataclass(frozen=True, slots=True)
class Device:
    """A device's memory: *capacity* in bytes, *outside* of it held by what has no seat.

    *quarantined*: the places whose owner is dead, each with the moment since when. Such a seat counts with all it held
    until whoever keeps the ledger has seen its memory free and forgets it. *doubtful*: so much of *outside* may be gone
    already, which cannot be told before all are idle for a moment.
    """

    name: str
    capacity: int
    outside: int = 0
    quarantined: Mapping[int, float] = field(default_factory=dict)
    doubtful: int = 0

    @property
    def limit(self) -> int:
        """How many bytes may be given out in all."""
        return self.capacity - max(LEAST_RESERVE, math.ceil(RESERVE * self.capacity)) - self.outside


_WIRE = {
    "model": "m", "weight": "w", "doing": "d",
    "resident": "r", "full": "f", "parked": "p",
    "need": "n", "seconds": "s", "longest": "l",
    "load_seconds": "L", "reload_seconds": "R", "park_seconds": "P",
    "asked_at": "a", "looked_at": "k", "polls": "o", "probes": "b",
    "start_tag": "S", "finish_tag": "F", "clock": "C",
    "granted": "g", "granted_at": "G", "until": "u", "deadline": "D",
    "last_used": "U", "use_rate": "e", "resident_since": "i", "outside": "x", "doubtful": "y",
}  # fmt: skip


class Seat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_WIRE):
    """One worker process on its device. Only its owner writes it; everybody reads it.

    Short names on the wire, for a record has few bytes. A field that is missing there has its default, one that is
    unknown is skipped: versions can be mixed.
    """

    model: str = ""
    weight: float = 1.0
    """The model's share of the device against that of others."""
    doing: str = IDLE

    resident: int = 0
    """Bytes held now for context and weights; from the grant of a load on, what it will have loaded."""
    full: int = 0
    """What it holds when loaded."""
    parked: int = 0
    """What it holds when parked: the context. One that cannot be parked says the same as in *full*."""

    need: int = 0
    """Bytes of activation of its smallest batch."""
    seconds: float = 0.0
    """How long its smallest batch runs."""
    longest: float = 0.0
    """How long the largest batch runs that it will ask for, or its probe."""

    load_seconds: float = 0.0
    """How long until its weights are there, from where they are now; 0.0 when they are."""
    reload_seconds: float = 0.0
    """What *load_seconds* would be after it was parked."""
    park_seconds: float = 0.0

    asked_at: float | None = None
    """Since when it waits for a grant; None if it does not."""
    looked_at: float = 0.0
    """When its owner last looked whether its turn has come."""
    polls: bool = False
    """It only wants to look into its queue: whoever lacks the room gets it back after a slice."""
    probes: bool = False
    """It wants the device to itself."""

    start_tag: float = 0.0
    finish_tag: float = 0.0
    clock: float = 0.0
    """The latest virtual time that it has seen, in GB-seconds by weight."""

    granted: int = 0
    """Bytes of activation that it may use now."""
    granted_at: float = 0.0
    until: float = 0.0
    """When what it is doing is expected to end."""
    deadline: float = 0.0
    """From when on that is no longer believed."""

    last_used: float = 0.0
    use_rate: float = 0.0
    """Batches per second, as of *last_used*; fades with HALF_LIFE."""
    resident_since: float = 0.0

    outside: int = 0
    """Bytes of the device that, as far as it has seen, are held by what has no seat."""
    doubtful: int = 0
    """So many of them may be gone: it waits because of that, and nobody may take it never to fit."""

    @property
    def extra(self) -> int:
        """Bytes that it must load before it can run."""
        return max(self.full - self.resident, 0)

    @property
    def evictable(self) -> int:
        """Bytes that it would give back if it were parked."""
        return max(self.resident - self.parked, 0)


@dataclass(frozen=True, slots=True)
class Grant:
    """Load *extra* bytes if that is not 0, then run a batch of *size* with *nbytes* of activation.

    *in_turn*: it was given in the order of the line, else beside somebody who was before it and is not delayed.
    """

    size: int
    nbytes: int
    extra: int
    seconds: float
    in_turn: bool
    until: float
    deadline: float


def charge(seat: Seat, nbytes: int, seconds: float) -> float:
    """By how much a batch moves its model on: all it occupies while it runs, in GB-seconds by weight."""
    # Loading is not charged: whoever is evicted would pay for it.
    occupied = max(seat.full + nbytes, _LEAST_BYTES)
    return max(seconds, _LEAST_SECONDS) * occupied / _GB / seat.weight


def virtual_time(seats: Mapping[int, Seat]) -> float:
    """The start tag of the last grant that was given in turn."""
    return max((seat.clock for seat in seats.values()), default=0.0)


def ask(seats: Mapping[int, Seat], me: int, now: float, *, polls: bool = False, probes: bool = False) -> Seat:
    """The seat at *me* with a ticket: it waits from *now* on.

    Its tag is the later of the clock and of where its model's earlier tickets end: whoever was idle has saved nothing.
    Whoever has more work asks in the same turn in which it gives back: else its turn goes to whoever is waiting.
    """
    seat = seats[me]
    if seat.granted or seat.asked_at is not None:
        raise ValueError(f"{seat.model} at place {me} already waits or holds a grant; give it back first")
    clock = virtual_time(seats)
    start = _next_start(seats, seat)
    return msgspec.structs.replace(
        seat,
        asked_at=now,
        looked_at=now,
        polls=polls,
        probes=probes,
        clock=clock,
        start_tag=start,
        # A probe takes all there is, once: charged for that, its model would wait for ever after.
        finish_tag=start if probes else start + charge(seat, seat.need, seat.seconds),
    )


def _next_start(seats: Mapping[int, Seat], seat: Seat) -> float:
    return max([virtual_time(seats)] + [other.finish_tag for other in seats.values() if other.model == seat.model])


def looked(seat: Seat, now: float) -> Seat:
    """The waiting seat once its owner has looked; to be written at least every STALE / 4 seconds."""
    return msgspec.structs.replace(seat, looked_at=now)


def withdraw(seat: Seat) -> Seat:
    """The waiting seat without its ticket."""
    return msgspec.structs.replace(seat, asked_at=None, polls=False, probes=False, finish_tag=seat.start_tag)


def take(seat: Seat, grant: Grant, now: float) -> Seat:
    """The waiting seat with its grant: weights and activation in one step."""
    doing = LOADING if grant.extra else _doing(seat)
    is_charged = grant.in_turn and not seat.probes
    cost = charge(seat, grant.nbytes, grant.seconds) if is_charged else 0.0
    return msgspec.structs.replace(
        seat,
        doing=doing,
        asked_at=None,
        resident=seat.resident + grant.extra,
        resident_since=now + seat.load_seconds if grant.extra else seat.resident_since,
        clock=max(seat.clock, seat.start_tag) if grant.in_turn else seat.clock,
        finish_tag=seat.start_tag + cost,
        granted=grant.nbytes,
        granted_at=now,
        until=grant.until,
        deadline=grant.deadline,
    )


def _doing(seat: Seat) -> str:
    if seat.probes:
        return PROBING
    return POLLING if seat.polls else RUNNING


def loaded(seat: Seat, now: float) -> Seat:
    """The loading seat once its weights are there: now it does what it has asked for."""
    return msgspec.structs.replace(seat, doing=_doing(seat), granted_at=now, resident_since=now, load_seconds=0.0)


def found_work(seat: Seat, now: float) -> Seat:
    """The polling seat once its queue had something for it: its grant is good for the smallest batch."""
    until = now + seat.seconds
    return msgspec.structs.replace(
        seat, doing=RUNNING, polls=False, until=until, deadline=now + OVERDUE * seat.seconds + OVERDUE_SECONDS
    )


def go_on(seats: Mapping[int, Seat], me: int, now: float, seconds: float, *, left: float | None = None) -> Seat:
    """The seat at *me*, which holds a grant, with leave to run for *seconds* more; while who_lacks_room() finds nobody.

    As if it had given the grant back and had got it again in turn. *left*: so much of that is still to come, the rest
    has run; None: all of it, once what was predicted before is over.
    """
    seat = seats[me]
    start = _next_start(seats, seat)
    until = now + left if left is not None else max(now, seat.until if seat.doing == RUNNING else now) + seconds
    return msgspec.structs.replace(
        seat,
        doing=RUNNING,
        polls=False,
        clock=start,
        start_tag=start,
        finish_tag=start + charge(seat, seat.granted, seconds),
        granted_at=now,
        until=until,
        deadline=now + OVERDUE * (until - now) + OVERDUE_SECONDS,
    )


def retain(seat: Seat, now: float) -> Seat:
    """The seat that keeps the grant of its last batch, since nobody needs the room: whoever does gets it at once."""
    if seat.doing == RUNNING:
        seat = msgspec.structs.replace(seat, last_used=now, use_rate=_used_once_more(seat, now))
    return msgspec.structs.replace(seat, doing=POLLING, polls=False, granted_at=now, until=now, deadline=math.inf)


def _used_once_more(seat: Seat, now: float) -> float:
    return use_rate(seat, now) + math.log(2) / HALF_LIFE


def give_back(seat: Seat, now: float, *, was_used: bool = True) -> Seat:
    """The seat once its batch, poll or probe has ended. *was_used*: a batch ran."""
    return msgspec.structs.replace(
        seat,
        doing=IDLE,
        granted=0,
        polls=False,
        probes=False,
        last_used=now if was_used else seat.last_used,
        use_rate=_used_once_more(seat, now) if was_used else seat.use_rate,
    )


def begin_to_park(seat: Seat, now: float) -> Seat:
    """The idle seat once it has begun to give its weights' memory back; it may wait for a grant meanwhile."""
    if seat.doing != IDLE:
        raise ValueError(f"{seat.model} is {seat.doing}; park it when that has ended")
    until = now + seat.park_seconds
    return msgspec.structs.replace(
        seat, doing=PARKING, until=until, deadline=now + OVERDUE * seat.park_seconds + OVERDUE_SECONDS
    )


def parked(seat: Seat) -> Seat:
    """The parking seat once the memory is free."""
    return msgspec.structs.replace(
        seat, doing=IDLE, resident=min(seat.resident, seat.parked), load_seconds=seat.reload_seconds
    )


def use_rate(seat: Seat, now: float) -> float:
    """Batches per second, as of *now*."""
    return seat.use_rate * math.exp2(-max(now - seat.last_used, 0.0) / HALF_LIFE)


def predicted_end(seat: Seat, now: float) -> float:
    """When what a seat holds for what it is doing comes back: *now* if that is late, infinity if overdue."""
    if seat.doing == POLLING:
        return max(now, seat.granted_at + POLL_SLICE)
    if now <= seat.until:
        return seat.until
    return now if now <= seat.deadline else math.inf


def is_overdue(seat: Seat, now: float) -> bool:
    """Whether it holds a grant, or parks, beyond its deadline. What it holds is really used, so it keeps counting."""
    return seat.doing not in {IDLE, POLLING} and now > seat.deadline
