"""What histories of several workers on one device are put together from: models, the device, what is done wrongly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dumbwaiter.devices.contract import Device, DeviceError
from dumbwaiter.policies.admission import Seat
from dumbwaiter.policies.footprints import MARGIN, SLACK, Footprint, Measured

MIB, GIB = 2**20, 2**30
#: What the ledger's clock is behind Unix time.
WALL = 1e9


class BrokenRuleError(AssertionError):
    """Something happened that must not."""


class ScriptedDevice(Device):
    """A device of which *in_use* bytes are used; None when it does not tell."""

    def __init__(self, capacity=8 * GIB, *, in_use=0, frees_late=True):
        super().__init__(kind="fake", name="gpu", address="fake", capacity=capacity, frees_late=frees_late)
        self.in_use = in_use
        self.looks = 0

    def used(self):
        self.looks += 1
        if self.in_use is None:
            raise DeviceError("the driver does not answer")
        return self.in_use


class Missing(NamedTuple):
    """A seat whose record cannot be read, as ledger.Unknown."""

    place: int
    is_living: bool
    reason: str = "it is damaged"


class TableTurn:
    """A turn at a table in memory, as far as a census needs it."""

    def __init__(self, living: dict[int, Seat], orphaned: dict[int, Seat]) -> None:
        self.living = list(living.items())
        self.orphaned = list(orphaned.items())
        self.unknown: list[Any] = []
        self._orphans = orphaned

    def forget(self, place: int) -> None:
        del self._orphans[place]


@dataclass(frozen=True, slots=True)
class Model:
    """What a model really takes: a batch of n *need* times 1 to *growth* times n, and *seconds* likewise."""

    name: str
    weight: float
    context: int
    weights: int
    parked: int | None
    need: int
    growth: float
    seconds: float
    target: int
    takes_one: bool
    load_seconds: float
    move_seconds: float
    is_known: bool = True
    park_after: float = 300.0

    @property
    def full(self) -> int:
        return self.context + self.weights

    def batch_need(self, size: int) -> int:
        return int(self.need * (1.0 + self.growth * (size - 1)))

    def batch_seconds(self, size: int) -> float:
        return self.seconds * (1.0 + 0.3 * (size - 1))

    def granted(self, size: int) -> int:
        """What such a batch is granted, and may take at the most."""
        return int(MARGIN * self.batch_need(size)) + SLACK

    @property
    def longest(self) -> float:
        """Seconds of the most that it is ever granted at once."""
        return self.batch_seconds(1) * 8 if self.takes_one else self.batch_seconds(self.target)

    def sizes(self) -> list[int]:
        return [1] if self.takes_one else [size for size in (1, 2, 4, 8) if size <= self.target]

    def footprint(self, now: float, *, most: int | None = None) -> Footprint:
        """What is measured of it, of batches that need at most *most* bytes."""
        sizes = [size for size in self.sizes() if most is None or self.batch_need(size) <= most]
        batches = {size: Measured(self.batch_need(size), self.batch_seconds(size), now + WALL) for size in sizes}
        return Footprint(
            context=self.context,
            weights=self.weights,
            parked=self.parked,
            load_seconds=self.load_seconds,
            park_seconds=self.move_seconds,
            wake_seconds=self.move_seconds,
            batches={"": batches} if batches else {},
        )


@dataclass(frozen=True, slots=True)
class Switches:
    """What may be done wrongly, to see that it would be noticed."""

    gives_back_unemptied: bool = False
    forgets_the_dead: bool = False
    hurries: bool = False


RIGHT = Switches()


@dataclass(slots=True)
class Outcome:
    """What came of a history."""

    steps: int = 0
    served: int = 0
    deaths: int = 0
    deaths_in_orders: int = 0
    leaks: int = 0
    refusals: int = 0
    prolonged: int = 0
    gone_on: int = 0
    revoked: int = 0
    cancelled: int = 0
    ran_out: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    orders: dict[str, int] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """Count *other* in."""
        for name in self.__slots__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                for key, count in theirs.items():
                    mine[key] = mine.get(key, 0) + count
            else:
                setattr(self, name, max(mine, theirs) if name == "longest" else mine + theirs)
