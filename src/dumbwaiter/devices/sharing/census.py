"""Who is on a device and what they hold: the ledger's seats, checked against what the device says is in use.

Two things are in no living seat's record. What has no seat at all (a desktop, a notebook, the driver) is *outside*; and
what dead processes held may be in use for a while after their deaths. Both are known only as differences, and exactly
only while nobody is busy: at other moments what the living surely hold bounds them.
"""

from __future__ import annotations

import logging

import msgspec

from dumbwaiter.devices.contract import Device, DeviceError
from dumbwaiter.devices.ledger import Turn
from dumbwaiter.policies import admission
from dumbwaiter.policies.admission import IDLE, LOADING, PARKING, POLLING, PROBING, RUNNING, STALE, Seat

LOOK_EVERY = 1.0
"""Seconds between two looks at the device while nobody is missing."""
FORGIVEN = 64 * 2**20
"""Bytes of a dead process that are put down to noise: less than any context takes."""
_UNCERTAIN = admission.LONGEST_QUARANTINE - admission.REACTION
"""For so many seconds at the most a dead process is said to be dead. Whether it leaks is seen when all are idle for a
moment, and they are as soon as what it holds is expected back at once: then nobody runs ahead of who waits for it.
"""
_UNREADABLE = "(unreadable)"
_log = logging.getLogger(__name__)


class Census:
    """Takes stock of *device*, turn by turn. Moments are those of ledger.now()."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._dead_since: dict[int, float] = {}
        self._outside = self._certain = 0
        self.outside = 0
        """What to say of it in one's own seat: differences that are noise are not worth a write."""
        self.doubtful = 0
        """What of that may be gone already, also to be said in one's own seat."""
        self._has_looked = False
        self._looked_at = float("-inf")
        self._is_blind = False
        self._is_seated = True
        self.is_blurred = False
        """Whether a living process's record cannot be read just now: then nobody can be given anything."""

    def take(
        self, turn: Turn[Seat], now: float, *, is_seated: bool = True, empty: int | None = None
    ) -> tuple[admission.Device, dict[int, Seat]]:
        """The device and its seats as they are now. Seats of the dead whose memory has come back are freed.

        *is_seated*: whether others will read in this one's seat what is outside. *empty*: this one's place, if it uses
        nothing of what it was granted.
        """
        self._is_seated = is_seated
        self.is_blurred = any(one.is_living for one in turn.unknown)
        living = dict(turn.living)
        dead = dict(turn.orphaned)
        dead |= {one.place: Seat(model=_UNREADABLE) for one in turn.unknown if not one.is_living}
        if self._dead_since.keys() - dead.keys():
            # Perhaps somebody else gave up on that one, and counts it as outside.
            self._has_looked, self._looked_at = False, float("-inf")
        self._dead_since = {place: self._dead_since.get(place, now) for place in dead}
        if not self._device.frees_late:
            for place in dead:
                self._forget(turn, place)
            dead = {}
        seen = _without_grant(living, empty)
        is_worth_it = self._doubtful > FORGIVEN and all(seat.doing == IDLE for seat in seen.values())
        if dead or is_worth_it or now >= self._looked_at + LOOK_EVERY:
            dead = self._look(turn, seen, dead, now)
        if abs(self._outside - self.outside) > FORGIVEN:
            self.outside = self._outside
        # All count with the most that anybody says: else they would not agree on who fits.
        outside = max([self.outside, *(seat.outside for seat in living.values())])
        waiting = [seat for seat in living.values() if seat.asked_at is not None and now - seat.looked_at <= STALE]
        self.doubtful = max(0, outside - self._certain)
        doubtful = max([self.doubtful, *(seat.doubtful for seat in waiting)])
        # Until that is certain, nobody may be taken never to fit for it: then nobody would make room, and see it.
        quarantined = {place: max(self._dead_since[place], now - _UNCERTAIN) for place in dead}
        return (
            admission.Device(self._device.name, self._device.capacity, outside, quarantined, doubtful),
            living | dead,
        )

    @property
    def _doubtful(self) -> int:
        return self._outside - self._certain

    def _look(self, turn: Turn[Seat], living: dict[int, Seat], dead: dict[int, Seat], now: float) -> dict[int, Seat]:
        """Ask the device, and mend *outside* by what it says; the seats of the *dead* with what they may still hold."""
        self._looked_at = now
        used = self._used()
        if used is None:
            return dead
        is_quiet = not self.is_blurred and all(seat.doing == IDLE for seat in living.values())
        most = used - sum(map(_surely_held, living.values()))
        self._estimate(used, most, living, dead)
        if not dead:
            return {}
        left = max(0, most - self._outside)
        kept: dict[int, Seat] = {}
        for place, seat in dead.items():
            is_known = seat.model != _UNREADABLE
            held = min(left, seat.resident + seat.granted) if is_known else left
            if held <= FORGIVEN:
                self._forget(turn, place)
            elif is_quiet and self._is_seated and now >= self._dead_since[place] + admission.LONGEST_QUARANTINE:
                self._give_up_on(turn, place, seat, held)
            else:
                kept[place] = msgspec.structs.replace(seat, resident=held, granted=0, parked=0, doing=IDLE)
            left -= held
        return kept

    def _estimate(self, used: int, most: int, living: dict[int, Seat], dead: dict[int, Seat]) -> None:
        """*outside* lies between what is left when all hold as much as they may, and *most*, when as little."""
        if not self._has_looked:
            # Others have seen the device when it was quiet.
            self._outside = max([self._outside, *(seat.outside for seat in living.values())])
            self._has_looked = True
        # A probe may find more room than it was granted: the reserve.
        is_known = not self.is_blurred and all(seat.model != _UNREADABLE for seat in dead.values())
        is_known = is_known and all(seat.doing != PROBING for seat in living.values())
        held = sum(seat.resident + seat.granted for seat in (*living.values(), *dead.values()))
        if is_known:
            self._outside = max(self._outside, used - held)
        self._outside = max(0, min(self._outside, most))
        self._certain = max(0, used - held) if is_known else 0

    def _give_up_on(self, turn: Turn[Seat], place: int, seat: Seat, held: int) -> None:
        """It has leaked. From now on it is like anything that is used by somebody without a seat."""
        _log.warning(
            "%d MiB of %s that a dead process of model %s held are in use %.0f s after its death: counted as leaked; "
            "look for its children, or reset the device when nobody uses it",
            *(held // 2**20, self._device.name, seat.model, admission.LONGEST_QUARANTINE),
        )
        self._outside += held
        self._forget(turn, place)

    def _forget(self, turn: Turn[Seat], place: int) -> None:
        turn.forget(place)
        del self._dead_since[place]

    def _used(self) -> int | None:
        try:
            used = self._device.used()
        except DeviceError as error:
            if not self._is_blind:
                _log.warning("what is in use of %s cannot be told: %s", self._device.name, error)
            self._is_blind = True
            return None
        self._is_blind = False
        return used


def _without_grant(living: dict[int, Seat], place: int | None) -> dict[int, Seat]:
    if place is None or living[place].doing not in {RUNNING, POLLING}:
        return living
    return {**living, place: msgspec.structs.replace(living[place], doing=IDLE, granted=0)}


def _surely_held(seat: Seat) -> int:
    """Bytes that a living process has in use at least: what it was given for loading it may not have taken yet."""
    if seat.doing in {LOADING, PROBING}:
        return 0
    return min(seat.resident, seat.parked) if seat.doing == PARKING else seat.resident
