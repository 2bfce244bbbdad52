"""The seam for memory admission: a grant before each receive. No grant, no receive: the message stays in the queue.

A device without a ledger uses Unlimited, which always grants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod


class Grant:
    """Leave to hold *size* messages on the device, given back one by one as the runner is done with them."""

    def __init__(self, size: int, admission: Admission) -> None:
        self.size = size
        self._outstanding = size
        self._admission = admission

    def give_back(self, count: int) -> None:
        """*count* of the messages no longer need the device."""
        self._outstanding -= count
        if self._outstanding == 0:
            self._admission.release(self)

    def shrink_to(self, count: int) -> None:
        """Only *count* messages came: give back the rest."""
        if count < self._outstanding:
            self.give_back(self._outstanding - count)


class Admission(ABC):
    """Decides when a worker may pull, and how much."""

    @abstractmethod
    async def acquire(self, want: int) -> Grant:
        """Wait until the device has room for at least one message; a grant for 1 to *want* of them.

        Cancelling the call leaves nothing granted.
        """

    @abstractmethod
    def release(self, grant: Grant) -> None:
        """All of *grant* has been given back. Called once per grant."""


class Unlimited(Admission):
    """Grants whatever is asked for, at once."""

    async def acquire(self, want: int) -> Grant:
        return Grant(want, self)

    def release(self, grant: Grant) -> None:
        """Nothing to do: nothing was taken."""
