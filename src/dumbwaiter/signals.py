"""Signals: to be told to stop by one (SIGTERM or SIGINT; the second one hurries) or to retire, and to die of one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

_STOPPING = (signal.SIGTERM, signal.SIGINT)
RETIRE = signal.SIGUSR1
"""To a worker: take nothing more, finish what runs, however long that takes, and leave. SIGTERM then still stops it."""
#: What a process dies of by its own fault; the names of the others say enough.
_FAULTS = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS)


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
        if by_signal.is_set():
            # It ends anyway. One more SIGTERM from an impatient supervisor must not make a death of a clean exit;
            # Ctrl-C still breaks off what hangs.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextlib.contextmanager
def told_to_retire(retire: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
    """The event to heed: the one given or else one that RETIRE to this process sets. Afterwards it is deaf to that."""
    if retire is not None:
        yield retire
        return
    by_signal = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(RETIRE, by_signal.set)
    try:
        yield by_signal
    finally:
        loop.remove_signal_handler(RETIRE)
        # By default it kills. Who is told to retire while it ends anyway ends well.
        signal.signal(RETIRE, signal.SIG_IGN)


def describe_exit(exit_code: int) -> str:
    """``exited with code 1``, ``was killed by SIGKILL``, ``was killed by SIGSEGV (segmentation fault)``.

    *exit_code* as subprocess gives it: negative for a signal.
    """
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    try:
        number = signal.Signals(-exit_code)
    except ValueError:
        return f"was killed by signal {-exit_code}"
    meaning = (signal.strsignal(number) or "").lower()
    said = f" ({meaning})" if meaning and number in _FAULTS else ""
    return f"was killed by {number.name}{said}"
