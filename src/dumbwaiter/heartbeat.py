"""Signs of life in a file: what a process that listens nowhere says of itself, for whoever looks after it.

The file holds a moment of this machine's own clock, which nobody sets, and a state. Containers of a pod share that
clock.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from dumbwaiter.errors import DumbwaiterError

BEAT_EVERY = 5.0
STALE_AFTER = 60.0
"""A process that has said nothing for so many seconds hangs: twelve signs were left out."""


class SilentError(DumbwaiterError):
    """There is no sign of life, or it is old."""


class Sign(msgspec.Struct, frozen=True):
    """A state, and when it was told: seconds since this machine started."""

    state: str
    at: float


class Look(NamedTuple):
    """What was last said, and how many seconds ago."""

    state: str
    age: float


def beat(file: Path, state: str) -> None:
    """Write a sign of life. Whoever reads at that moment sees the one before. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_bytes(msgspec.json.encode(Sign(state, _now())))
    fresh.replace(file)


def look(file: Path) -> Look:
    """The last sign of life. Raises SilentError, saying why, where there is none that is fresh."""
    try:
        sign = msgspec.json.decode(file.read_bytes(), type=Sign)
    except FileNotFoundError:
        raise SilentError(f"no sign of life in {file} yet") from None
    except (OSError, msgspec.DecodeError) as error:
        raise SilentError(f"no sign of life can be read from {file}: {error}") from None
    age = _now() - sign.at
    if not 0 <= age <= STALE_AFTER:
        raise SilentError(f"the last sign of life in {file} is {age:.0f} s old, more than {STALE_AFTER:.0f} s")
    return Look(sign.state, age)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
