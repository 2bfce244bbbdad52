"""Admission: a grant before each receive. No grant, no receive: the message stays in the queue for whoever has room.

A device without a ledger uses Unlimited, which always grants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod


class Grant:
    """Leave to hold *size* messages on the device, given back one by one as the runner is done with them."""

    def __init__(self, size: int, admission: Admission) -> None:
        self.size = size
        self.outstanding = size
        self._admission = admission

    def give_back(self, count: int) -> None:
        """*count* of the messages no longer need the device."""
        if count:
            self.outstanding -= count
            self._admission.release(self, count)

    def shrink_to(self, count: int) -> None:
        """Only *count* messages came: give back the rest."""
        self.give_back(max(0, self.outstanding - count))


class Admission(ABC):
    """Decides when a worker may pull, and how much."""

    @abstractmethod
    async def acquire(self, want: int) -> Grant:
        """Wait until the device has room for at least one message; a grant for 1 to *want* of them.

        Cancelling the call leaves nothing granted.
        """

    @abstractmethod
    def release(self, grant: Grant, count: int) -> None:
        """*count* messages of *grant* no longer need the device; ``grant.outstanding`` is what is left of it."""


class Unlimited(Admission):
    """Grants whatever is asked for, at once."""

    async def acquire(self, want: int) -> Grant:
        return Grant(want, self)

    def release(self, grant: Grant, count: int) -> None:
        """Nothing to do: nothing was taken."""
