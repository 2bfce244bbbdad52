"""What a model takes of a device that it shares, measured while it is loaded.

**Always**: *weights* (reserved once the model stands and nothing is cached), *load_seconds* (until then, its imports
included), and whether it can be parked at all: *parked* is None if it cannot.

**When nobody else uses the device** (a probe), also: *context*; *batches* at the sizes 1, 2, 4, ..., as far as the
model has sample inputs and they fit; *parked* with *park_seconds* and *wake_seconds*. Without a probe these are 0, and
there are no *batches*: that means unknown, and whoever has measured them before knows better.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from dumbwaiter.devices.contract import Allocator, DeviceError
from dumbwaiter.errors import ModelLoadError
from dumbwaiter.models.contract import LoadedModel
from dumbwaiter.policies.footprints import Footprint, Observation, observed
from dumbwaiter.worker.device_memory import ContextDeadError, DeviceMemory

_log = logging.getLogger(__name__)
#: So many seconds the batches may take in all; the one that is running then is the last.
_LONGEST_LADDER = 20.0


class OpenedDevice:
    """The device at *address* in this process, its context made; measure() comes once the model is loaded.

    Make it before that. Raises ConfigError, MissingExtraError, and DeviceError when the device cannot be used.
    """

    def __init__(self, address: str, *, probes: bool) -> None:
        # Only a runner that shares a device needs to know of any.
        from dumbwaiter.devices.opening import open_allocator, open_device  # noqa: PLC0415

        self._probes = probes
        self._opened_at = time.monotonic()
        self._allocator = open_allocator(address)
        self._context = 0
        if not probes:
            _open_context(self._allocator, address)
            return
        device = open_device(address)
        try:
            before = device.used()
            _open_context(self._allocator, address)
            self._context = max(0, device.used() - before)
        finally:
            device.close()

    def measure(self, model: LoadedModel) -> Measurement:
        """What *model* takes, now that it is loaded. Raises ContextDeadError; ModelLoadError when it was parked for the
        measurement and cannot be woken.
        """
        memory = DeviceMemory(self._allocator, model)
        found = Measurement(memory)
        load_seconds, weights = time.monotonic() - self._opened_at, memory.reserved
        found.footprint = Footprint(
            context=self._context, weights=weights, parked=0 if model.can_park else None, load_seconds=load_seconds
        )
        if self._probes:
            found.measure_batches(model)
            found.measure_parking(model)
            # What the first batches left behind (workspaces of libraries) stays as the weights do.
            memory.move("empty")
            found.amend(weights=max(weights, memory.reserved))
        return found


def _open_context(allocator: Allocator, address: str) -> None:
    try:
        allocator.open_context()
    except RuntimeError as error:
        raise DeviceError(f"cannot use {address}: {error}") from error


@dataclass
class Measurement:
    """The *footprint* of the model that *memory* is for; *timed*: size and seconds of each batch measured for it."""

    memory: DeviceMemory
    footprint: Footprint = field(default_factory=Footprint)
    timed: list[tuple[int, float]] = field(default_factory=list)

    def amend(self, **facts: float | None) -> None:
        """Put *facts* into the footprint."""
        self.footprint = msgspec.structs.replace(self.footprint, **facts)

    def measure_batches(self, model: LoadedModel) -> None:
        """Run batches of growing size, until one does not fit, the model does not take its samples, or it takes long.

        Raises ContextDeadError.
        """
        began = time.monotonic()
        for size in _sizes(model.max_batch):
            try:
                observation = self._measure_batch(model, size)
            except ContextDeadError:
                raise
            except Exception as error:
                # The user's own code: samples that it does not take are no reason not to serve.
                if not self.memory.recover(error, size):
                    _log.warning("no batch of %d can be measured yet: %s: %s", size, type(error).__name__, error)
                self._note(*self.memory.take_news()[0])
                return
            if observation is None:
                return
            self._note(observation)
            self.timed.append((size, observation.seconds))
            if time.monotonic() - began > _LONGEST_LADDER:
                return

    def _measure_batch(self, model: LoadedModel, size: int) -> Observation | None:
        self.memory.move("empty")
        found: list[Observation] = []
        # The first call compiles and chooses kernels: what that takes is part of the footprint, but not of the time.
        for _ in range(2):
            inputs = model.sample(size)
            if inputs is None:
                return None
            outputs, observation = self.memory.observe(model.predict, inputs)
            for output in outputs:
                if isinstance(output, Exception):
                    raise output
            found.append(observation)
        first, second = found
        return msgspec.structs.replace(first, nbytes=max(first.nbytes, second.nbytes), seconds=second.seconds)

    def _note(self, *observations: Observation) -> None:
        for one in observations:
            self.footprint = observed(self.footprint, one, time.time())

    def measure_parking(self, model: LoadedModel) -> None:
        """Park the model, and wake it. Raises ContextDeadError, and ModelLoadError when it does not wake."""
        if not model.can_park:
            return
        parked = self.memory.move("park")
        woken = self.memory.move("wake")
        if not woken.is_done:
            raise ModelLoadError(
                "the model was parked to measure that and cannot be woken, the log says why; correct its wake(), or"
                " remove its park() and wake()"
            )
        if parked.is_done:
            self.amend(parked=parked.reserved, park_seconds=parked.seconds, wake_seconds=woken.seconds)
        else:
            self.amend(parked=None)


def _sizes(most: int) -> Iterator[int]:
    """1, 2, 4, ... and *most* itself."""
    size = 1
    while size < most:
        yield size
        size *= 2
    yield most
