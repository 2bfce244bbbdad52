"""What the kernel calls the run of the machine that goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIME_NAMESPACE = Path("/proc/self/ns/time")


def boot_id() -> str:
    """Another one after each start of the machine. Times of CLOCK_MONOTONIC compare only within one, and only within
    one is what was written sure to be there still. Raises OSError where the kernel tells none.
    """
    return _BOOT_ID.read_text(encoding="ascii").strip()


def this_boot() -> str:
    """Names the run of the machine, and the clock of boots that this process sees: ``BOOT/CLOCK``. Raises OSError."""
    clock = ""
    with contextlib.suppress(OSError):  # a kernel without time namespaces
        clock = str(_TIME_NAMESPACE.stat().st_ino)
    return f"{boot_id()}/{clock}"
