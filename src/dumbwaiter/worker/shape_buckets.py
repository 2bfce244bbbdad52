"""Which inputs are alike in what a model takes for them: those whose largest has about as many bytes, once decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dumbwaiter.models.arguments import Arguments

ANY = "any"


def bucket_of(inputs: Sequence[Any]) -> str:
    """The bucket of a batch: the bytes of its largest input, rounded up to a power of two, as ``2^21``.

    ``any`` where that is told by none of them: for objects, whose size says little of what is computed.
    """
    largest = max((nbytes for one in inputs if (nbytes := _nbytes(one)) is not None), default=None)
    return ANY if largest is None else f"2^{max(largest - 1, 0).bit_length()}"


def _nbytes(value: Any) -> int | None:
    """Bytes of a decoded input, of a text its characters; of several arguments all those that tell theirs."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    if isinstance(value, Arguments):
        told = [_nbytes(one) for one in (*value.by_position, *value.by_name.values())]
        return sum(one for one in told if one is not None) if any(one is not None for one in told) else None
    # Arrays, tensors and pictures are known by what they have: their libraries may not be there.
    bands: Any = getattr(value, "getbands", None)
    if bands is not None:
        width, height = value.size
        return int(width) * int(height) * len(bands())
    nbytes = getattr(value, "nbytes", None)
    return nbytes if isinstance(nbytes, int) else None
