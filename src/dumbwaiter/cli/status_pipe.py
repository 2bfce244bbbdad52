"""How a child of ``dumbwaiter serve`` tells its parent how it is, and how it learns that the parent has died.

One JSON object a line over an inherited pipe: {"state": "ready", "reason": "", ...}.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

import msgspec

_PR_SET_PDEATHSIG = 1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a child is. *address* is a ready gateway's URL; *signature* what a ready model takes and gives; *worker* the
    name by which a worker announces itself.
    """

    state: str
    reason: str = ""
    address: str = ""
    signature: dict[str, Any] = {}
    worker: str = ""


class StatusPipe:
    """The child's end. Without a file descriptor (nobody supervises) it swallows what it is told."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        if fd is not None:
            os.set_inheritable(fd, False)
            # The order matters: should the parent be dead already, the first report fails and ends this process.
            _die_with_parent()
            self.tell(Report(state="starting"))

    def tell(self, report: Report) -> None:
        """Pass *report* on. A parent that has gone away ends this process as a SIGTERM would."""
        if self._fd is None:
            return
        try:
            os.write(self._fd, msgspec.json.encode(report) + b"\n")
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent dies. It follows the parent's thread that started this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
