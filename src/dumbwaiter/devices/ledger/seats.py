"""Seats: a process's place at a ledger, which the kernel frees when the last process that holds it is dead."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from dumbwaiter.devices.ledger.bells import Bell
from dumbwaiter.devices.ledger.locks import Descriptor


class Seat:
    """The seat *place*, held by this process until close() and by those that inherit fileno()."""

    def __init__(self, path: Path, place: int, descriptor: Descriptor) -> None:
        self.place = place
        self._descriptor = descriptor
        self._bell = Bell(path, place)

    def fileno(self) -> int:
        """The descriptor to hand to a child that shall hold the seat, too (``pass_fds``), and calls adopt() on it.

        Raises LedgerGoneError when the seat was given up.
        """
        return self._descriptor.fileno()

    @property
    def is_deaf(self) -> bool:
        """Whether it cannot be rung for: look at the ledger every bells.POLL_EVERY seconds instead."""
        return self._bell.is_deaf

    def listen(self, heard: Callable[[], object]) -> None:
        """Call *heard* on the running loop whenever somebody has rung for this seat; see Bell.listen()."""
        self._bell.listen(heard)

    def close(self) -> None:
        """Hold the seat no more. Closing twice is no error."""
        self._bell.close()
        self._descriptor.close()


def adopt(fd: int) -> Descriptor:
    """Hold the seat whose descriptor *fd* was inherited, until this process ends or close() is called.

    Its own children do not inherit it, neither those it forks nor those it starts. Raises OSError when there is no such
    descriptor.
    """
    os.set_inheritable(fd, False)
    return Descriptor(fd, Path(f"/proc/self/fd/{fd}").readlink())
