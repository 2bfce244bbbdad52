"""How many workers one autoscaler starts or retires, and which. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dumbwaiter.autoscale.fleet import Member
from dumbwaiter.blobs.presence import ANNOUNCE_EVERY, WorkerStatus

HEARD_WITHIN = 2 * ANNOUNCE_EVERY + 1.0
"""A worker of somebody else that has been silent for so many seconds is not counted on."""
_STATES = ("failing", "starting", "loading", "draining", "ready")
"""In this order workers are retired: those that do no work first."""


@dataclass(frozen=True, slots=True)
class Change:
    """So many workers to *start*, or the names of those to *retire*; *held* says what keeps more from being started."""

    start: int = 0
    retire: tuple[str, ...] = ()
    held: str = ""


def others_of(
    workers: Sequence[WorkerStatus], own: Sequence[Member], past: Collection[str], now: float
) -> list[WorkerStatus]:
    """Those of *workers* that serve, or will, and that somebody else keeps."""
    ours = {member.worker for member in own} | set(past)
    return [
        status
        for status in workers
        if status.state in {"ready", "loading"}
        and status.worker not in ours
        and now - status.announced_at <= HEARD_WITHIN
    ]


def change(
    desired: int,
    own: Sequence[Member],
    others: Sequence[WorkerStatus],
    workers: Sequence[WorkerStatus],
    *,
    doubt: str = "",
    room: int | None = None,
    room_of: str = "",
) -> Change:
    """What to do so that *own* workers and *others* are *desired* together.

    Too few: the difference is started here, but none while one of *own* fails, for the next one would fail like it; one
    where the last one did (*doubt* says why) and none was ready since; and in all no more than *room*, which *room_of*
    names. Too many: the newest of all are too many, whoever keeps them, so
    that two autoscalers do not retire the same surplus; and of our own as many as are among those are retired, those
    with the least to do. *workers*: what is known of all of them, for what each has in hand.
    """
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
    """*own* in the order in which they are retired: those that do not serve yet, then by what they have *in_hand*."""
    return sorted(own, key=lambda one: (_STATES.index(one.state), in_hand.get(one.worker, 0)))


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
    # The first one is for whoever shares out the device: it may get others to leave.
    fitting = missing if room is None else max(0, max(room, 1) - len(own))
    if fitting < missing:
        return Change(start=fitting, held=f"{room_of} has room for {max(room or 0, 1)}")
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
