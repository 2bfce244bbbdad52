"""What the autoscaler needs of whoever keeps worker processes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from dumbwaiter.policies.retiring import Stage


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process that is kept alive here. *name* is its own among those of its model.

    *state* is ``starting`` until the process has said anything, and ``failing`` while it cannot load its model or is
    dead and waits to be started again; *reason* says why. *worker*: the name by which it announces itself, or empty.
    """

    name: str
    state: Stage
    reason: str = ""
    worker: str = ""


class Fleet(Protocol):
    """Worker processes that can be added and taken away. What dies by itself is started again, ever more slowly."""

    def members(self, model: str) -> Sequence[Member]:
        """The workers of *model* that are kept, the oldest first, without those that were told to retire."""
        ...

    def past(self, model: str) -> Collection[str]:
        """The names by which workers of *model* announced themselves here that died, or were told to retire."""
        ...

    def start(self, model: str) -> None:
        """Start one more worker of *model*."""
        ...

    def retire(self, model: str, name: str) -> None:
        """Have the worker *name* take nothing more and leave when what runs has ended, however long that takes."""
        ...
