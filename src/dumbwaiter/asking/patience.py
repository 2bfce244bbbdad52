"""How long a caller waits, as one moment: made at the door, and passed down."""

from __future__ import annotations

import time
from typing import Self


class Patience(float):
    """The seconds that a caller waits, counted from where this was made. A Patience of a Patience is the same one.

    It is a number of seconds like any other, so it may be given wherever a timeout is asked for, and whoever shows it
    shows what the caller said. But *left* shrinks: no layer below begins to count anew.
    """

    __slots__ = ("ends_at",)

    ends_at: float
    """When it ends, on the monotonic clock."""

    def __new__(cls, seconds: float) -> Self:
        if isinstance(seconds, cls):
            return seconds
        made = super().__new__(cls, seconds)
        made.ends_at = time.monotonic() + seconds
        return made

    @property
    def left(self) -> float:
        """Seconds until it ends; 0.0 afterwards."""
        return max(0.0, self.ends_at - time.monotonic())
