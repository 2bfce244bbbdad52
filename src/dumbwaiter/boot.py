"""What the kernel calls the run of the machine that goes on."""

from __future__ import annotations

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Another one after each start of the machine. Times of CLOCK_MONOTONIC compare only within one, and only within
    one is what was written sure to be there still. Raises OSError where the kernel tells none.
    """
    return _BOOT_ID.read_text(encoding="ascii").strip()
