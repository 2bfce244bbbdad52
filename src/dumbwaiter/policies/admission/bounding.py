"""The longest that anybody waits for a grant. Pure."""

from __future__ import annotations

import math

from dumbwaiter.policies.admission.prediction import RESIDENCY, Seats
from dumbwaiter.policies.admission.seats import (
    LONGEST_QUARANTINE,
    POLL_SLICE,
    Device,
    Seat,
    charge,
    is_overdue,
    virtual_time,
)

#: How long a process may take to see that something has changed: a lost ring costs one such poll.
REACTION = 0.05


def turns_before(device: Device, seats: Seats, me: int) -> int:
    """How many grants at most are given in turn to others before the waiting seat at *me* gets one.

    One for each model whose next tag is not later, and one more for each time that its charge fits into what it lags
    behind. Models that are idle now count, for they may ask at any moment.
    """
    mine, clock = seats[me], virtual_time(seats)
    models: dict[str, list[Seat]] = {}
    for place, seat in seats.items():
        if place != me and place not in device.quarantined:
            models.setdefault(seat.model, []).append(seat)
    return sum(_turns(model, mine, clock) for model in models.values())


def _turns(model: list[Seat], mine: Seat, clock: float) -> int:
    # Tags of one model are at least its smallest charge apart, whichever of its seats asks.
    waiting = [seat.start_tag for seat in model if seat.asked_at is not None]
    earlier = [mine] if model[0].model == mine.model else []
    following = max(clock, *(seat.finish_tag for seat in model + earlier))
    least = min(charge(seat, seat.need, seat.seconds) for seat in model)
    lag = mine.start_tag - min([following, *waiting])
    probes = sum(seat.probes for seat in model)
    return probes + (math.floor(lag / least * (1.0 + 1e-9)) + 1 if lag >= 0.0 else 0)


def can_swap(device: Device, seats: Seats) -> bool:
    """Whether somebody may have to be parked for a smallest batch, as not all fit beside the largest of those."""
    loaded = sum(max(seat.full, seat.resident) for seat in seats.values())
    return loaded + max(seat.need for seat in seats.values()) > device.limit


def worst_wait(device: Device, seats: Seats, me: int, *, now: float, slowness: float = 1.0) -> float:
    """The seconds after *now* within which the waiting seat at *me* has its grant, whatever the others ask for.

    Derivation. Grants in turn follow the tags, and no later tag may delay the head of the line. So before *me* come N
    heads, see turns_before(). Each of them, and then *me*, waits at most for the longest batch that can run when the
    one before has got its grant, T. Where all models fit loaded that is all, with each load once, one after the other:

        (N + 1) * (T + poll slice + reaction) + the loads of those that are not loaded

    Where they do not, each head may also find all that it needs protected, and must then have it parked and load:

        (N + 1) * (T + load + RESIDENCY * reload + park + slice + reaction)

    with the longest of each: of batches the largest that anybody asks for. So for equals that are all loaded it is one
    batch that runs, and one for each model.
    *slowness*: so many times what is predicted batches, loads and parking may take. What is in quarantine now adds the
    longest that this can last. It is infinite while anybody is overdue; it begins anew when a process joins or dies.
    One that is stopped while it is first in line holds the others up for STALE seconds more.
    """
    if any(is_overdue(seat, now) for seat in seats.values()):
        return math.inf
    living = [seat for place, seat in seats.items() if place not in device.quarantined]
    turns = turns_before(device, seats, me) + 1
    step = max(max(seat.longest, seat.seconds) for seat in living) + POLL_SLICE
    once = sum(seat.load_seconds for seat in living)
    if can_swap(device, seats):
        step += max(max(seat.load_seconds, seat.reload_seconds) for seat in living)
        step += max(RESIDENCY * seat.reload_seconds + seat.park_seconds for seat in living)
        once = 0.0
    quarantine = LONGEST_QUARANTINE if device.quarantined else 0.0
    return slowness * (turns * step + once) + turns * REACTION + quarantine
