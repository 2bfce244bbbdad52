"""Where the ledgers of devices lie."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dumbwaiter.config.settings import Settings

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of one's own in it, whose owner is checked when it is opened


def ledgers_folder(settings: Settings, *, in_memory: Path = _IN_MEMORY) -> Path:
    """The folder of *settings*, by default one of this user's that all its workers on this machine find: in memory,
    for what lies in it means nothing after the machine's next start, or where there is no such file system the
    temporary folder. It may not be there yet.
    """
    if settings.ledgers is not None:
        return Path(settings.ledgers)
    base = in_memory if os.access(in_memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    return base / f"dumbwaiter-{os.geteuid()}"
