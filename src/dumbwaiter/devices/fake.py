"""A device that is none, for tests without a GPU: it holds several processes to one capacity, as a card would.

``fake:8GiB?path=FOLDER`` and, each optional: ``context=300MiB`` (what each process takes to begin with, 0 by default),
``load=10GB``, ``park=12GB``, ``wake=12GB`` (bytes a second, at once by default), ``frees_after=500ms`` or ``never``
(when a dead process's memory comes back, at once by default), ``cache=false`` (nothing freed is kept, unlike in torch).

A model uses it through this module::

    self.weights = fake.hold(3 * 2**30)  # in the constructor; weights.park() and weights.wake() from its own
    with fake.use(batch * 2**28, 0.05):  # at each call: the activation, and how long it computes
        ...

What does not fit raises torch.OutOfMemoryError where torch was imported, else an error of that name and those words.
Memory is counted, not taken: no byte of it is anywhere.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import msgspec

from dumbwaiter.devices.contract import Allocator, Device, DeviceError
from dumbwaiter.devices.failures import is_context_dead, is_device_out_of_memory
from dumbwaiter.devices.fake_memory import Memory, SharedMemory

_INSTANT = float("inf")


class FakeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a fake device is like. *address* names it in full; rates are bytes a second, *frees_after* seconds."""

    address: str
    folder: Path
    capacity: int
    context: int = 0
    load: float = _INSTANT
    park: float = _INSTANT
    wake: float = _INSTANT
    frees_after: float = 0.0
    cache: bool = True


class OutOfMemoryError(RuntimeError):
    """As torch.OutOfMemoryError, where there is no torch."""


class AcceleratorError(RuntimeError):
    """As torch.AcceleratorError, where there is no torch."""


class FakeDevice(Device):
    """A fake device from outside. Raises DeviceError for a folder that cannot be used, ConfigError for one that is a
    device of another capacity.
    """

    def __init__(self, options: FakeOptions) -> None:
        self._memory = SharedMemory(options.folder, options.capacity, frees_after=options.frees_after)
        super().__init__(
            kind="fake",
            name=f"fake-{options.folder.name}",
            address=options.address,
            capacity=options.capacity,
            frees_late=True,
        )

    def used(self) -> int:
        return self._memory.look().used

    def record(self) -> Memory:
        """Who has what, and what happened: ``refused`` is how often anybody was out of memory, ``most_used`` the most
        that was ever in use.
        """
        return self._memory.look()

    def close(self) -> None:
        self._memory.close()


class Holding:
    """Memory of a model's weights: on the device, or parked in the host's."""

    def __init__(self, allocator: FakeAllocator, nbytes: int) -> None:
        self._allocator = allocator
        self.nbytes = nbytes
        self.is_on_device = False

    def park(self) -> None:
        """Copy it to the host; its memory on the device is the allocator's cache then. Twice is no error."""
        if self.is_on_device:
            self._allocator.move(self.nbytes, self._allocator.options.park)
            self.free()

    def wake(self) -> None:
        """Copy it back. Raises the framework's out-of-memory error, and then it stays parked. Twice is no error."""
        self._arrive(self._allocator.options.wake)

    def free(self) -> None:
        """The device's memory is not needed any more. Twice is no error."""
        if self.is_on_device:
            self.is_on_device = False
            self._allocator.give(self.nbytes)

    def load(self) -> None:
        """Copy it from disk. Raises the framework's out-of-memory error."""
        self._arrive(self._allocator.options.load)

    def _arrive(self, rate: float) -> None:
        if not self.is_on_device:
            self._allocator.take(self.nbytes)
            self.is_on_device = True
            self._allocator.move(self.nbytes, rate)


