"""Being told to stop: by whoever runs this, or by signal (SIGTERM or SIGINT; the second one hurries)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

_STOPPING = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def told_to_stop(
    stop: asyncio.Event | None = None, hurry: asyncio.Event | None = None
) -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """The events (stop, hurry) to heed: those given or, without *stop*, two that signals to this process set."""
    if stop is not None:
        yield stop, hurry or asyncio.Event()
        return
    by_signal, again = asyncio.Event(), asyncio.Event()

    def heard() -> None:
        if by_signal.is_set():
            again.set()
        by_signal.set()

    loop = asyncio.get_running_loop()
    for number in _STOPPING:
        loop.add_signal_handler(number, heard)
    try:
        yield by_signal, again
    finally:
        for number in _STOPPING:
            loop.remove_signal_handler(number)
