"""The models that real workers serve to the protocol's clients; imported by their runners."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps


class Shout:
    max_batch = 8

    def __call__(self, texts: list[str]) -> list[str]:
        return [ValueError("I do not like this one") if text == "bad" else text.upper() for text in texts]


class Double:
    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x if x.dtype == bool else x + x


class Softmax:
    max_batch = 64

    def __call__(self, rows: list[np.ndarray]) -> np.ndarray:
        powers = np.exp(np.stack(rows))
        return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


class Invert:
    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.invert(image)


class Mean:
    def __call__(self, image: Image.Image) -> list[float]:
        return [float(value) for value in np.asarray(image).mean(axis=(0, 1))]


class Mix:
    def __call__(self, a: np.ndarray, b: np.ndarray, weight: float = 0.5) -> np.ndarray:
        return (a * (1 - weight) + b * weight).astype(a.dtype)


class Raw:
    def __call__(self, data: bytes) -> bytes:
        return data[::-1]


class Crowd:
    max_batch = 64

    def __call__(self, numbers: list[float]) -> list[int]:
        return [len(numbers)] * len(numbers)
