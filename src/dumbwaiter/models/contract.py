"""What the runner needs of a model: decode a body, predict a batch, encode an output.

Users do not implement this; they write a plain class, and models/loading.py wraps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

LARGEST_BATCH = 2048
"""No batch is larger; a worker holds at most two of them."""


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Which class to serve and how. *target* is ``module:Class``; *weights* a path or URI; times in seconds.

    *max_batch* bounds a batched model's batch (None: the class's own ``max_batch`` or 32), and so does
    *latency_target*, the time that one batch should take at most. *timeout* is how long one batch may run before the
    runner counts as hung. *project* is the folder put first on sys.path.
    """

    name: str
    target: str
    weights: str | None = None
    project: str = "."
    max_batch: int | None = None
    latency_target: float | None = None
    max_pixels: int = 50_000_000
    timeout: float = 120.0
    max_deliveries: int = 3
    decode_threads: int = 2
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class LoadedModel(Protocol):
    """A constructed model behind its codecs. decode() is called from several threads at once; the rest from one."""

    max_batch: int
    """1 for a class that takes one input at a time."""
    cheap_decode: bool
    """decode() costs microseconds (text, JSON, bytes): not worth a thread hop."""

    @property
    def can_park(self) -> bool:
        """Whether park() gives any of the device's memory back, as of now; looking takes some ten milliseconds."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """JSON-ready signature: input and output kinds and schemas, batched or not, accepted content types."""
        ...

    def decode(self, content_type: str | None, body: bytes | memoryview) -> Any:
        """The model's input. Raises BadInputError, saying what was expected and what came."""
        ...

    def predict(self, inputs: Sequence[Any], on_chunk: Callable[[Any], None] | None = None) -> list[Any]:
        """One call of the model; a list as long as *inputs*, where an Exception fails its own place only.

        Whatever the model raises passes through; a wrong length raises PermanentError. With a single input,
        *on_chunk* hears of each chunk that a generator yields; what it raises ends the generator and passes through.
        """
        ...

    def encode(self, output: Any) -> tuple[str, bytes]:
        """Content type and body of one output. Raises PermanentError when it cannot be encoded."""
        ...

    def park(self) -> None:
        """Move the weights to host memory; where they cannot be moved, do nothing. Not during predict().

        Only others in this process can use what that frees until the framework's cache is emptied.
        """
        ...

    def wake(self) -> None:
        """Have the weights on the device again; predict() does so too. Costs nothing when they are there.

        Without room for all of them none comes: the framework's out-of-memory error passes through, and a later call
        may succeed.
        """
        ...

    def sample(self, size: int) -> list[Any] | None:
        """*size* decoded inputs to measure predict() with; None when only real ones will do.

        Raises ModelLoadError when the class has sample inputs of its own, and they cannot be had.
        """
        ...
