"""The ledger of a device: one file that all processes that use it share, on one node or in one pod.

Each process has a *seat*, a slot that it alone writes to, and in it a record of what it holds and wants. All look at
all seats, and change their own, in *turns*, of which there is one at a time::

    async with ledger.turn() as turn:
        if fits(turn.living, turn.orphaned):
            turn.write(record)
    ledger.ring(places)

A seat lives as long as the process that took it, or one that inherited it (adopt), and not a moment longer, whatever
they die of. What a dead one held is *orphaned*: its memory may come back later than the news of its death, so that it
counts until forget(). A record that is damaged is *unknown*; it is never taken for none.

Times in records are seconds of now(), which all processes with this ledger open share.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

import msgspec

from dumbwaiter.boot import this_boot
from dumbwaiter.devices.ledger import bells
from dumbwaiter.devices.ledger.errors import LedgerRefusedError
from dumbwaiter.devices.ledger.file import BLANK
from dumbwaiter.devices.ledger.locks import Descriptor
from dumbwaiter.devices.ledger.opening import Opening, open_regular
from dumbwaiter.devices.ledger.seats import Seat
from dumbwaiter.devices.ledger.slots import Seen, Slots

R = TypeVar("R", bound=msgspec.Struct)
S = TypeVar("S", bound=msgspec.Struct)
PATIENCE = 5.0
"""Seconds that a turn is waited for: longer than any lasts, unless its holder was stopped."""
_encode = msgspec.msgpack.Encoder().encode


def now() -> float:
    """The clock of all processes of a machine, in seconds since its start; it goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Unknown(NamedTuple):
    """A seat whose record cannot be read, so that nobody knows what it holds; *reason* says why.

    Its owner mends it with its next write; one that is not *is_living* is mended by forget().
    """

    place: int
    is_living: bool
    reason: str


