"""How far ``dumbwaiter plan`` is: a bar on a terminal, a line now and then elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dumbwaiter.plan.running import Tell

FIRST_LINE_AFTER = 10.0
"""Seconds without a word. What ends sooner needs none."""
LINE_EVERY = 15.0


@contextmanager
def progress() -> Iterator[Tell]:
    """What is yielded is told how many runs of how many have ended."""
    if not sys.stderr.isatty():
        yield Lines(time.monotonic, lambda line: print(line, file=sys.stderr, flush=True)).tell
        return
    from rich.console import Console  # noqa: PLC0415 - only where it is seen
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TextColumn("runs{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, began = bar.add_task("", total=None), time.monotonic()

        def tell(done: int, total: int) -> None:
            left = _left(time.monotonic() - began, done, total)
            bar.update(task, completed=done, total=total, description=f", about {left} left")

        yield tell


class Lines:
    """Has *say* say a line when by *clock*, in seconds, it is time for one."""

    def __init__(self, clock: Callable[[], float], say: Callable[[str], None]) -> None:
        self._clock = clock
        self._say = say
        self._began = clock()
        self._next = self._began + FIRST_LINE_AFTER

    def tell(self, done: int, total: int) -> None:
        """So many runs of *total* have ended."""
        now = self._clock()
        if now >= self._next and done < total:
            self._say(f"{done} of {total} runs, about {_left(now - self._began, done, total)} left")
            self._next = now + LINE_EVERY


def _left(passed: float, done: int, total: int) -> str:
    """How long the rest takes, if it goes on as it has for *passed* seconds."""
    seconds = passed / done * (total - done)
    return f"{max(1.0, seconds):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
