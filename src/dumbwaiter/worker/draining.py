"""Waiting for what the runner has begun, for as long as there is hope that it ends in time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable

from dumbwaiter.policies.leaving import is_worth_waiting
from dumbwaiter.worker.hand import Hand
from dumbwaiter.worker.recorder import FlightRecorder, State

LOOK_EVERY = 0.25
_log = logging.getLogger(__name__)


async def let_run(
    hand: Hand,
    recorder: Callable[[], FlightRecorder | None],
    past: Iterable[tuple[int, float]],
    changed: asyncio.Event,
    *,
    within: float,
) -> None:
    """Return when the runner has nothing of *hand* any more, after *within* seconds, or as soon as what runs there will
    hardly end by then, as batches before it took: (size, seconds) each in *past*.

    *recorder* gives that of the present runner, if there is one; *changed* is set whenever an input leaves it.
    """
    give_up_at = time.monotonic() + within
    while hand.in_runner and (left := give_up_at - time.monotonic()) > 0.0:
        running = _running(recorder(), hand.slots)
        elapsed = time.monotonic() - min(running, default=0.0)
        if running and not is_worth_waiting(past, size=len(running), elapsed=elapsed, within=left):
            _log.info(
                "what runs since %.1f s will hardly end within the %.1f s that are left: handing it back", elapsed, left
            )
            return
        changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(LOOK_EVERY, left)):
                await changed.wait()


def _running(recorder: FlightRecorder | None, slots: list[int]) -> list[float]:
    """Since when each input that is being run is so; those that are only decoded come back at once."""
    if recorder is None:
        return []
    return [since for state, since in map(recorder.read, slots) if state is State.RUNNING]
