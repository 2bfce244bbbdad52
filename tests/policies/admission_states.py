"""Seats as hypothesis draws them: whatever could stand in a ledger, over-committed or not."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from dumbwaiter.policies.admission import IDLE, LOADING, PARKING, POLLING, PROBING, RUNNING, Device, Rung, Seat

MIB, GIB = 2**20, 2**30
NOW = 1000.0

_sizes = st.integers(0, 24).map(lambda sixteenths: sixteenths * GIB // 16 * 2)
_seconds = st.sampled_from([0.01, 0.05, 0.1, 0.5, 2.0])
_past = st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0, 5.0, 60.0]).map(lambda ago: NOW - ago)


@st.composite
def seat_states(draw, doings=(IDLE, RUNNING, POLLING, LOADING, PARKING)):
    parked = draw(_sizes) // 8
    full = parked + draw(_sizes)
    doing = draw(st.sampled_from(doings))
    is_loaded = doing != IDLE or draw(st.booleans())
    seconds, reload_seconds = draw(_seconds), draw(_seconds)
    begun = draw(_past)
    is_waiting = doing in {IDLE, PARKING} and draw(st.booleans())
    until = begun + draw(st.sampled_from([0.05, 0.5, 1.0, 2.0, 61.0]))
    return Seat(
        model=draw(st.sampled_from("abcdef")),
        weight=draw(st.sampled_from([0.5, 1.0, 4.0])),
        doing=doing,
        resident=full if is_loaded else parked,
        full=full,
        parked=parked,
        need=draw(_sizes),
        seconds=seconds,
        longest=2 * seconds,
        load_seconds=0.0 if is_loaded and doing != LOADING else reload_seconds,
        reload_seconds=reload_seconds,
        park_seconds=draw(_seconds),
        asked_at=draw(_past) if is_waiting else None,
        looked_at=NOW,
        polls=doing == POLLING or (is_waiting and draw(st.integers(0, 4)) == 0),
        probes=is_waiting and draw(st.integers(0, 6)) == 0,
        start_tag=draw(st.integers(0, 5)) * 1.0,
        finish_tag=draw(st.integers(5, 9)) * 1.0,
        clock=draw(st.integers(0, 3)) * 1.0,
        granted=draw(_sizes) + MIB if doing not in {IDLE, PARKING} else 0,
        granted_at=begun,
        until=until,
        deadline=until + draw(st.sampled_from([0.5, 5.0])),
        use_rate=draw(st.sampled_from([0.0, 0.1, 10.0])),
        last_used=draw(_past),
        resident_since=draw(_past),
    )


@st.composite
def scenes(draw, *, least_capacity=2):
    """A device and its seats; at most one loads, and one that probes is alone."""
    seats = dict(enumerate(draw(st.lists(seat_states(), min_size=1, max_size=8))))
    loading = [place for place, seat in seats.items() if seat.doing == LOADING]
    for place in loading[1:]:
        seats[place] = msgspec.structs.replace(seats[place], doing=RUNNING, load_seconds=0.0)
    busy = [place for place, seat in seats.items() if seat.granted]
    if len(busy) == 1 and draw(st.booleans()):
        seats[busy[0]] = msgspec.structs.replace(seats[busy[0]], doing=PROBING, load_seconds=0.0)
    dead = draw(st.sets(st.sampled_from(sorted(seats)), max_size=2))
    capacity = draw(st.integers(least_capacity, 24)) * GIB
    quarantined = {place: NOW - draw(st.sampled_from([0.1, 2.0, 11.0])) for place in dead}
    return Device("gpu", capacity, quarantined=quarantined), seats


def waiting(device, seats):
    """The places of those who live and wait."""
    return [place for place, seat in seats.items() if seat.asked_at is not None and place not in device.quarantined]


def ladder(seat):
    """Three batch sizes, the smallest being that of the seat."""
    if seat.probes:
        return [Rung(0, seat.need, seat.longest)]
    return [Rung(2**k, seat.need * (k + 1), seat.seconds * (1 + k / 2)) for k in range(1 if seat.polls else 3)]


def held(seats):
    return sum(seat.resident + seat.granted for seat in seats.values())


def simple_seat(model="a", **settings):
    """A loaded seat with 1 GiB of weights, of which 256 MiB stay when parked, and batches of 1 GiB and 0.1 s."""
    usual = {"model": model, "resident": GIB, "full": GIB, "parked": GIB // 4, "need": GIB, "seconds": 0.1}
    times = {"longest": 0.1, "reload_seconds": 0.2, "park_seconds": 0.1, "looked_at": NOW}
    return Seat(**{**usual, **times, **settings})


def runs(model="a", *, nbytes=GIB, seconds=0.1, **settings):
    """One that has begun to run at NOW."""
    return simple_seat(
        model,
        doing=RUNNING,
        granted=nbytes,
        granted_at=NOW,
        until=NOW + seconds,
        deadline=NOW + 3 * seconds + 1,
        **settings,
    )


def waits(model="a", *, tag=0.0, **settings):
    """One that has asked a second ago."""
    return simple_seat(model, asked_at=NOW - 1.0, start_tag=tag, **settings)
