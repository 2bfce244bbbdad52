"""A model on a fake device, in the test's own process: what it holds, and what each of its inputs takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dumbwaiter.devices import fake

MIB = 2**20


class Dish:
    """Holds *weights* and takes *each* for each input, both in MiB; *before* is called at each call."""

    cheap_decode = True

    def __init__(
        self,
        *,
        weights: int = 100,
        each: int = 10,
        max_batch: int = 4,
        samples: bool = True,
        can_park: bool = True,
        before: Callable[[Sequence[Any]], object] | None = None,
    ) -> None:
        self.weights = fake.hold(weights * MIB)
        self.each = each * MIB
        self.max_batch = max_batch
        self.can_park = can_park
        self.sizes: list[int] = []
        self.batches: list[Any] = []
        self._samples = samples
        self._before = before or (lambda inputs: None)

    def describe(self) -> dict[str, Any]:
        return {}

    def decode(self, content_type: str | None, body: bytes | memoryview) -> Any:
        return bytes(body)

    def encode(self, output: Any) -> tuple[str, bytes]:
        return "text/plain", str(output).encode()

    def predict(self, inputs: Sequence[Any], on_chunk: Callable[[Any], None] | None = None) -> list[Any]:
        self.sizes.append(len(inputs))
        self.batches.append(inputs)
        self._before(inputs)
        with fake.use(len(inputs) * self.each):
            return list(inputs)

    def sample(self, size: int) -> list[Any] | None:
        return ["soup"] * size if self._samples else None

    def park(self) -> None:
        self.weights.park()

    def wake(self) -> None:
        self.weights.wake()


def refuse(*_: Any) -> None:
    """What a model's own code may do at any time."""
    raise OSError("not today")
