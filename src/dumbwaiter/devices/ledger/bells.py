"""Bells: whoever gives memory of a device back wakes those who wait for it in other processes and containers.

A bell is a FIFO beside the ledger, one for each seat. It is a courtesy: a ring that is lost, or a folder that takes no
FIFO, costs whoever waits a look at the ledger every POLL_EVERY seconds, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from dumbwaiter.devices.ledger.locks import Descriptor

POLL_EVERY = 0.05
"""Seconds after which whoever waits looks again, rung for or not."""
_log = logging.getLogger(__name__)
_MOST_RINGS = 65536


class Bell:
    """The bell of the seat *place* at the ledger *path*, which this process hears until close()."""

    def __init__(self, path: Path, place: int) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._descriptor: Descriptor | None = None
        where = _path_of(path, place)
        try:
            self._descriptor = Descriptor(_open_fifo(where), path)
        except OSError as error:
            _log.warning("no bell at %s, so looking every %.2f s instead: %s", where, POLL_EVERY, error)

    @property
    def is_deaf(self) -> bool:
        """Whether there is no bell to hear."""
        return self._descriptor is None

    def listen(self, heard: Callable[[], object]) -> None:
        """Call *heard* on the running loop whenever somebody has rung, until close(); rings before this call count.

        Several rings may be heard as one. Only the *heard* of the last call is called.
        """
        if self._descriptor is not None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._descriptor.fileno(), self._tell, self._descriptor.fileno(), heard)

    def close(self) -> None:
        """Hear no more. Twice is no error. The FIFO stays for the seat's next holder."""
        loop, self._loop = self._loop, None
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if loop is not None:
            loop.remove_reader(descriptor.fileno())
        descriptor.close()

    def _tell(self, fd: int, heard: Callable[[], object]) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(fd, _MOST_RINGS)
        heard()


def ring(path: Path, places: Iterable[int]) -> None:
    """Ring for the seats *places* at the ledger *path*. A seat that nobody sits in, or that was rung for often enough,
    is passed over.
    """
    for place in places:
        with contextlib.suppress(OSError):
            bell = os.open(_path_of(path, place), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if stat.S_ISFIFO(os.fstat(bell).st_mode):
                    os.write(bell, b"\0")
            finally:
                os.close(bell)


def _path_of(path: Path, place: int) -> Path:
    return path.with_name(f"{path.name}.bell-{place}")


def _open_fifo(where: Path) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(where, 0o600)
    # Also for writing: a FIFO without a writer would be readable for ever, and say nothing.
    fd = os.open(where, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("another file has its name")
    return fd
