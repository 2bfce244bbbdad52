"""The host's memory as a device, for models that compute on the CPU.

**Capacity** is a budget (``host:8GiB``), else the tightest limit of a control group around this process, else the whole
memory of the machine. What others use is not taken off beforehand: it changes, and all processes must see one capacity.

**Used** is what can no longer be had of the capacity, by the tightest of the limits and the machine's available memory.
It is no sum over processes, for nobody can see those of other containers.

**A process's own part** is the proportional set size (PSS) of the runner and its descendants, with what is swapped out.
Not the resident set size: where a model forks helpers, or several replicas map one file of weights, that counts each
shared page once per process, and a budget would be full with half of it free. PSS adds up to what there is.

The kernel frees a process's memory before it lets go of its locks, so nothing of a dead one needs to be watched.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

from dumbwaiter.devices import host_memory
from dumbwaiter.devices.contract import Allocator, Device, DeviceError
from dumbwaiter.devices.failures import is_host_out_of_memory
from dumbwaiter.errors import ConfigError


class HostDevice(Device):
    """Host memory, *budget* bytes of it or all that this process may use. Raises ConfigError for a larger budget than
    there is, DeviceError where Linux does not tell what there is. *proc* is where the kernel's files are.
    """

    def __init__(self, budget: int | None = None, *, proc: Path = host_memory.PROC) -> None:
        self._proc = proc
        machine, groups = self._look()
        tightest = min(groups, key=lambda group: group.limit, default=None)
        limit = machine.total if tightest is None else tightest.limit
        if budget is not None and not 0 < budget <= limit:
            whose = "this machine has" if tightest is None else f"the control group {tightest.folder} may use"
            raise ConfigError(f"host:{budget} is no part of the {limit} bytes that {whose}; write host for all of it")
        name = "host"
        if budget is None and tightest is not None:
            # Processes in other groups have limits of their own, and theirs is another device.
            name = f"host-cgroup-{_inode(tightest.folder)}"
        capacity = limit if budget is None else budget
        address = "host" if budget is None else f"host:{budget}"
        super().__init__(kind="host", name=name, address=address, capacity=capacity, frees_late=False)

    def used(self) -> int:
        machine, groups = self._look()
        available = min(machine.available, *(group.limit - group.used for group in groups), self.capacity)
        return self.capacity - max(0, available)

    def _look(self) -> tuple[host_memory.Machine, list[host_memory.Group]]:
        try:
            return host_memory.machine_memory(self._proc), host_memory.limiting_groups(self._proc)
        except (OSError, ValueError) as error:
            raise DeviceError(f"cannot read how much memory there is: {error}; is {self._proc} mounted?") from error


class HostAllocator(Allocator):
    """The memory of this process and its descendants.

    Going through all pages takes too long to be done after each batch. So it is done now and then, for at most a
    hundredth of the time, and whenever the processes are others; in between what is resident tells how much came or
    went, which for pages that are nobody else's is the same.
    """

    def __init__(self) -> None:
        self._tree: list[int] = []
        self._proportional = 0
        self._resident = 0
        self._stale_at = 0.0
        self._reserved_at_reset = 0
        self._resident_at_reset = 0
        self.reset_peak()

    def open_context(self) -> None:
        """There is none to make: what the interpreter and its libraries take is part of reserved()."""

    def reserved(self) -> int:
        try:
            tree = host_memory.own_tree()
            resident = host_memory.total_resident(tree)
            if tree != self._tree or time.monotonic() >= self._stale_at:
                self._measure(tree)
                resident = self._resident
        except OSError as error:
            raise _unreadable(error) from error
        return max(0, self._proportional + resident - self._resident)

    def _measure(self, tree: list[int]) -> None:
        started = time.monotonic()
        self._proportional = host_memory.proportional(tree)
        self._resident = host_memory.total_resident(tree)
        self._tree = tree
        now = time.monotonic()
        self._stale_at = now + max(1.0, 100 * (now - started))

    def reset_peak(self) -> None:
        self._reserved_at_reset = self.reserved()
        try:
            host_memory.reset_resident_peak()
            self._resident_at_reset = host_memory.resident()[0]
        except OSError as error:
            raise _unreadable(error) from error

    def peak(self) -> int:
        """The kernel keeps the peak of each process alone, and of resident pages: so this process's is exact, and its
        descendants count with what they have now.
        """
        try:
            highest = host_memory.resident()[1]
        except OSError as error:
            raise _unreadable(error) from error
        return max(self.reserved(), self._reserved_at_reset + max(0, highest - self._resident_at_reset))

    def empty_cache(self) -> None:
        # What the C library keeps of freed blocks is its cache; a library other than glibc may have no such call.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

    def synchronize(self) -> None:
        """Nothing runs beside this process."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        return is_host_out_of_memory(error)

    def is_sticky(self, error: BaseException) -> bool:  # noqa: ARG002 - memory of the host knows no such thing
        return False


def _inode(folder: Path) -> int:
    try:
        return folder.stat().st_ino
    except OSError as error:
        raise DeviceError(
            f"cannot read the control group {folder}: {error.strerror}; give a budget: host:8GiB"
        ) from error


def _unreadable(error: OSError) -> DeviceError:
    return DeviceError(
        f"cannot measure this process's memory: {error}; the footprint can be declared instead, with footprint ="
        ' "3GiB" in the model\'s table'
    )
