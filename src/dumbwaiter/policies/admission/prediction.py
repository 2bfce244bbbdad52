"""Who is whose turn's before, what memory comes back when, and who must leave for the head of the line. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dumbwaiter.policies.admission.seats import (
    IDLE,
    LOADING,
    LONGEST_QUARANTINE,
    PARKING,
    POLL_SLICE,
    PROBING,
    QUARANTINE_GRACE,
    STALE,
    Device,
    Seat,
    predicted_end,
    use_rate,
)

#: A seat stays loaded for at least so many times what loading it again takes: swapping costs at most 1/(1 + this).
RESIDENCY = 5.0

Seats = Mapping[int, Seat]


@dataclass(slots=True)
class Survey:
    """The device at one moment, in bytes and seconds, and what is expected of it.

    *most*: what might be given out in all if what is doubtful is gone. *lasting*: held as long as its processes live,
    whoever is parked. *coming*: (when, bytes) that come back by themselves soon, *late*: those that may. *line*: (start
    tag, asked at, place) of all that wait.
    """

    limit: int
    most: int
    room: int
    lasting: int
    coming: list[tuple[float, int]]
    late: list[tuple[float, int]]
    line: list[tuple[float, float, int]]
    load_until: float
    """When the load that runs now ends; minus infinity without one."""
    probe_until: float
    busy_until: float
    """When the last of all grants and quarantines ends; minus infinity without one."""


def survey(device: Device, seats: Seats, now: float, me: int | None = None) -> Survey:
    """Look at all seats once. The one at *me* is looking, whatever its record says."""
    limit = device.limit
    view = Survey(limit, limit + device.doubtful, limit, 0, [], [], [], -math.inf, -math.inf, -math.inf)
    if device.doubtful:
        view.late.append((now, device.doubtful))
    quarantined = device.quarantined
    for place, seat in seats.items():
        resident, doing = seat.resident, seat.doing
        view.room -= resident + seat.granted
        if quarantined and place in quarantined:
            _count_quarantined(view, seat, now, quarantined[place])
            continue
        view.lasting += min(resident, seat.parked)
        if doing != IDLE:
            _count_busy(view, seat, now)
        asked_at = seat.asked_at
        if asked_at is not None and (now - seat.looked_at <= STALE or place == me):
            view.line.append((seat.start_tag, asked_at, place))
    view.line.sort()
    return view


def _count_quarantined(view: Survey, seat: Seat, now: float, since: float) -> None:
    held = seat.resident + seat.granted
    if now >= since + LONGEST_QUARANTINE:
        view.lasting += held
        return
    if now < since + QUARANTINE_GRACE:
        end = since + QUARANTINE_GRACE
        view.coming.append((end, held))
    else:
        end = since + LONGEST_QUARANTINE
        view.late.append((end, held))
    # A probe measures what the device has in use: it would see this go.
    view.busy_until = max(view.busy_until, end)


def _count_busy(view: Survey, seat: Seat, now: float) -> None:
    end = predicted_end(seat, now)
    if seat.doing == PARKING:
        if end < math.inf:
            view.coming.append((end, seat.evictable))
        return
    if end < math.inf:
        view.coming.append((end, seat.granted))
    view.busy_until = max(view.busy_until, end)
    if seat.doing == LOADING:
        # A load that is late may end at any moment; one that is overdue still holds the bus.
        view.load_until = max(seat.granted_at + seat.load_seconds, now) if end < math.inf else math.inf
    elif seat.doing == PROBING:
        view.probe_until = end


def never_fits(view: Survey, seat: Seat) -> bool:
    """Whether it could not run even if all others were parked."""
    return view.lasting - min(seat.resident, seat.parked) + seat.full + seat.need > view.most


@dataclass(frozen=True, slots=True)
class Eviction:
    """Who must be parked: all *places* can begin at *begin*, and so many bytes are free at *end*."""

    places: frozenset[int]
    begin: float
    end: float
    nbytes: int


NOBODY = Eviction(frozenset(), -math.inf, -math.inf, 0)


def plan_eviction(device: Device, seats: Seats, head: int, shortage: int, now: float) -> Eviction | None:
    """The least valuable ones whose weights make up for *shortage* bytes, as soon as that is possible at all.

    Only what stays resident although nothing runs is worth evicting for; none if that is not enough. Value is what
    coming back costs times how often that is needed (GreedyDual).
    """
    candidates: list[tuple[float, float, int, Seat]] = []
    for place, seat in seats.items():
        doing = seat.doing
        if place == head or seat.resident <= seat.parked or doing == PARKING or place in device.quarantined:
            continue
        ready = seat.resident_since + RESIDENCY * seat.reload_seconds
        if doing != IDLE:
            # One that is late is still busy: it can be evicted at any moment, but not at this one.
            ready = max(ready, predicted_end(seat, now))
        elif ready <= now:
            ready = -math.inf
        if ready < math.inf:
            candidates.append((ready, seat.reload_seconds * use_rate(seat, now), place, seat))
    candidates.sort()
    return _fewest(candidates, shortage, now)


def _fewest(candidates: list[tuple[float, float, int, Seat]], shortage: int, now: float) -> Eviction | None:
    chosen: list[tuple[float, float, int, Seat]] = []
    missing = shortage
    for candidate in candidates:
        if missing <= 0:
            break
        chosen.append(candidate)
        missing -= candidate[3].evictable
    if missing > 0:
        return None
    for candidate in reversed(chosen[:]):
        if missing + candidate[3].evictable <= 0:
            chosen.remove(candidate)
            missing += candidate[3].evictable
    begin = max(now, *(ready for ready, _, _, _ in chosen))
    longest = max(seat.park_seconds for _, _, _, seat in chosen)
    return Eviction(frozenset(place for _, _, place, _ in chosen), begin, begin + longest, shortage - missing)


@dataclass(frozen=True, slots=True)
class Start:
    """When somebody who waits is expected to start, how many bytes are *spare* then, and whom it evicts for that."""

    at: float
    spare: int
    eviction: Eviction


def predict_start(device: Device, seats: Seats, view: Survey, place: int, now: float) -> Start:
    """When the seat at *place* can start if nobody else gets anything before."""
    seat = seats[place]
    needed = seat.extra + seat.need
    if seat.doing == PARKING:
        needed = seat.full - min(seat.parked, seat.resident) + seat.need
    at = max(now, view.probe_until)
    if seat.doing != IDLE:
        at = max(at, predicted_end(seat, now))
    if seat.probes:
        at = max(at, view.busy_until)
    if seat.load_seconds > 0.0:
        at = max(at, view.load_until)
    shortage = needed - view.room - sum(nbytes for _, nbytes in view.coming)
    events, eviction = view.coming, NOBODY
    if shortage > 0:
        planned = plan_eviction(device, seats, place, shortage, now)
        if planned is None:
            # Others leave only for what is lacking besides, once the dead are gone.
            events = events + view.late
            shortage -= sum(nbytes for _, nbytes in view.late)
            planned = plan_eviction(device, seats, place, shortage, now) if shortage > 0 else None
        if planned is not None:
            eviction = planned
            events = [*events, (planned.end, planned.nbytes)]
    room = view.room
    for when, nbytes in sorted(events):
        if when > at and room >= needed:
            break
        at = max(at, when)
        room += nbytes
    # What waits for somebody overdue has no predictable start, and so nobody can delay it.
    return Start(at, room - needed, eviction) if room >= needed else Start(math.inf, view.limit, NOBODY)


def ends_at(seat: Seat, seconds: float, now: float) -> float:
    """When a grant for *seconds* that the waiting seat were given now would end."""
    # A poll that finds something in its slice goes on with the smallest batch.
    return now + seat.load_seconds + seconds + (POLL_SLICE if seat.polls else 0.0)
