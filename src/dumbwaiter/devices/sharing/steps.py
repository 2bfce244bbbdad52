"""What a worker sees of a shared device in one turn, and what it does next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Literal

from dumbwaiter.devices.admission import Grant
from dumbwaiter.devices.sharing.wishes import Wish
from dumbwaiter.policies.admission import IDLE, Device, Rung, Seat

Order = Literal["empty", "park", "wake", "retire"]
"""What is to be done with the runner's memory; to retire is to end the runner."""


class Stage(Enum):
    """Whether there is a runner: none, one that starts and loads, one that is ready."""

    OUT = auto()
    MOVING_IN = auto()
    IN = auto()


@dataclass(frozen=True, slots=True)
class View:
    """The device and all its seats in this turn. *now* is of the ledger's clock, *wall* is Unix time."""

    device: Device
    seats: dict[int, Seat]
    me: int
    now: float
    wall: float

    def with_mine(self, seat: Seat) -> View:
        """The same, with *seat* in one's own place."""
        return replace(self, seats={**self.seats, self.me: seat})

    @property
    def most(self) -> int:
        """Bytes of activation that it can be granted at all, with everybody else parked."""
        lasting = sum(min(seat.resident, seat.parked) for place, seat in self.seats.items() if place != self.me)
        return max(0, self.device.limit - lasting - self.seats[self.me].full)

    @property
    def room(self) -> int:
        """Bytes that nobody else holds, less what this worker has to load."""
        held = sum(seat.resident + seat.granted for seat in self.seats.values())
        mine = self.seats[self.me]
        return self.device.limit - held + mine.granted - mine.extra


@dataclass(slots=True)
class Step:
    """What to write, and to do once it is written. *granted*: wishes and what they are granted, as sizes of batches."""

    seat: Seat
    order: Order | None = None
    granted: list[tuple[Wish[Grant], Rung]] = field(default_factory=list)
    is_placed: bool = False
    revoked: list[Grant] = field(default_factory=list)
    rings: list[int] = field(default_factory=list)
    look_at: float = float("inf")


def waiting(view: View) -> list[int]:
    """Those who wait for room."""
    return [place for place, seat in view.seats.items() if seat.asked_at is not None and place != view.me]


def holding_in_vain(view: View) -> list[int]:
    """Those who hold a grant, or are idle and loaded: they may have to make room."""
    return [
        place
        for place, seat in view.seats.items()
        if place != view.me and (seat.granted or (seat.doing == IDLE and seat.evictable))
    ]
