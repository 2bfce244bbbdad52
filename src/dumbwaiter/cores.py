"""How many cores this process may keep busy."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Of a container: the microseconds of a core that it may use, and in how many; "max" where there is no limit.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
"""


def cores() -> int:
    """Those that the machine has and lets this process use, at most as many as its container pays for; never 0."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError, ZeroDivisionError):  # no container, or none with a limit
        quota, period = map(int, _QUOTA.read_text().split())
        return max(1, min(there, math.ceil(quota / period)))
    return there
