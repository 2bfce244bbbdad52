"""What gpu_sharing.py asks of the device itself, in processes of its own: a context stays as long as its process.

    python gpu_sharing_card.py copies|sizes|hold ADDRESS NBYTES

*copies* times copies and parking of so many bytes, *sizes* finds models for a limit of so many, *hold* takes all but so
many and keeps them until its input ends. Each prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import msgspec  # noqa: E402 - the benchmarks' own folder must come first

import gpu_sharing_models as models  # noqa: E402
from dumbwaiter.devices import fake  # noqa: E402
from dumbwaiter.devices.contract import Allocator  # noqa: E402
from dumbwaiter.devices.opening import fake_options, open_allocator, open_device  # noqa: E402
from dumbwaiter.models.parking import parking_of  # noqa: E402
from dumbwaiter.policies.footprints import MARGIN, SLACK  # noqa: E402

MIB, GIB = 2**20, 2**30
TIMES = 5
#: What a model of each name takes of the limit when it runs, in all.
SHARES = {"pictures-3": 3 / 8, "pictures-6": 6 / 8, "blocks-3": 3 / 8, "blocks-6": 6 / 8}


class Copies(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes per second; *first_park* makes the host's copy, *park* finds that nothing has changed since."""

    to_device: float
    to_host: float
    first_park: float
    park: float
    wake: float


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """A model of gpu_sharing_models: its class and parameters, and the bytes that it is expected to take."""

    target: str
    parameters: Mapping[str, int | float]
    weights: int
    activation: int


class Card(ABC):
    """A device as this process sees it. *allocator* has no context yet."""

    def __init__(self, address: str, allocator: Allocator) -> None:
        self.address = address
        self.allocator = allocator

    @abstractmethod
    def copy_rates(self) -> tuple[float, float]:
        """Bytes per second from pinned host memory to the device, and back."""

    @abstractmethod
    def heavy_model(self, nbytes: int) -> Any:
        """A model with about so many bytes of weights."""

    @abstractmethod
    def sizes(self, limit: int) -> dict[str, Size]:
        """Models that take SHARES of *limit* as admission reckons: context, weights, activation and its margin."""

    @abstractmethod
    def hold_all_but(self, nbytes: int) -> Any:
        """Whatever keeps the rest."""

    def open_context(self) -> int:
        """Make this process's context; its bytes."""
        with contextlib.closing(open_device(self.address)) as device:
            before = device.used()
            self.allocator.open_context()
            return device.used() - before

    def copies(self, nbytes: int) -> Copies:
        """What a model of *nbytes* is parked and woken with, beside copies of plain memory."""
        self.open_context()
        to_device, to_host = self.copy_rates()
        model = self.heavy_model(nbytes)
        held = self.allocator.reserved()
        parking = parking_of(model)
        took: dict[str, list[float]] = {"park": [], "wake": []}
        for _ in range(1 + TIMES):
            took["park"].append(self._timed(parking.park))
            self.allocator.empty_cache()
            moved = held - self.allocator.reserved()
            took["wake"].append(self._timed(parking.wake))
        return Copies(
            to_device=to_device,
            to_host=to_host,
            first_park=moved / took["park"][0],
            park=moved / statistics.median(took["park"][1:]),
            wake=moved / statistics.median(took["wake"][1:]),
        )

    def _timed(self, call: Callable[[], object]) -> float:
        self.allocator.synchronize()
        started = time.perf_counter()
        call()
        self.allocator.synchronize()
        return time.perf_counter() - started


def activation_for(target: float, resident: float) -> float:
    """The activation that, granted with its margin, fills *target* beside what is *resident*."""
    return (target - resident - SLACK) / MARGIN


