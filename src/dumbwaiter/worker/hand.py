"""What a consumer has in hand: locked messages, the runner's slots for them, and the locks to renew."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dumbwaiter.message import Delivery
from dumbwaiter.worker.admission import Grant
from dumbwaiter.worker.recorder import SLOTS


class Held:
    """One delivery in hand; *delivery* is replaced when its lock is renewed, *lost* set when the lock is gone.

    *body* is the message's, or what its claim check stands for.
    """

    __slots__ = ("body", "delivery", "grant", "lost", "received_at", "slot")

    def __init__(self, delivery: Delivery, grant: Grant, received_at: float) -> None:
        self.delivery = delivery
        self.body = delivery.message.body
        self.grant = grant
        self.received_at = received_at
        self.slot = -1
        self.lost = False

    def is_locked(self, now: float) -> bool:
        """Whether, as far as this process can tell, nobody else can hold the message at *now* (monotonic)."""
        return not self.lost and now < self.delivery.locked_until


class Hand:
    """Deliveries from receive to settlement. *in_runner* counts those that occupy a slot of the runner."""

    def __init__(self) -> None:
        self._free = list(range(SLOTS - 1, -1, -1))
        self._by_slot: dict[int, Held] = {}
        self._held: dict[int, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def in_runner(self) -> int:
        """How many inputs the runner has."""
        return len(self._by_slot)

    @property
    def slots(self) -> list[int]:
        """The slots in use."""
        return list(self._by_slot)

    def take(self, deliveries: Iterable[Delivery], grant: Grant) -> list[Held]:
        """Take freshly received deliveries in hand: from now on their locks are renewed."""
        now = time.monotonic()
        taken = [Held(delivery, grant, now) for delivery in deliveries]
        for held in taken:
            self._held[id(held)] = held
        return taken

    def assign(self, held: Held) -> int:
        """Give *held* a slot of the runner."""
        held.slot = self._free.pop()
        self._by_slot[held.slot] = held
        return held.slot

    def leave_runner(self, slot: int) -> Held:
        """The runner is done with *slot*; its message still waits to be settled."""
        held = self._by_slot.pop(slot)
        self._free.append(slot)
        held.grant.give_back(1)
        return held

    def pass_by_runner(self, held: Held) -> None:
        """*held* is in hand but will not run here: its part of the grant goes back."""
        held.grant.give_back(1)

    def empty_runner(self) -> list[Held]:
        """The runner is gone: everything that it had."""
        return [self.leave_runner(slot) for slot in self.slots]

    def release(self, held: Held) -> None:
        """Settled, handed back or lost: no longer ours."""
        self._held.pop(id(held), None)

    def renewable(self) -> list[Held]:
        """Whose locks are still ours to renew."""
        return [held for held in self._held.values() if not held.lost]
