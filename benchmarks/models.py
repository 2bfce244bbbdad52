"""The models that the benchmarks serve, as a user would write them."""

from __future__ import annotations

import time

from PIL import Image

FIXED_SECONDS = 0.005
SECONDS_EACH = 0.001


class Batchable:
    """A device that takes 5 ms a batch and 1 ms an input, at most 16 at a time."""

    max_batch = 16

    def __call__(self, payloads: list[bytes]) -> list[bytes]:
        """Sleep as long as the device would work."""
        time.sleep(FIXED_SECONDS + SECONDS_EACH * len(payloads))
        return payloads


class Echo:
    """Nothing but overhead."""

    max_batch = 64

    def __call__(self, payloads: list[bytes]) -> list[bytes]:
        """Give back what came."""
        return payloads


class Picture:
    """A small convolutional network with fixed random weights, top-5 of 100: the cost is real, the classes are not."""

    def __init__(self) -> None:
        import torch  # noqa: PLC0415 - only the process that runs the network needs it

        torch.manual_seed(0)
        torch.set_num_threads(1)
        self._torch = torch
        layers: list[torch.nn.Module] = []
        for before, after in ((3, 24), (24, 48), (48, 96)):
            layers += [torch.nn.Conv2d(before, after, 3, stride=2, padding=1), torch.nn.ReLU()]
        layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(96, 100)]
        self._net = torch.nn.Sequential(*layers).eval()

    def __call__(self, image: Image.Image) -> list[tuple[int, float]]:
        """Resize to 160 px, classify."""
        torch = self._torch
        small = image.convert("RGB").resize((160, 160), Image.Resampling.BILINEAR)
        pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).reshape(160, 160, 3)
        with torch.inference_mode():
            scores = self._net(pixels.permute(2, 0, 1).unsqueeze(0).float() / 255.0).softmax(1)[0]
            best = scores.topk(5)
        return [(int(index), float(score)) for score, index in zip(best.values, best.indices, strict=True)]
