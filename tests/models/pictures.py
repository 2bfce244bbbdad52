"""Real photographs, and PNG files put together by hand."""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from pathlib import Path

from PIL import Image

_PHOTOGRAPHS = Path(importlib.util.find_spec("skimage").origin).parent / "data"


def photograph(name):
    """``chelsea`` (a cat, 451 x 300) or ``coffee`` (600 x 400), RGB."""
    image = Image.open(_PHOTOGRAPHS / f"{name}.png")
    image.load()
    return image


def as_file(image, kind, **options):
    """*image* as the bytes of a file of *kind*."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width, height, *chunks, depth=8, colour=0, pixels=b""):
    """A PNG file with this header, these further chunks, and *pixels* as its compressed data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [("IHDR", header), *chunks, ("IDAT", zlib.compress(pixels)), ("IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name, data):
    body = name.encode() + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def difference(one, other):
    """The mean absolute difference of two RGB images' levels, 0 to 255."""
    from PIL import ImageChops, ImageStat

    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3
