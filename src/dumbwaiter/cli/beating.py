"""Signs of life of a worker or courier, for `dumbwaiter probe`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from dumbwaiter.cli.status_pipe import Report
from dumbwaiter.heartbeat import BEAT_EVERY, beat
from dumbwaiter.tasks import end

_log = logging.getLogger(__name__)
Note = Callable[[str], None]


@contextlib.asynccontextmanager
async def beating(file: str | None) -> AsyncIterator[Note]:
    """Within its block *file* is written every few seconds, by this event loop; none where there is no *file*.

    What is yielded is told each new state.
    """
    if file is None:
        yield lambda _: None
        return
    heart = _Heart(Path(file))
    task = asyncio.create_task(heart.run())
    try:
        yield heart.note
    finally:
        await end([task])
        heart.stop()


def noting(note: Note, tell: Callable[[Report], None]) -> Callable[[Report], None]:
    """*tell*, of which *note* hears each state too."""

    def both(report: Report) -> None:
        note(report.state)
        tell(report)

    return both


class _Heart:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._state = "starting"
        self._told = asyncio.Event()

    def note(self, state: str) -> None:
        self._state = state
        self._told.set()

    def stop(self) -> None:
        """Who reads after this finds no sign, rather than an old one."""
        # Where none could be given it has been said.
        with contextlib.suppress(OSError):
            self._file.unlink()

    async def run(self) -> None:
        is_known = False
        while True:
            self._told.clear()
            try:
                beat(self._file, self._state)
            except OSError as error:
                if not is_known:
                    _log.warning("no sign of life can be given: %s: %s", self._file, error.strerror)
                is_known = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_EVERY):
                    await self._told.wait()
