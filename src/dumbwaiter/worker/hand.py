"""What a consumer has in hand: locked messages, the runner's slots for them, and the locks to renew.

A message is received, may be in the runner, is settled, and then is released. Its lock is renewed from the first moment
until its settlement is on its way to the broker.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from dumbwaiter import holding
from dumbwaiter.answers import is_kept
from dumbwaiter.devices.admission import Grant
from dumbwaiter.message import Delivery, Message
from dumbwaiter.policies.retrying import must_be_alone
from dumbwaiter.worker.recorder import SLOTS

_MOST_SUSPECTS = 1024
NOWHERE = -1
"""The slot of a message that is not in the runner."""


class Flushable(Protocol):
    """Something on its way to the store."""

    async def flush(self) -> None:
        """Wait until it is there, or lost."""
        ...


class Held(holding.Held):
    """A delivery of a request.

    *body* is the message's, or what its claim check stands for, until the runner has it; *nbytes* its size.
    *grant* is what it may use the device by; *alone*: it must not share a batch. *waiting* is set until it is given to
    the runner, or passed by it; *fetching* when its input is fetched beside.

    *request* is what the message asks for: the message itself, or what its body says where that is an order of its own.
    *source* is a URL that its input is fetched from. *kept* says whether its answer is stored; *stored* is the answer
    that was found there while it was in hand (it was cancelled, or another worker was first), *stored_at* when.
    *lane* takes its progress to the store.
    """

    __slots__ = (
        "alone",
        "body",
        "fetching",
        "given_at",
        "grant",
        "kept",
        "lane",
        "nbytes",
        "received_at",
        "request",
        "slot",
        "source",
        "stored",
        "stored_at",
        "waiting",
    )

    def __init__(self, delivery: Delivery, grant: Grant, received_at: float, *, alone: bool) -> None:
        super().__init__(delivery)
        self.request = delivery.message
        self.kept = is_kept(delivery.message)
        self.source: str | None = None
        self.stored: Message | None = None
        self.stored_at = 0.0
        self.lane: Flushable | None = None
        self.given_at = 0.0
        self.body = delivery.message.body
        self.nbytes = 0
        self.grant: Grant | None = grant
        self.received_at = received_at
        self.slot = NOWHERE
        self.alone = alone
        self.waiting = True
        self.fetching = False

    def let_go(self) -> None:
        """It needs the device no more, or not yet: its part of the grant goes back. Twice is no error."""
        grant, self.grant = self.grant, None
        if grant is not None:
            grant.give_back(1)

    def is_locked(self, now: float) -> bool:
        """Whether, as far as this process can tell, nobody else can hold the message at *now* (monotonic)."""
        return not self.lost and now < self.delivery.locked_until


class Hand:
    """Deliveries from receive to settlement. *in_runner* counts those that occupy a slot of the runner."""

    def __init__(self) -> None:
        self._free = list(range(SLOTS - 1, -1, -1))
        self._by_slot: dict[int, Held] = {}
        self._held: dict[int, Held] = {}
        self._suspects: dict[str, None] = {}
        self.nbytes_in_runner = 0
        self.given_at = 0.0
        """When the runner was last given an input, on the monotonic clock."""

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        """All that is in hand, from receive to settlement."""
        return iter(self._held.values())

    @property
    def in_runner(self) -> int:
        """How many inputs the runner has."""
        return len(self._by_slot)

    @property
    def room(self) -> int:
        """How many more inputs the runner can have, whatever it wants."""
        return len(self._free)

    @property
    def slots(self) -> list[int]:
        """The slots in use."""
        return list(self._by_slot)

    def at(self, slot: int) -> Held:
        """Whose input is in *slot* of the runner. Raises ValueError when nobody's is."""
        try:
            return self._by_slot[slot]
        except KeyError:
            raise ValueError(f"nothing is in slot {slot} of the runner, which has {self.slots}") from None

    def kept_in_runner(self, *, since: float) -> list[Held]:
        """Those kept that the runner has had since *since* (monotonic), or longer."""
        return [held for held in self._by_slot.values() if held.kept and held.given_at <= since]

    def take(self, deliveries: Iterable[Delivery], grant: Grant) -> list[Held]:
        """Take freshly received deliveries in hand: from now on their locks are renewed."""
        now = time.monotonic()
        taken = [Held(delivery, grant, now, alone=self._must_be_alone(delivery)) for delivery in deliveries]
        for held in taken:
            self._held[id(held)] = held
        return taken

    def assign(self, held: Held) -> bytes:
        """Give *held* a slot of the runner; its body, which nobody here needs any longer."""
        held.waiting = False
        self.given_at = held.given_at = time.monotonic()
        held.slot = self._free.pop()
        self._by_slot[held.slot] = held
        body, held.body = held.body, b""
        held.nbytes = len(body)
        self.nbytes_in_runner += held.nbytes
        return body

    def leave_runner(self, slot: int) -> Held:
        """The runner is done with *slot*; its message still waits to be settled."""
        held = self._by_slot.pop(slot)
        self._free.append(slot)
        held.slot = NOWHERE
        self.nbytes_in_runner -= held.nbytes
        held.let_go()
        return held

    def leave_runner_together(self, slots: Sequence[int]) -> list[Held]:
        """As leave_runner, for all of *slots*; for none, and ValueError, when one is not in use or named twice."""
        if len(set(slots)) != len(slots) or not self._by_slot.keys() >= set(slots):
            raise ValueError(f"slots {list(slots)} cannot leave the runner, which has {self.slots}")
        return [self.leave_runner(slot) for slot in slots]

    def pass_by_runner(self, held: Held) -> None:
        """*held* is in hand but will not run here: its part of the grant goes back."""
        held.waiting = False
        held.let_go()

    def suspect(self, slot: int) -> Held:
        """As leave_runner; if the message in *slot* comes here again, it runs alone."""
        held = self.leave_runner(slot)
        self._suspects[held.delivery.message.id] = None
        if len(self._suspects) > _MOST_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]
        return held

    def _must_be_alone(self, delivery: Delivery) -> bool:
        return must_be_alone(delivery.delivery_count) or delivery.message.id in self._suspects

    def empty_runner(self) -> list[Held]:
        """The runner is gone: everything that it had."""
        return [self.leave_runner(slot) for slot in self.slots]

    def release(self, held: Held) -> None:
        """Settled, handed back or lost: no longer ours."""
        self._held.pop(id(held), None)
