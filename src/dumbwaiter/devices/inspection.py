"""What the ledgers of devices tell people and programs: who holds what there, who waits, and what for.

To look takes no seat and opens no device, so that a worker cannot tell that anybody looked.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from dumbwaiter.devices.ledger import Ledger, LedgerError, Unknown
from dumbwaiter.devices.ledger import now as ledger_now
from dumbwaiter.devices.sharing import ledger_path
from dumbwaiter.policies.admission import (
    IDLE,
    STALE,
    Device,
    Grant,
    NeverFits,
    Seat,
    ask,
    decide,
    is_overdue,
    predicted_start,
)


class SeatReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one seat: bytes, and seconds. What cannot be read is None.

    *doing* is what the seat says, or ``parked``: its weights have left the device; ``dead``: its process is, and what
    it held was not seen free yet; ``unreadable``: nobody knows what it holds. *evictable* bytes would come back if it
    were parked. *waits*: since so long, None if it does not. *reason*, for people: what for, or what is wrong.
    """

    place: int
    doing: str
    model: str | None = None
    weight: float | None = None
    resident: int | None = None
    granted: int | None = None
    evictable: int | None = None
    waits: float | None = None
    reason: str = ""


class DeviceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one device: bytes, and seconds. What is not known is None.

    *limit* bytes can be given out in all, for *outside* are held by what has no seat, as far as the workers have seen,
    and some are kept in reserve. *used*: by anybody, as the device itself tells. *first* is the place of the
    first in line, which is expected to start in *starts_in*. With *error* the ledger cannot be read.
    """

    name: str
    ledger: str | None = None
    capacity: int | None = None
    limit: int | None = None
    outside: int | None = None
    used: int | None = None
    seats: Sequence[SeatReport] = ()
    first: int | None = None
    starts_in: float | None = None
    error: str | None = None


def ledgers_at(path: Path) -> list[Path]:
    """The ledgers in the folder *path*, by name, or the one that *path* is; none where nothing is. Raises OSError."""
    if not path.is_dir():
        return [path] if path.exists() else []
    ledgers = ledger_path(path, "*").name
    return sorted(file for file in path.iterdir() if file.match(ledgers) and not file.is_dir())


def inspect_ledger(path: Path) -> DeviceReport:
    """What the ledger at *path* says now. It blocks while others have their turn at it."""
    try:
        with contextlib.closing(Ledger.look(path, record=Seat)) as ledger:
            with ledger.turn() as turn:
                moment = ledger_now()
            outside = max((seat.outside for _, seat in turn.living), default=0)
            # Since when the dead are dead nobody has written down: as a worker that starts now, we know it from now on.
            dead = dict.fromkeys((place for place, _ in turn.orphaned), moment)
            device = Device(ledger.device, ledger.capacity, outside, dead)
    except (LedgerError, OSError) as error:
        return DeviceReport(name=path.stem, ledger=str(path), error=str(error))
    report = report_of(device, dict(turn.living + turn.orphaned), turn.unknown, moment)
    return msgspec.structs.replace(report, ledger=str(path))


def report_of(device: Device, seats: Mapping[int, Seat], unknown: Iterable[Unknown], now: float) -> DeviceReport:
    """What *seats* say of *device* at *now*; the dead among them are quarantined there. Pure.

    While any seat is *unknown*, nothing is predicted.
    """
    unknown = list(unknown)
    blurred = [one.place for one in unknown if one.is_living]
    unreadable = [
        SeatReport(place=one.place, doing="unreadable", reason=f"{_whose(one)} cannot be read: {one.reason}")
        for one in unknown
    ]
    head = None if unreadable else predicted_start(device, seats, now)
    reports = [_seat_report(device, seats, place, now, blurred) for place in seats] + unreadable
    return DeviceReport(
        name=device.name,
        capacity=device.capacity,
        limit=max(0, device.limit),
        outside=device.outside,
        seats=sorted(reports, key=lambda seat: seat.place),
        first=None if head is None else head[0],
        starts_in=None if head is None or head[1] == math.inf else head[1] - now,
    )


def _whose(unknown: Unknown) -> str:
    return "what its process says" if unknown.is_living else "what its process, which is dead, said"


def _seat_report(
    device: Device, seats: Mapping[int, Seat], place: int, now: float, blurred: Sequence[int]
) -> SeatReport:
    seat = seats[place]
    is_dead = place in device.quarantined
    waits = None if is_dead or seat.asked_at is None else max(0.0, now - seat.asked_at)
    return SeatReport(
        place=place,
        doing="dead" if is_dead else _doing(seat),
        model=seat.model,
        weight=seat.weight,
        resident=seat.resident,
        granted=seat.granted,
        evictable=0 if is_dead else seat.evictable,
        waits=waits,
        reason=_dead(seat) if is_dead else "; ".join(_reasons(device, seats, place, now, blurred)),
    )


def _doing(seat: Seat) -> str:
    is_parked = seat.resident <= seat.parked < seat.full and seat.load_seconds > 0.0
    return "parked" if seat.doing == IDLE and is_parked else seat.doing


def _dead(seat: Seat) -> str:
    return f"its process died while {seat.doing}, and nobody has seen its memory free yet"


def _reasons(device: Device, seats: Mapping[int, Seat], place: int, now: float, blurred: Sequence[int]) -> list[str]:
    """What there is to say of a living seat: what is late, and what it waits for.

    Places that are *blurred* keep everybody waiting: what their living processes hold cannot be read.
    """
    seat = seats[place]
    reasons = []
    if is_overdue(seat, now):
        reasons.append(f"{seat.doing} for {now - seat.until:.1f} s longer than expected")
    if seat.asked_at is not None:
        silent = now - seat.looked_at
        if silent > STALE:
            reasons.append(f"it has not looked for its turn for {silent:.1f} s, so others pass it by")
        if blurred:
            places = ", ".join(map(str, blurred))
            reasons.append(f"nobody is given anything until what holds place {places} has written again")
            return reasons
        answer = decide(device, seats, place, now)
        reasons.append("its turn has come" if isinstance(answer, Grant) else answer.reason)
    elif seat.doing == IDLE and not seat.granted and not blurred:
        # Whoever never fits does not stand in line.
        answer = decide(device, {**seats, place: ask(seats, place, now)}, place, now)
        reasons += [answer.reason] if isinstance(answer, NeverFits) else []
    return reasons
