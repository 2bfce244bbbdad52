"""What the packages that plan have to say against their own results."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what *record* says."""
        self.said.append(record.getMessage())


@contextmanager
def warnings_of(logger: str) -> Iterator[list[str]]:
    """The warnings that *logger* and those below it log meanwhile, one by one."""
    collector, log = _Collector(), logging.getLogger(logger)
    log.addHandler(collector)
    try:
        yield collector.said
    finally:
        log.removeHandler(collector)
