"""The models of gpu_sharing.py, as a user would write them; their weights are random, but always the same."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAMPLE = b"7"


@contextlib.contextmanager
def noting_out_of_memory(notes: str) -> Iterator[None]:
    """Whoever runs out of memory leaves a line with the moment (Unix time) in the file *notes*; none where it is ""."""
    try:
        yield
    except Exception as error:
        if notes and "out of memory" in str(error).lower():
            with Path(notes).open("a") as file:
                file.write(f"{time.time()}\n")
        raise


def gpu_or_cpu() -> tuple[str, Any]:
    """Where to compute, and in which type."""
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        return "cpu", torch.float32
    return "cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


class Pictures:
    """Large activations, small weights: a pyramid of convolutions over the tiles of one picture.

    All features of all tiles are kept until a gate that sees all of them is known, then the picture is put together.
    """

    sample_inputs = (SAMPLE,)

    def __init__(self, tiles: int, edge: int, notes: str = "") -> None:
        import torch  # noqa: PLC0415

        self.tiles, self.edge, self.notes = tiles, edge, notes
        self.device, self.kind = gpu_or_cpu()
        torch.manual_seed(1)
        self.down = torch.nn.ModuleList([self._layer(3, 32, 1), self._layer(32, 64, 2), self._layer(64, 128, 2)])
        self.up = torch.nn.ModuleList([self._layer(128, 64, 1), self._layer(64, 32, 1), self._layer(32, 3, 1)])

    def _layer(self, inputs: int, outputs: int, stride: int) -> Any:
        import torch  # noqa: PLC0415

        return torch.nn.Conv2d(
            inputs, outputs, 3, stride=stride, padding=1, bias=False, device=self.device, dtype=self.kind
        )

    def __call__(self, payload: bytes) -> bytes:
        """A number that depends on *payload*, a digit."""
        import torch  # noqa: PLC0415

        with noting_out_of_memory(self.notes), torch.inference_mode():
            pyramids = [self._features(int(payload) + tile) for tile in range(self.tiles)]
            gate = torch.stack([pyramid[-1].mean((2, 3)) for pyramid in pyramids]).mean(0).sigmoid()[:, :, None, None]
            parts = []
            while pyramids:
                parts.append(self._put_together(pyramids.pop(), gate))
            return f"{float(torch.stack(parts).mean()):.6g}".encode()

    def _features(self, seed: int) -> list[Any]:
        import torch  # noqa: PLC0415

        generator = torch.Generator(self.device).manual_seed(seed)
        shape = (1, 3, self.edge, self.edge)
        features = [torch.randn(shape, generator=generator, device=self.device, dtype=self.kind)]
        for layer in self.down:
            features.append(layer(features[-1]).relu_())
        return features[1:]

    def _put_together(self, pyramid: list[Any], gate: Any) -> Any:
        import torch  # noqa: PLC0415

        full, half, quarter = pyramid
        picture = quarter * gate
        for layer, beside in zip(self.up, (half, full), strict=False):
            picture = torch.nn.functional.interpolate(layer(picture), scale_factor=2).add_(beside).relu_()
        return self.up[-1](picture).abs().float().mean()


class Blocks:
    """Large weights, small activations: the feed-forward blocks of a transformer, each of 16 * width**2 bytes."""

    max_batch = 8
    sample_inputs = (SAMPLE,)

    def __init__(self, blocks: int, width: int, tokens: int = 128, notes: str = "") -> None:
        import torch  # noqa: PLC0415

        self.notes = notes
        self.device, self.kind = gpu_or_cpu()
        torch.manual_seed(2)
        self.tokens = torch.randn(10, tokens, width, device=self.device, dtype=self.kind)
        self.layers = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.Linear(width, 4 * width, bias=False, device=self.device, dtype=self.kind),
                torch.nn.GELU(),
                torch.nn.Linear(4 * width, width, bias=False, device=self.device, dtype=self.kind),
            )
            for _ in range(blocks)
        )

    def __call__(self, payloads: list[bytes]) -> list[bytes]:
        """Of each payload, a digit, a number that depends on it."""
        import torch  # noqa: PLC0415

        with noting_out_of_memory(self.notes), torch.inference_mode():
            state = self.tokens[[int(payload) for payload in payloads]]
            for layer in self.layers:
                state = state + layer(torch.nn.functional.layer_norm(state, state.shape[-1:]))
            return [f"{float(value):.6g}".encode() for value in state.abs().float().mean((1, 2)).cpu()]


class Fake:
    """Of a fake device: so many bytes of weights and of activation, and *seconds* for each input."""

    sample_inputs = (SAMPLE,)

    def __init__(self, weights: int, activation: int, seconds: float, notes: str = "") -> None:
        from dumbwaiter.devices import fake  # noqa: PLC0415

        self.notes, self.activation, self.seconds = notes, activation, seconds
        self.weights = fake.hold(weights)

    def park(self) -> None:
        """Leave the device."""
        self.weights.park()

    def wake(self) -> None:
        """Come back."""
        with noting_out_of_memory(self.notes):
            self.weights.wake()

    def __call__(self, payload: bytes) -> bytes:
        """The number that *payload*, a digit, is."""
        from dumbwaiter.devices import fake  # noqa: PLC0415

        with noting_out_of_memory(self.notes), fake.use(self.activation, self.seconds):
            return f"{float(payload):.6g}".encode()
