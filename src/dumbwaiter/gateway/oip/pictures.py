"""Pictures that come as tensors of pixels, as PNG files for the model's codec. Pure.

Source: https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

from dumbwaiter.gateway.oip.problems import refused
from dumbwaiter.gateway.oip.tensors import Tensor

#: Channels -> PNG's colour type: grey, grey with alpha, RGB, RGBA.
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
_LARGEST_SIDE = 2**31 - 1


def shape_of_picture(tensor: Tensor) -> tuple[tuple[int, ...], int, int, int]:
    """The lead, and the height, width and channels of each picture: ``[h, w]`` and ``[h, w, c]`` are one,
    ``[n, h, w, c]`` are many. Raises ProblemError (400) for any other tensor, saying so.
    """
    shape = tensor.shape
    if tensor.datatype != "UINT8" or not 2 <= len(shape) <= 4 or (len(shape) > 2 and shape[-1] not in _COLOURS):
        raise refused(
            f"input {tensor.name!r} is a picture: send BYTES, each element a picture's file, or UINT8 of shape [height,"
            f" width, channels] or [n, height, width, channels] with 1 to 4 channels, not {tensor.datatype} of shape"
            f" {list(shape)}"
        )
    height, width, channels = [*shape, 1] if len(shape) == 2 else list(shape[-3:])
    if not (0 < height <= _LARGEST_SIDE and 0 < width <= _LARGEST_SIDE):
        raise refused(f"input {tensor.name!r} is a picture without pixels: its shape is {list(shape)}")
    return shape[:-3], height, width, channels


def pictures_of(tensor: Tensor) -> Iterator[bytes]:
    """Its pictures, each as a PNG file. Raises as shape_of_picture() does."""
    lead, height, width, channels = shape_of_picture(tensor)
    data = memoryview(tensor.buffer())
    size = height * width * channels
    for place in range(math.prod(lead)):
        yield png(data[place * size : (place + 1) * size], width=width, height=height, channels=channels)


def png(pixels: bytes | memoryview, *, width: int, height: int, channels: int) -> bytes:
    """A PNG file of rows of 8-bit *pixels*, stored and not compressed: it is read again soon, and nearby."""
    stride = width * channels
    rows = bytearray((stride + 1) * height)
    for row in range(height):
        start = row * (stride + 1) + 1  # the byte before a row names its filter; 0 is none
        rows[start : start + stride] = pixels[row * stride : (row + 1) * stride]
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))))
