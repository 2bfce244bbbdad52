"""The end of a command that was told to stop by signal."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def deaf_afterwards(*numbers: signal.Signals) -> Iterator[None]:
    """After its block this process, which ends then, does not hear the signals *numbers* any more.

    Whoever asks it to stop once more just as it has stopped would otherwise kill it, and the exit code would say so.
    For commands alone: a program that goes on wants its signals back.
    """
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
