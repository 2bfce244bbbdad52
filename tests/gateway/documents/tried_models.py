import pathlib
import time
from collections.abc import Iterator
from typing import Annotated

import msgspec
from PIL import Image, ImageOps

Share = Annotated[float, msgspec.Meta(ge=0.1, le=2.0)]
Amount = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


class Grey:
    """The picture without its colours."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.grayscale(image)


class Colours:
    """How much of the picture is red, green and blue."""

    def __call__(self, images: list[Image.Image]) -> list[dict[str, float]]:
        return [self.shares(image) for image in images]

    def shares(self, image):
        red, green, blue = image.resize((1, 1)).getpixel((0, 0))
        return {
            name: level / max(1, red + green + blue) for name, level in (("red", red), ("green", green), ("blue", blue))
        }


class Scale:
    """The picture, so many times as large, with a title that only its log shows."""

    def __call__(self, image: Image.Image, factors: list[Share], title: str = "") -> Image.Image:
        for factor in factors:
            image = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
        return image


class Say:
    """One word after the other. It waits for a file named `go` before the last one."""

    def __call__(self, text: str) -> Iterator[str]:
        print("about to say", text)  # noqa: T201 - the page shows what a model prints
        *words, last = text.split() or [""]
        for word in words:
            yield f"{word} "
        while words and words[0] == "wait" and not pathlib.Path("go").exists():
            time.sleep(0.02)
        yield last


class Echo:
    def __call__(self, text: str) -> str:
        if text == "wrong":
            raise ValueError("this text is wrong")
        return text


class Add:
    def __call__(self, first: Amount, second: Amount, negative: bool = False) -> float:
        return -(first + second) if negative else first + second
