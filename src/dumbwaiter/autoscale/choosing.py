"""How many workers one autoscaler starts or retires, and which. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dumbwaiter.autoscale.fleet import Member
from dumbwaiter.autoscale.room import Room
from dumbwaiter.blobs.presence import ANNOUNCE_EVERY, STALE_AFTER, WorkerStatus
from dumbwaiter.policies.retiring import turn

HEARD_WITHIN = 2 * ANNOUNCE_EVERY + 1.0
"""A worker of somebody else that has been silent for so many seconds is not counted on."""
_MISSED_FOR = ANNOUNCE_EVERY + 1.0
"""One of our own has to stay silent for so long after it was missed: after the whole machine slept, all are missed."""


@dataclass(frozen=True, slots=True)
class Change:
    """So many workers to *start*, or the names of those to *retire*; *held* says what keeps more from being started."""

    start: int = 0
    retire: tuple[str, ...] = ()
    held: str = ""


def others_of(
    workers: Sequence[WorkerStatus], own: Sequence[Member], past: Collection[str], silence: Mapping[str, float]
) -> list[WorkerStatus]:
    """Those of *workers* that serve, or will, and that somebody else keeps. *silence*: seconds since each was heard of,
    by name.
    """
    ours = {member.worker for member in own} | set(past)
    return [
        status
        for status in workers
        if status.state in {"ready", "loading"}
        and status.worker not in ours
        and silence.get(status.worker, 0.0) <= HEARD_WITHIN
    ]


@dataclass(frozen=True, slots=True)
class Watch:
    """Over the own workers: when each was *seen* to be heard of last, and since when each is *missed*, by name."""

    seen: Mapping[str, float] = field(default_factory=dict)
    missed: Mapping[str, float] = field(default_factory=dict)

    def after(self, own: Sequence[Member], workers: Sequence[WorkerStatus], now: float) -> Watch:
        """A look at *now* found that *workers* were heard of lately."""
        heard = {status.worker for status in workers}
        names = [member.worker for member in own if member.worker and member.state in {"loading", "ready"}]
        return Watch(
            {name: now if name in heard else self.seen[name] for name in names if name in heard or name in self.seen},
            {name: self.missed.get(name, now) for name in names if name not in heard},
        )

    def silent(self, own: Sequence[Member], now: float) -> list[Member]:
        """Those of *own* whose process is there and says nothing, as one that hangs: no work is to wait for them."""
        return [member for member in own if member.worker in self.missed and self._is_silent(member.worker, now)]

    def _is_silent(self, name: str, now: float) -> bool:
        # A new one may be ready before it has told anybody but us.
        return now - self.missed[name] >= (_MISSED_FOR if name in self.seen else STALE_AFTER)


def change(
    desired: int,
    own: Sequence[Member],
    others: Sequence[WorkerStatus],
    workers: Sequence[WorkerStatus],
    *,
    doubt: str = "",
    room: int | None = None,
    room_of: str = "",
    silent: Collection[str] = (),
    most: int | None = None,
) -> Change:
    """What to do so that *own* workers and *others* are *desired* together.

    Too few: the difference is started here, but none while one of *own* fails, for the next one would fail like it; one
    where the last one did (*doubt* says why) and none was ready since; and no more than there is *room* for, of which
    *room_of* tells. Those of *own* whose names are *silent* stay and do not count, but that there are never more than
    twice the *most* of them. Too many: the newest of all are too many, whoever keeps them, so
    that two autoscalers do not retire the same surplus; and of our own as many as are among those are retired, those
    with the least to do. *workers*: what is known of all of them, for what each has in hand.
    """
    if silent:
        hung = [member for member in own if member.name in silent]
        own = [member for member in own if member.name not in silent]
        if most is not None and len(hung) >= most and desired > len(own) + len(others):
            return Change(held=f"{len(hung)} of them are there and say nothing, so no others are tried")
    missing = desired - len(own) - len(others)
    if missing > 0:
        return _more(missing, own, doubt, room, room_of)
    if missing == 0:
        return Change()
    statuses = {status.worker: status for status in workers}
    surplus = _newest_own(-missing, own, others, statuses)
    in_hand = {name: status.in_hand for name, status in statuses.items()}
    return Change(retire=tuple(member.name for member in least_loaded(own, in_hand)[:surplus]))


def least_loaded(own: Sequence[Member], in_hand: Mapping[str, int]) -> list[Member]:
    """*own*, the oldest first, in the order in which they are retired; *in_hand*: their messages, by name."""

    def turn_of(place: int) -> tuple[int, int, int]:
        return turn(own[place].state, in_hand=in_hand.get(own[place].worker, 0), place=place)

    return [own[place] for place in sorted(range(len(own)), key=turn_of)]


def free(room: Room, own: Sequence[Member], seated: Collection[str]) -> int:
    """How many more may be started where *room* was seen while those of *own* that are *seated* were ready.

    The first one of all always may: it is for whoever shares out the device, who may get others to leave.
    """
    coming = sum(member.name not in seated for member in own)
    return max(0, max(room.fits, 1) - max(room.seated + coming, len(own)))


def doubt_of(own: Sequence[Member], before: str) -> str:
    """Why the next worker may fail: as *before*, until one is ready; empty where nothing suggests it."""
    if any(member.state == "ready" for member in own):
        return ""
    return next((member.reason or "it died" for member in own if member.state == "failing"), before).partition("\n")[0]


def _more(missing: int, own: Sequence[Member], doubt: str, room: int | None, room_of: str) -> Change:
    failing = [member for member in own if member.state == "failing"]
    if failing:
        why = failing[0].reason.partition("\n")[0]
        return Change(held=f"{failing[0].name} fails, and another one would too: {why}")
    if doubt:
        alone = max(0, min(missing, 1 - len(own)))
        return Change(start=alone, held=f"the last one has failed, so that one has to be ready first: {doubt}")
    if room is not None and room < missing:
        return Change(start=room, held=room_of)
    return Change(start=missing)


def _newest_own(
    surplus: int, own: Sequence[Member], others: Sequence[WorkerStatus], statuses: Mapping[str, WorkerStatus]
) -> int:
    """How many of *own* are among the *surplus* newest."""

    def age(name: str, *, is_own: bool) -> tuple[float, str, bool]:
        status = statuses.get(name)
        return (status.started_at if status is not None else float("inf"), name, is_own)

    mine = [age(member.worker, is_own=True) for member in own]
    theirs = [age(status.worker, is_own=False) for status in others]
    return sum(is_own for _, _, is_own in sorted(mine + theirs)[-surplus:])
