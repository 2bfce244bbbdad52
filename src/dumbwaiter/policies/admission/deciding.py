"""Whether a worker may run its next batch now, how large, and if not why and until when. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from dumbwaiter.policies.admission.prediction import (
    Seats,
    Start,
    Survey,
    ends_at,
    never_fits,
    predict_start,
    survey,
)
from dumbwaiter.policies.admission.seats import (
    IDLE,
    OVERDUE,
    OVERDUE_SECONDS,
    POLL_SLICE,
    POLLING,
    Device,
    Grant,
    Seat,
)
from dumbwaiter.policies.admission.wording import never_text, wait_text
from dumbwaiter.policies.rungs import Rung


@dataclass(frozen=True, slots=True)
class Wait:
    """No grant now; *room* bytes are left beside those who come before *me*, *first* is the place of the first in line.

    *until*: the first moment at which something is expected to change; infinity if nothing is. Look again then, when
    somebody gave memory back, and at least every STALE / 4 seconds.
    """

    until: float
    device: Device = field(repr=False)
    seats: Seats = field(repr=False)
    me: int
    room: int
    first: int
    now: float

    @property
    def reason(self) -> str:
        """For people: what is missing, who holds it and whose turn it is."""
        return wait_text(self.device, self.seats, self.me, self.room, self.first, self.now)


@dataclass(frozen=True, slots=True)
class NeverFits:
    """No wait can help: the smallest batch does not fit on the device even with all others parked.

    It takes *needed* bytes in all, of *limit* that can be given out. *reason*, for people, says what else is in the way
    and what to do. An error for whoever runs the worker; raised there, for policies know no errors.
    """

    needed: int
    limit: int
    reason: str


@dataclass(slots=True)
class _Line:
    """How far the line has been gone through: those ahead that fit have taken what they need, in *view*."""

    device: Device
    seats: Seats
    view: Survey
    now: float
    head: Seat | None = None
    """The first who does not fit; nobody behind may delay it."""
    start: Start | None = None

    def admits(self, place: int, seat: Seat, nbytes: int, seconds: float) -> bool:
        """Whether the next in line may start now with *nbytes* of activation for *seconds*."""
        view, extra = self.view, seat.extra
        if seat.doing != IDLE or extra + nbytes > view.room or self.now <= view.probe_until:
            return False
        if seat.load_seconds > 0.0 and self.now <= view.load_until:
            return False
        if seat.probes and self.now <= view.busy_until:
            return False
        return (
            self.head is None or self.start is None or not self._delays(self.head, self.start, place, nbytes, seconds)
        )

    def _delays(self, head: Seat, start: Start, place: int, nbytes: int, seconds: float) -> bool:
        """Whether this grant would make the *head* start later than without it (EASY backfill)."""
        seat = self.seats[place]
        end, extra = ends_at(seat, seconds, self.now), seat.extra
        if seat.probes or extra > start.spare:
            return True
        if head.load_seconds > 0.0 and self.now + seat.load_seconds > start.at:
            return True
        if place in start.eviction.places and end > start.eviction.begin:
            return True
        return end > start.at and (head.probes or extra + nbytes > start.spare)

    def pass_by(self, place: int) -> None:
        """Let the next in line, at *place*, take the room for its smallest batch, or become the barrier."""
        seat, view = self.seats[place], self.view
        if not self.admits(place, seat, seat.need, seat.seconds):
            if self.head is None:
                self.head = seat
                self.start = predict_start(self.device, self.seats, view, place, self.now)
            return
        end, extra = ends_at(seat, seat.seconds, self.now), seat.extra
        view.room -= extra + seat.need
        view.coming.append((end, seat.need))
        view.busy_until = max(view.busy_until, end)
        if seat.load_seconds > 0.0:
            view.load_until = self.now + seat.load_seconds
        if seat.probes:
            view.probe_until = end
        if self.start is not None:
            stays = extra if end <= self.start.at else extra + seat.need
            self.start = Start(self.start.at, self.start.spare - stays, self.start.eviction)


def _line_before(device: Device, seats: Seats, view: Survey, me: int, now: float) -> _Line:
    line = _Line(device, seats, view, now)
    for _, _, place in view.line:
        if place == me:
            break
        # It will find that out for itself, and go.
        if not never_fits(view, seats[place]):
            line.pass_by(place)
    return line


def decide(device: Device, seats: Seats, me: int, now: float, ladder: Sequence[Rung] = ()) -> Grant | Wait | NeverFits:
    """Whether the waiting seat at *me* gets the largest batch of its *ladder* that fits now, has to wait, or need not.

    *ladder*: ascending; its first rung is what the seat says of its smallest batch, and alone it is the default. A
    probe gets all the room there is. Every process comes to the same answer from the same seats; whoever gets a grant
    writes take() into its own seat before the next one decides, and whoever can never have one withdraw().
    """
    seat = seats[me]
    if seat.asked_at is None:
        raise ValueError(f"{seat.model} at place {me} has not asked for a grant; write ask() into its seat first")
    view = survey(device, seats, now, me)
    if never_fits(view, seat):
        return NeverFits(seat.full + seat.need, view.limit, never_text(device, seats, me, view.lasting))
    line = _line_before(device, seats, view, me, now)
    for rung in reversed(ladder or (Rung(1, seat.need, seat.seconds),)):
        if line.admits(me, seat, rung.nbytes, rung.seconds):
            return _grant(line, seat, rung)
    return _wait(line, me)


def _wait(line: _Line, me: int) -> Wait:
    device, seats, view, now = line.device, line.seats, line.view, line.now
    start = line.start or predict_start(device, seats, view, me, now)
    moments = [start.eviction.begin, view.load_until, view.probe_until]
    moments += [when for when, _ in view.coming]
    moments += [when for when, _ in view.late]
    until = min([when for when in moments if when > now], default=math.inf)
    head = head_of_line(seats, view)
    # A copy: the reason is told later, if anybody asks.
    return Wait(until, device, dict(seats), me, view.room, me if head is None else head, now)


def _grant(line: _Line, seat: Seat, rung: Rung) -> Grant:
    now = line.now
    until = ends_at(seat, rung.seconds, now)
    return Grant(
        size=rung.size,
        nbytes=line.view.room - seat.extra if seat.probes else rung.nbytes,
        extra=seat.extra,
        seconds=rung.seconds,
        in_turn=line.head is None,
        until=until,
        deadline=now + OVERDUE * (until - now) + OVERDUE_SECONDS,
    )


def head_of_line(seats: Seats, view: Survey) -> int | None:
    """The place of the first in line that can ever run; None if nobody waits."""
    return next((place for _, _, place in view.line if not never_fits(view, seats[place])), None)


def predicted_start(device: Device, seats: Seats, now: float) -> tuple[int, float] | None:
    """The place of the head of the line and when it is expected to start; None if nobody waits."""
    view = survey(device, seats, now)
    head = head_of_line(seats, view)
    return None if head is None else (head, predict_start(device, seats, view, head, now).at)


def ought_to_park(device: Device, seats: Seats, me: int, now: float) -> str | None:
    """Why the idle seat at *me* has to give its weights' memory back now, in words; None if it may stay.

    Only for the head of the line, only if that does not fit once all that runs has ended, only the least valuable ones
    and no more of them than it needs, and none that was loaded less than RESIDENCY times its load time ago.
    """
    seat = seats[me]
    if seat.doing != IDLE or seat.evictable <= 0:
        return None
    view = survey(device, seats, now)
    head = head_of_line(seats, view)
    if head is None or head == me:
        return None
    eviction = predict_start(device, seats, view, head, now).eviction
    if me not in eviction.places or eviction.begin > now:
        return None
    # The last of them is late: until it has ended, the others would be parked in vain.
    if any(seats[place].doing != IDLE for place in eviction.places):
        return None
    return (
        f"{seat.model} is parked: {seats[head].model} at place {head} is first in line on {device.name}, does not fit "
        f"beside it, and nothing that is idle there costs less to load again"
    )


def who_lacks_room(device: Device, seats: Seats, me: int, now: float) -> int | None:
    """The place of somebody who waits and cannot start beside what all hold now, the seat at *me* included; or None.

    Whoever finds one may not go on with its grant beyond what it was given for, nor keep what it does not use.
    """
    view = survey(device, seats, now)
    for _, _, place in view.line:
        other = seats[place]
        if place != me and not never_fits(view, other) and (other.probes or other.extra + other.need > view.room):
            return place
    return None


def ought_to_yield(device: Device, seats: Seats, me: int, now: float) -> str | None:
    """Why the seat at *me*, which only polls, has to give its grant back now, in words; None if it may go on.

    It has to as soon as its slice is over and anybody waits for whom the room does not suffice, or whose batch it
    keeps from starting otherwise.
    """
    seat = seats[me]
    if seat.doing != POLLING or now < seat.granted_at + POLL_SLICE:
        return None
    place = who_lacks_room(device, seats, me, now)
    if place is None:
        return None
    return f"{seat.model} only polls; {seats[place].model} at place {place} waits for room on {device.name}"
