"""Durations and sizes as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

WORDS = {"duration": "a duration such as 500ms, 30s, 2m, 1h or 7d", "size": "a size such as 512, 100kB or 32MiB"}

_DURATIONS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_duration(text: str) -> float:
    """Seconds of ``"1.5"``, ``"500ms"``, ``"30s"``, ``"2m"``, ``"1h"``. Raises ValueError."""
    return _quantity(text, _DURATIONS, WORDS["duration"])


def parse_size(text: str) -> int:
    """Bytes of ``"512"``, ``"100kB"``, ``"32MiB"``. Raises ValueError."""
    nbytes = _quantity(text, _SIZES, WORDS["size"])
    if nbytes == math.inf:
        raise ValueError(f"expected {WORDS['size']}, not {text!r}")
    return round(nbytes)


def in_units(number: float, unit: str | None = None) -> str:
    """An upper end as people write it: ``365d``, ``1024TiB``, ``10000``."""
    size, name = {"duration": (_DURATIONS["d"], "d"), "size": (_SIZES["tib"], "TiB")}.get(unit or "", (1, ""))
    return f"{number / size:.15g}{name}"


def _quantity(text: str, units: Mapping[str, float], wanted: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"expected {wanted}, not {text!r}")
    return float(match[1]) * units[match[2].lower()]