class TorchCard(Card):
    """A CUDA device."""

    def copy_rates(self) -> tuple[float, float]:
        import torch  # noqa: PLC0415

        nbytes = 512 * MIB
        host = torch.ones(nbytes, dtype=torch.uint8, pin_memory=True)
        there = torch.empty(nbytes, dtype=torch.uint8, device="cuda")
        ways = ((there, host), (host, there))
        return tuple(nbytes / self._median(to, source) for to, source in ways)  # type: ignore[return-value]

    def _median(self, target: Any, source: Any) -> float:
        took = [self._timed(lambda: target.copy_(source, non_blocking=True)) for _ in range(1 + TIMES)]
        return statistics.median(took[1:])

    def heavy_model(self, nbytes: int) -> Any:
        width = _width(nbytes)
        return models.Blocks(max(1, nbytes // (16 * width**2)), width)

    def sizes(self, limit: int) -> dict[str, Size]:
        context = self.open_context()
        return {
            name: (self._pictures if name.startswith("pictures") else self._blocks)(share * limit - context)
            for name, share in SHARES.items()
        }

    def _pictures(self, room: float) -> Size:
        # A pixel of a tile leaves 112 bytes of features.
        edge = next(edge for edge in (1024, 512, 256, 128, 64) if 112 * edge**2 <= room / 48 or edge == 64)
        weights, few = self._measured(models.Pictures, 2, edge)
        _, more = self._measured(models.Pictures, 6, edge)
        each = max(1.0, (more - few) / 4)
        tiles = max(2, int((activation_for(room, weights) - few) / each) + 2)
        for _ in range(4):
            weights, activation = self._measured(models.Pictures, tiles, edge)
            excess = activation - activation_for(room, weights)
            if excess <= 0:
                break
            tiles = max(1, tiles - max(1, int(excess / each)))
        parameters = {"tiles": tiles, "edge": edge}
        return Size(target="Pictures", parameters=parameters, weights=weights, activation=activation)

    def _blocks(self, room: float) -> Size:
        width = _width(room)
        nbytes = 16 * width**2
        weights, activation = self._measured(models.Blocks, 2, width)
        around = weights - 2 * nbytes
        blocks = max(1, int((room - around - MARGIN * activation - SLACK) / nbytes))
        parameters = {"blocks": blocks, "width": width}
        return Size(target="Blocks", parameters=parameters, weights=around + blocks * nbytes, activation=activation)

    def _measured(self, make: Callable[..., Any], *parameters: int) -> tuple[int, int]:
        """Bytes of weights, and of activation of the largest batch, as a runner measures them."""
        allocator = self.allocator
        model = make(*parameters)
        batch = getattr(model, "max_batch", None)
        for _ in range(2):
            allocator.reset_peak()
            model(models.SAMPLE if batch is None else [models.SAMPLE] * batch)
            allocator.synchronize()
            peak = allocator.peak()
            allocator.empty_cache()
        weights = allocator.reserved()
        del model
        gc.collect()
        allocator.empty_cache()
        return weights, peak - weights

    def hold_all_but(self, nbytes: int) -> Any:
        import torch  # noqa: PLC0415

        self.open_context()
        free, _ = torch.cuda.mem_get_info()
        return torch.empty(max(0, free - nbytes), dtype=torch.uint8, device="cuda")


def _width(nbytes: float) -> int:
    return next(width for width in (4096, 2048, 1024, 512, 256) if 16 * width**2 <= nbytes / 24 or width == 256)


class FakeCard(Card):
    """A fake device: nothing is measured, it does what its address says."""

    def __init__(self, address: str) -> None:
        self.options = fake_options(address)
        self.fake = fake.open_here(self.options)
        super().__init__(address, self.fake)

    def copy_rates(self) -> tuple[float, float]:
        return self._rate(self.options.wake), self._rate(self.options.park)

    def _rate(self, configured: float) -> float:
        return GIB / self._timed(lambda: self.fake.move(GIB, configured))

    def heavy_model(self, nbytes: int) -> Any:
        return models.Fake(nbytes, 0, 0.0)

    def sizes(self, limit: int) -> dict[str, Size]:
        context = self.options.context
        found = {}
        for name, share in SHARES.items():
            room, few = share * limit - context, limit / 64
            if name.startswith("pictures"):
                weights, activation = few, activation_for(room, few)
            else:
                weights, activation = room - MARGIN * few - SLACK, few
            parameters = {"weights": int(weights), "activation": int(activation), "seconds": 0.02 * share * 8 / 3}
            found[name] = Size(target="Fake", parameters=parameters, weights=int(weights), activation=int(activation))
        return found

    def hold_all_but(self, nbytes: int) -> Any:
        self.open_context()
        with contextlib.closing(open_device(self.address)) as device:
            self.fake.take(max(0, device.capacity - device.used() - nbytes))


def main() -> None:
    """One answer, as JSON."""
    command, address, nbytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
    card = FakeCard(address) if address.startswith("fake:") else TorchCard(address, open_allocator(address))
    answer: Any
    if command == "copies":
        answer = card.copies(nbytes)
    elif command == "sizes":
        answer = card.sizes(nbytes)
    else:
        kept = card.hold_all_but(nbytes)
        answer = None
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()
    if command == "hold":
        sys.stdin.read()
        del kept


if __name__ == "__main__":
    main()
