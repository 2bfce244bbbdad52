"""What a worker was granted and has not given back, and what its runner has taken of the device by it."""

from __future__ import annotations

from dumbwaiter.devices.admission import Grant


class Holdings:
    """*grants* are those with messages, or a receive, that are not over; *receiving* those whose receive is not.

    *is_empty*: the runner's framework caches nothing. *most_used* is the most activation, in bytes, that a batch took
    since it was emptied; *exceeds*: that was more than was granted.
    """

    def __init__(self) -> None:
        self.grants: set[Grant] = set()
        self.receiving: set[Grant] = set()
        self.is_empty = True
        self.most_used = 0
        self.exceeds = False

    @property
    def is_running(self) -> bool:
        """Whether there are messages, and not only receives."""
        return bool(self.grants - self.receiving)

    @property
    def only_waits(self) -> bool:
        """Whether all that is left is to see if messages come."""
        return bool(self.grants) and not self.is_running and all(grant.may_wait for grant in self.receiving)

    def hand_out(self, grant: Grant) -> None:
        """A grant was given to whoever asked."""
        self.grants.add(grant)
        self.receiving.add(grant)

    def received(self, grant: Grant, count: int) -> bool:
        """A receive is over. Whether it was the last that anything was granted for."""
        self.receiving.discard(grant)
        if count:
            self.is_empty = False
        return self.released(grant)

    def released(self, grant: Grant) -> bool:
        """Some of its messages have left the runner. Whether they were the last that anything was granted for."""
        if not grant.outstanding and grant not in self.receiving:
            self.grants.discard(grant)
        return not self.grants

    def used(self, nbytes: int) -> None:
        """A batch took so many bytes of activation, perhaps more than was granted."""
        self.most_used = max(self.most_used, nbytes)

    def emptied(self) -> None:
        """The runner caches nothing any more."""
        self.is_empty, self.exceeds, self.most_used = True, False, 0

    def void(self) -> None:
        """The runner is gone, and with it whatever was granted for it."""
        for grant in self.grants:
            grant.is_void = True
            grant.is_revoked.set()
        self.grants.clear()
        self.receiving.clear()
