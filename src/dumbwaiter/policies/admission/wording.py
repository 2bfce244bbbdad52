"""What is said to people about who waits for whose memory. Pure."""

from __future__ import annotations

import math

from dumbwaiter.policies.admission.prediction import Seats
from dumbwaiter.policies.admission.seats import IDLE, Device, Seat, is_overdue, predicted_end

_NAMED = 3


def size_text(nbytes: int) -> str:
    """'3.50 GiB', '512 MiB'."""
    return f"{nbytes / 2**30:.2f} GiB" if abs(nbytes) >= 2**30 else f"{nbytes / 2**20:.0f} MiB"


def _batch(seat: Seat) -> str:
    return f"{size_text(seat.need)} {'to be measured alone' if seat.probes else 'for a batch'}"


def _needs(seat: Seat) -> str:
    loading = f"{size_text(seat.extra)} for its weights and " if seat.extra else ""
    return loading + _batch(seat)


def _holds(device: Device, place: int, seat: Seat, now: float) -> str:
    text = f"{seat.model} (place {place}) holds {size_text(seat.resident + seat.granted)}"
    if place in device.quarantined:
        ago = now - device.quarantined[place]
        died = f"died {ago:.1f} s ago" if ago > 0.0 else "is dead"
        return f"{text}, its process {died} and the memory is not free yet"
    if seat.doing == IDLE:
        return f"{text}, idle"
    if is_overdue(seat, now):
        return f"{text}, {seat.doing}, overdue for {now - seat.until:.1f} s"
    end = predicted_end(seat, now)
    return f"{text}, {seat.doing} for {end - now:.2f} s more" if end < math.inf else f"{text}, {seat.doing}"


def _holders(device: Device, seats: Seats, me: int, now: float) -> str:
    others = [(seat.resident + seat.granted, place) for place, seat in seats.items() if place != me]
    held = sorted((entry for entry in others if entry[0]), reverse=True)
    texts = [_holds(device, place, seats[place], now) for _, place in held[:_NAMED]]
    # Whoever is overdue is the reason, however little it holds.
    texts += [_holds(device, place, seats[place], now) for _, place in held[_NAMED:] if is_overdue(seats[place], now)]
    return "; ".join(texts) or "nobody else holds any"


def wait_text(device: Device, seats: Seats, me: int, room: int, first: int, now: float) -> str:
    """Why the seat at *me* waits. *room*: bytes left beside those who are served before it."""
    seat = seats[me]
    turn = "it is first in line" if first == me else f"{seats[first].model} (place {first}) is first in line"
    return (
        f"{seat.model} waits for {_needs(seat)}: {size_text(max(room, 0))} of {size_text(device.limit)} are free for "
        f"it on {device.name}; {_holders(device, seats, me, now)}; {turn}"
    )


def never_text(device: Device, seats: Seats, me: int, lasting: int) -> str:
    """Why the seat at *me* never fits. *lasting*: bytes held whoever is parked."""
    seat = seats[me]
    others = lasting - min(seat.resident, seat.parked)
    return (
        f"{seat.model} does not fit on {device.name}: it needs {size_text(seat.full)} loaded and {_batch(seat)}, "
        f"and of {size_text(device.limit)} that can be given out (capacity {size_text(device.capacity)}) the contexts "
        f"of other processes and leaks keep {size_text(others)}; give it a device of its own or a larger one, stop "
        f"other workers there, or make its inputs smaller"
    )
