"""How far a download is: a bar where a person looks at stderr, a line now and then where a file does.

To stderr and not to the log: the runner, which loads models, has none. What a model prints goes the same way.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

BAR_EVERY = 0.1
LINE_EVERY = 10.0
_WIDTH = 30


def bar(done: int, size: int, rate: float) -> str:
    """*done* of *size* bytes, coming at *rate* bytes a second, as a bar with figures in megabytes (of 10⁶ bytes)."""
    share = min(done / size, 1.0) if size else 1.0
    filled = int(share * _WIDTH)
    return f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {figures(done, size)} MB, {rate / 1e6:,.1f} MB/s"


def figures(done: int, size: int) -> str:
    """*done* of *size* bytes, in megabytes."""
    return f"{done / 1e6:,.1f} of {size / 1e6:,.1f}"


class Progress:
    """The progress of fetching *uri*, which has *size* bytes. A context manager while it moves."""

    def __init__(self, uri: str, size: int = 0) -> None:
        self._uri = uri
        self._size = size
        self._before = 0
        self._draws = sys.stderr is not None and sys.stderr.isatty()
        self._began = self._shown = time.monotonic()

    def after(self, nbytes: int) -> Progress:
        """So many bytes were there before: they count for where it is, not for how fast."""
        self._before = nbytes
        return self

    def __enter__(self) -> Progress:
        self._began = self._shown = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._draws:
            sys.stderr.write("\n")
            sys.stderr.flush()

    def say(self, words: str) -> None:
        """One line, whoever looks."""
        if sys.stderr is not None:
            sys.stderr.write(f"weights {self._uri}: {words}\n")
            sys.stderr.flush()

    def show(self, done: int) -> None:
        """*done* bytes are there. It may be called as often as one likes."""
        now = time.monotonic()
        if now - self._shown < (BAR_EVERY if self._draws else LINE_EVERY) and done < self._size:
            return
        self._shown = now
        if self._draws:
            sys.stderr.write(f"\rweights {self._uri} {bar(done, self._size, self._rate(done, now))} ")
            sys.stderr.flush()
        else:
            self.say(f"{figures(done, self._size)} MB are here")

    def _rate(self, done: int, now: float) -> float:
        return (done - self._before) / max(now - self._began, BAR_EVERY)