class Ledger(Generic[R]):
    """The ledger at *path*, whose records are of the type *record*: a frozen msgspec.Struct, encoded as a map, all of
    whose fields have defaults. So versions that know other fields share a file.

    Make it with open() or look(); close() it in the end. open(), look() and a turn that is entered with ``with`` block
    while others have their turn. Without others a turn takes some tens of microseconds.
    """

    def __init__(self, slots: Slots[R]) -> None:
        self.path = slots.path
        self.seat: Seat | None = None
        self._slots = slots

    @staticmethod
    def open(path: Path, *, device: str, capacity: int, record: type[S], patience: float = PATIENCE) -> Ledger[S]:
        """The ledger of *device*, which has *capacity* bytes. It and its folder are made where they are missing.

        A ledger that was begun before the machine was started is begun anew, as is one of another capacity in which
        nobody sits. Raises LedgerRefusedError (a network file system, a folder of others, another device's, a newer
        format, no ledger at all), LedgerFullError, and LedgerBusyError after *patience* seconds.
        """
        _require_fitting(record)
        path = path.absolute()
        descriptor = Opening(path, device=device, capacity=capacity, patience=patience).open()
        return _opened(path, descriptor, record, patience)

    @staticmethod
    def look(path: Path, *, record: type[S], patience: float = PATIENCE) -> Ledger[S]:
        """The ledger that is at *path*, whatever device's, for one who takes no seat. Raises LedgerError."""
        _require_fitting(record)
        path = path.absolute()
        try:
            descriptor = open_regular(path)
        except FileNotFoundError:
            raise LedgerRefusedError(path, "does not exist", "the first worker that uses the device makes it") from None
        ledger = _opened(path, descriptor, record, patience)
        if not ledger.is_of_this_boot:
            ledger.close()
            reason = "is of another run of the machine, or of another clock (a time namespace)"
            raise LedgerRefusedError(path, reason, "nobody has used the device since, or look from where they run")
        return ledger

    @property
    def device(self) -> str:
        """The name of the device."""
        return self._slots.header.device

    @property
    def capacity(self) -> int:
        """The bytes that the device has."""
        return self._slots.header.capacity

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the times in its records are of the clock that this process sees. Raises OSError."""
        return f"{self._slots.header.boot}/{self._slots.header.clock}" == this_boot()

    def turn(self) -> Turn[R]:
        """A turn, to be entered with ``with`` or, on a loop, ``async with``; await nothing else inside it.

        Entering raises LedgerBusyError when somebody else's lasts, and LedgerGoneError when the file was removed.
        """
        return Turn(self, self._slots)

    def ring(self, places: Iterable[int]) -> None:
        """Wake those who wait in the seats *places*."""
        bells.ring(self.path, places)

    def vacate(self) -> None:
        """Hold the seat no more, if there is one: its record becomes an orphan once no other process holds it."""
        if self.seat is not None:
            self.seat.close()
            self.seat = None

    def close(self) -> None:
        """Close all, as vacate() does."""
        self.vacate()
        self._slots.close()


class Turn(Generic[R]):
    """A turn at a ledger: what all seats said when it began, and the right to change one's own until it ends.

    *living* and *orphaned* are places and records, *unknown* the seats whose records cannot be read.
    """

    def __init__(self, ledger: Ledger[R], slots: Slots[R]) -> None:
        self._ledger = ledger
        self._slots = slots
        self._is_ours = False
        self.living: list[tuple[int, R]] = []
        self.orphaned: list[tuple[int, R]] = []
        self.unknown: list[Unknown] = []

    def __enter__(self) -> Self:
        self._slots.lock.take()
        return self._begin()

    async def __aenter__(self) -> Self:
        await self._slots.lock.take_without_blocking()
        return self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._is_ours = False
        self._slots.lock.release()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, where)

    def take_seat(self, record: R) -> Seat:
        """Take a free seat for this process, and write *record* to it. Raises LedgerFullError."""
        self._require_turn()
        ledger = self._ledger
        if ledger.seat is not None:
            raise ValueError(f"this process has the seat {ledger.seat.place} at {ledger.path} already")
        payload = _encode(record)
        seat = self._slots.take_free()
        try:
            self._slots.put(seat.place, payload)
        except BaseException:
            seat.close()
            raise
        ledger.seat = seat
        return seat

    def write(self, record: R) -> None:
        """Say *record* in one's own seat. Raises ValueError when it is too long, LedgerFullError."""
        self._slots.put(self._own_place(), _encode(record))

    def leave(self) -> None:
        """Give the seat up. Only for one whose memory is given back for certain: else close the ledger."""
        ledger, place = self._ledger, self._own_place()
        self._slots.put(place, b"")
        if ledger.seat is not None:
            ledger.seat.close()
            ledger.seat = None

    def forget(self, place: int) -> None:
        """Free the seat *place* of an owner that is dead, since its memory has come back. Raises ValueError."""
        self._require_turn()
        dead = [orphan for orphan, _ in self.orphaned] + [one.place for one in self.unknown if not one.is_living]
        if place not in dead:
            raise ValueError(f"the seat {place} at {self._ledger.path} is not that of a dead process")
        self._slots.put(place, b"")

    def _begin(self) -> Self:
        try:
            for place, seen, is_living in self._slots.look():
                self._count(place, seen, is_living)
        except BaseException:
            self._slots.lock.release()
            raise
        self._is_ours = True
        return self

    def _count(self, place: int, seen: Seen, is_living: bool) -> None:
        slot = seen.slot
        if seen.problem is not None:
            self.unknown.append(Unknown(place, is_living, seen.problem))
        elif is_living and (slot is BLANK or not slot.is_whole):
            self.unknown.append(Unknown(place, is_living, "it is damaged until its owner writes again"))
        elif seen.record is None:
            self.unknown.append(Unknown(place, is_living, "it is damaged, and its owner is dead"))
        # A dead one whose slot is not whole was cut off while it wrote: it never acted on what it did not get to say.
        else:
            (self.living if is_living else self.orphaned).append((place, seen.record))

    def _own_place(self) -> int:
        self._require_turn()
        if self._ledger.seat is None:
            raise ValueError(f"this process has no seat at {self._ledger.path}; take_seat() first")
        return self._ledger.seat.place

    def _require_turn(self) -> None:
        if not self._is_ours:
            raise ValueError(f"the turn at {self._ledger.path} is over, or has not begun")


def _opened(path: Path, descriptor: Descriptor, record: type[S], patience: float) -> Ledger[S]:
    try:
        return Ledger(Slots(path, descriptor, record, patience=patience))
    except BaseException:
        descriptor.close()
        raise


def _require_fitting(record: type[msgspec.Struct]) -> None:
    config = record.__struct_config__
    has_defaults = all(not field.required for field in msgspec.structs.fields(record))
    if not config.frozen or config.array_like or config.forbid_unknown_fields or not has_defaults:
        raise TypeError(
            f"{record.__name__} cannot be a ledger's record: make it a frozen msgspec.Struct whose fields all have "
            "defaults, neither array_like nor with forbid_unknown_fields, so that other versions can read it"
        )
