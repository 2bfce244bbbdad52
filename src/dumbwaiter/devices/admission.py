"""Admission: a grant before each receive. No grant, no receive: the message stays in the queue for whoever has room.

Two things need a device's memory, and so two are asked for: a *place* for a runner and its weights, by whoever keeps
the runner, and a *grant* for the messages of the next batches, by whoever receives them. Between batches the admission
may have the runner's memory moved (Mover): its cache emptied, its weights parked and woken.

A worker whose device is shared with nobody uses Unlimited, which always grants.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from dumbwaiter.policies.footprints import Footprint, Observation

What = Literal["empty", "park", "wake"]
HasWork = Callable[[], Awaitable[bool]]
"""Whether anything waits in the queue. Raises BrokerError when that cannot be told."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a runner may live.

    *device* is the address for open_allocator(), None where no device is shared; *environment* and *seat_fd* are given
    to its process, which holds the seat as long as it lives. *probes*: nobody else uses the device, so measure.
    """

    device: str | None = None
    environment: Mapping[str, str] = {}
    seat_fd: int | None = None
    probes: bool = False


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What an order to the runner's memory came to. *reserved*: bytes that it has now, its context not counted.

    *is_done* is False when the model cannot be moved: its weights are where they were.
    """

    reserved: int
    seconds: float
    is_done: bool = True


class Mover(Protocol):
    """Who has a runner's memory moved: its keeper. For a runner that has nothing to run."""

    async def move(self, what: What) -> Moved | None:
        """Do it; None when the runner is gone, or goes for it."""
        ...

    async def retire(self) -> None:
        """End the runner: all its memory comes back. Its keeper asks for a place when there is work again."""
        ...


class Grant:
    """Leave to hold *size* messages, given back one by one as the runner is done with them.

    The runner runs at most *batch* of them at once (None: as many as it likes). *may_wait*: the receive may wait for
    messages to come; else it takes what is there. *is_revoked* is set when a receive that
    found nothing yet shall end, because somebody else needs the room.
    """

    def __init__(self, size: int, admission: Admission, *, batch: int | None = None, may_wait: bool = True) -> None:
        self.size = size
        self.outstanding = size
        self.batch = batch
        self.may_wait = may_wait
        self.is_void = False
        """Whether the runner that it was for is gone: it is good for nothing any more."""
        self.is_revoked = asyncio.Event()
        self._admission = admission

    def give_back(self, count: int) -> None:
        """*count* of the messages no longer need the device."""
        if count:
            self.outstanding -= count
            self._admission.release(self, count)

    def shrink_to(self, count: int) -> None:
        """The receive is over, and *count* messages came: give back the rest."""
        self.give_back(max(0, self.outstanding - count))
        self._admission.received(self, count)


class Admission(ABC):
    """Decides when a runner may load, when a worker may pull, and how much.

    run() must run all the while. Once a runner that has a place is ready, settle_in() is called with what it measured;
    once it is dead, move_out(). *is_shared*: whoever holds a grant keeps others waiting.
    """

    is_shared = False

    def attach(self, mover: Mover, has_work: HasWork) -> None:  # noqa: B027 - an unlimited one needs neither
        """Say by whom memory is moved, and how to see whether there is work. Before run()."""

    async def run(self) -> None:
        """Do what is to be done between the calls, until cancelled."""
        await asyncio.Event().wait()

    async def make_place(self) -> Place:
        """Wait until a runner may be started and load its model. Cancelling the call leaves nothing granted."""
        return Place()

    def settle_in(self, footprint: Footprint | None, max_batch: int) -> None:  # noqa: B027 - as above
        """The runner is ready, and measured *footprint*."""

    def move_out(self) -> None:  # noqa: B027 - as above
        """The runner is dead, or was never started: nothing of it is left to be waited for. Twice is no error."""

    def observe(self, observations: Sequence[Observation], target: int, seconds_each: float) -> None:  # noqa: B027
        """What batches really took; the batch that is worth aiming at now, and an input's share of its time."""

    @property
    def may_grow(self) -> bool:
        """Whether an input that ran out of memory alone may have more next time."""
        return False

    @property
    def is_hopeless(self) -> bool:
        """Whether what is waited for cannot come, whoever leaves the device."""
        return False

    @property
    def reason(self) -> str:
        """For people: what is being waited for; empty when nothing is."""
        return ""

    @abstractmethod
    async def acquire(self, want: int, *, polls: bool = False) -> Grant:
        """Wait until the device has room for at least one message; a grant for 1 to *want* of them.

        *polls*: nobody knows whether there is any. Cancelling the call leaves nothing granted.
        """

    @abstractmethod
    def release(self, grant: Grant, count: int) -> None:
        """*count* messages of *grant* no longer need the device; ``grant.outstanding`` is what is left of it."""

    def received(self, grant: Grant, count: int) -> None:  # noqa: B027 - as above
        """The receive for *grant* is over; *count* messages came."""


class Unlimited(Admission):
    """Grants whatever is asked for, at once."""

    async def acquire(self, want: int, *, polls: bool = False) -> Grant:  # noqa: ARG002 - all the same here
        return Grant(want, self)

    def release(self, grant: Grant, count: int) -> None:
        """Nothing to do: nothing was taken."""
