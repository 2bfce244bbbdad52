"""How many messages to take from which lane. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def allotment(order: Iterable[int], ready: Sequence[int], wanted: int) -> list[tuple[int, int]]:
    """Lanes and how many messages to take from each, *wanted* in all at most: as *order* says, and no more than are
    *ready* there (by lane).
    """
    taken: list[tuple[int, int]] = []
    for lane in order:
        share = min(ready[lane], wanted)
        if share > 0:
            taken.append((lane, share))
            wanted -= share
    return taken
