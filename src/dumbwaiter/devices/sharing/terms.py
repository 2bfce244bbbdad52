"""On what terms a worker shares its device with others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's terms.

    *device* is an address (devices/opening.py), ``none`` to share nothing; ``auto`` shares the first GPU, and without a
    GPU nothing. *ledgers* is the folder, common to all workers of the machine or pod, in which a device's ledger lies;
    *footprints* the one in which measured footprints are kept. *weight* is the model's share of the device against that
    of others; *footprint*, in bytes, what its users say that it takes in all, None to measure it; after *park_after*
    idle seconds its weights leave the device. The rest says which model it is.
    """

    model: str
    device: str
    ledgers: Path
    footprints: Path
    weight: float = 1.0
    footprint: int | None = None
    park_after: float = 300.0
    target: str = ""
    weights: str | None = None
    project: str = "."
    parameters: dict[str, Any] = {}
