"""The device contract: how much memory there is, who sees it from outside, and who from inside.

Two roles, because two processes look at a device:

* A Device is seen from outside. The consumer, the command line and the ledger use it: they never load a framework and
  never make a context, for that alone would take hundreds of megabytes of what is to be shared.
* An Allocator is seen from inside: from the runner, whose framework holds the memory. It speaks for its own process
  only. Numbers by process id are asked of no driver: it knows those of the host, and a container has others.

Who does what:

* Nothing here decides, waits for memory, retries or logs. Whoever admits work adds up what the processes report, and
  takes Device.used() as the cross-check. What others use (a desktop, a notebook) is the difference, so it is never
  subtracted from *capacity*, which all processes must see alike.
* All sizes are bytes. A look-up that fails raises DeviceError; it never becomes 0.
* Every call may block for as long as the driver takes (microseconds to a few milliseconds), synchronize() for as long
  as the device computes. A Device may be used from any thread, an Allocator from the runner's main thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

from dumbwaiter.errors import DumbwaiterError

Kind = Literal["cuda", "host", "fake"]


class DeviceError(DumbwaiterError):
    """A device cannot be found, or does not tell what was asked; the text names it, the reason and the next step."""


class Device(ABC):
    """One device, from outside. Make it with opening.open_device()."""

    def __init__(self, *, kind: Kind, name: str, address: str, capacity: int, frees_late: bool) -> None:
        self.kind = kind
        self.name = name
        """The same in every process and container that sees this device; fit for a file's name."""
        self.address = address
        """What open_allocator() needs in the runner to find this very device."""
        self.capacity = capacity
        """All of its memory, what the driver or the system keeps for itself included."""
        self.frees_late = frees_late
        """Memory of a killed process may still be in use when its locks are gone already, so it must be watched."""

    @abstractmethod
    def used(self) -> int:
        """Bytes of *capacity* that anybody uses now, whoever it is. Raises DeviceError."""

    def environment(self) -> Mapping[str, str]:
        """Variables with which to start the runner, so that its framework sees this device and no other."""
        return {}

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of what looking takes. Twice is no error."""


class Allocator(ABC):
    """What this process has of a device. Make it with opening.open_allocator(), once per process."""

    @abstractmethod
    def open_context(self) -> None:
        """Make this process's context on the device, if it has none; the first use would do it otherwise.

        What it costs is in no counter of the framework's: it is the difference of Device.used() before and after,
        while nobody else takes or frees anything. Raises DeviceError when the device cannot be used.
        """

    @abstractmethod
    def reserved(self) -> int:
        """Bytes that this process keeps from others now, the context not counted: reserved, which is more than what
        tensors fill, for frameworks keep what was freed.
        """

    @abstractmethod
    def reset_peak(self) -> None:
        """Forget the peak: from now on it is what reserved() is, until that grows."""

    @abstractmethod
    def peak(self) -> int:
        """The most that reserved() was since reset_peak(), also in between two looks."""

    @abstractmethod
    def empty_cache(self) -> None:
        """Give back what is reserved and not in use. An exception whose traceback is still held keeps its tensors."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it. Raises what went wrong there since, and once the
        context is dead raises that again at each call: so it tells whether an error that says nothing was sticky.
        """

    @abstractmethod
    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether *error* says that this device had too little memory left: less at once may succeed."""

    @abstractmethod
    def is_sticky(self, error: BaseException) -> bool:
        """Whether after *error* nothing on the device can succeed in this process any more: it must exit.

        An error counts with those from which or while handling which it was raised.
        """
