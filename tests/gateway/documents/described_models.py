"""Models with signatures of every kind, as their workers would announce them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Literal, TypedDict

import msgspec
import numpy as np
from PIL import Image
from pydantic import BaseModel

from dumbwaiter.gateway.documents.schemas import Signature
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.models.loading import load_model


class Box(msgspec.Struct):
    x: Annotated[int, msgspec.Meta(ge=0)]
    inside: list[Box] = []


class Person(BaseModel):
    name: str
    friend: Person | None = None


class Grey:
    def __call__(self, image: Image.Image) -> Image.Image:
        return image.convert("L")


class Label:
    def __call__(self, images: list[Image.Image]) -> list[dict[str, float]]:
        return [{"cat": 1.0} for _ in images]


class Find:
    def __call__(self, image: Image.Image, threshold: float = 0.5, kind: Literal["fast", "good"] = "fast") -> list[Box]:
        return []


class Nest:
    def __call__(self, box: Box) -> Box:
        return box


class Greet:
    def __call__(self, person: Person) -> Person:
        return person


class Tall(TypedDict):
    metres: float


class Measure:
    def __call__(self, one: Tall, other: Tall) -> bool:
        return one["metres"] > other["metres"]


class Double:
    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        return numbers * 2


class Say:
    def __call__(self, text: str) -> Iterator[str]:
        yield from text


class Shout:
    def __call__(self, text: str) -> str:
        return text.upper()


class Keep:
    def __call__(self, data: bytes) -> bytes:
        return data


class Anything:
    def __call__(self, it):
        return it


CLASSES = (Grey, Label, Find, Nest, Greet, Measure, Double, Say, Shout, Keep, Anything)


def signature(cls: type) -> Signature:
    """What a worker of *cls* says of it, after its way through the blob store."""
    name = cls.__name__.lower()
    described = load_model(ModelSpec(name=name, target=f"{cls.__module__}:{cls.__name__}")).describe()
    return Signature(name, json.loads(json.dumps(described)))