class FakeAllocator(Allocator):
    """What this process has of a fake device, with a cache of freed memory as a framework has."""

    def __init__(self, options: FakeOptions) -> None:
        self.options = options
        self._memory = SharedMemory(options.folder, options.capacity, frees_after=options.frees_after)
        self._has_context = False
        self._allocated = 0
        self._cached = 0
        self._peak = 0
        self._death: str | None = None

    def open_context(self) -> None:
        self._check()
        if not self._has_context:
            self._memory.join()
            if not self._memory.take(self.options.context):
                raise self._out_of_memory(self.options.context)
            self._has_context = True

    def reserved(self) -> int:
        return self._allocated + self._cached

    def reset_peak(self) -> None:
        self._peak = self.reserved()

    def peak(self) -> int:
        return self._peak

    def empty_cache(self) -> None:
        self._check()
        if self._cached:
            self._memory.give(self._cached)
            self._cached = 0

    def synchronize(self) -> None:
        self._check()

    def is_out_of_memory(self, error: BaseException) -> bool:
        return is_device_out_of_memory(error)

    def is_sticky(self, error: BaseException) -> bool:
        return is_context_dead(error)

    def take(self, nbytes: int) -> None:
        """Have *nbytes* more in use, out of the cache first. Raises the framework's out-of-memory error, and then, as
        in torch, nothing is cached any more.
        """
        self.open_context()
        more = max(0, nbytes - self._cached)
        if more and not self._memory.take(more):
            self.empty_cache()
            raise self._out_of_memory(nbytes)
        self._cached -= nbytes - more
        self._allocated += nbytes
        self._peak = max(self._peak, self.reserved())

    def give(self, nbytes: int) -> None:
        """Of what is in use, *nbytes* are not any more: they are cached, or others can have them."""
        self._allocated -= nbytes
        if self.options.cache:
            self._cached += nbytes
        else:
            self._memory.give(nbytes)

    def leak(self, nbytes: int) -> None:
        """Take *nbytes* that never come back, not even with the end of this process. Raises as take() does."""
        self.take(nbytes)
        self._allocated -= nbytes
        self._memory.leak(nbytes)

    def move(self, nbytes: int, rate: float) -> None:
        """Wait as long as copying *nbytes* takes at *rate* bytes a second."""
        self._check()
        if nbytes / rate > 0:
            time.sleep(nbytes / rate)

    def break_context(self, words: str) -> NoReturn:
        """Raise what CUDA says in these *words*, now and from now on at whatever this process wants of the device."""
        self._death = words
        raise self._death_error(words)

    def close(self) -> None:
        """Leave as a dead process does."""
        self._memory.close()

    def _check(self) -> None:
        if self._death is not None:
            raise self._death_error(self._death)

    def _out_of_memory(self, nbytes: int) -> RuntimeError:
        kind: type[RuntimeError] = getattr(sys.modules.get("torch"), "OutOfMemoryError", OutOfMemoryError)
        capacity = self.options.capacity
        sizes = (nbytes, capacity, capacity - self._memory.look().used, self._allocated, self._cached)
        tried, total, free, in_use, kept = map(_as_torch_writes, sizes)
        return kind(
            f"CUDA out of memory. Tried to allocate {tried}. GPU 0 has a total capacity of {total} of which {free}"
            f" is free. Of the allocated memory {in_use} is allocated by PyTorch, and {kept} is reserved by PyTorch but"
            " unallocated."
        )

    def _death_error(self, words: str) -> RuntimeError:
        kind: type[RuntimeError] = getattr(sys.modules.get("torch"), "AcceleratorError", AcceleratorError)
        return kind(
            f"CUDA error: {words}\nCUDA kernel errors might be asynchronously reported at some other API call, so the"
            " stacktrace below might be incorrect."
        )


def _as_torch_writes(nbytes: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.2f} {name}"
    return f"{nbytes} bytes"


_here: FakeAllocator | None = None


def open_here(options: FakeOptions) -> FakeAllocator:
    """The allocator of this process, which hold() and use() mean from now on. One that was opened before stays, if it
    is of the same device; otherwise raises DeviceError.
    """
    global _here  # noqa: PLW0603 - as with a card, a process has one context and the model need not be handed it
    if _here is not None and _here.options != options:
        raise DeviceError(
            f"this process uses {_here.options.address} already, and cannot use {options.address} as well"
        )
    _here = _here or FakeAllocator(options)
    return _here


def close_here() -> None:
    """Undo open_here(): leave the device as a dead process does."""
    global _here  # noqa: PLW0603 - as above
    if _here is not None:
        _here.close()
        _here = None


def hold(nbytes: int) -> Holding:
    """Load weights of *nbytes*, which takes its time. Raises the framework's out-of-memory error."""
    holding = Holding(_allocator(), nbytes)
    holding.load()
    return holding


@contextlib.contextmanager
def use(nbytes: int, seconds: float = 0.0) -> Iterator[None]:
    """Compute for *seconds* with an activation of *nbytes*. Raises the framework's out-of-memory error."""
    allocator = _allocator()
    allocator.take(nbytes)
    try:
        time.sleep(seconds)
        yield
    finally:
        allocator.give(nbytes)


def leak(nbytes: int) -> None:
    """Lose *nbytes* of the device for ever. Raises the framework's out-of-memory error."""
    _allocator().leak(nbytes)


def break_context(words: str = "an illegal memory access was encountered") -> NoReturn:
    """Raise a sticky error: nothing on the device succeeds in this process any more."""
    _allocator().break_context(words)


def _allocator() -> FakeAllocator:
    if _here is None:
        raise DeviceError("no fake device was opened in this process; start its worker on one: fake:8GiB?path=FOLDER")
    return _here
