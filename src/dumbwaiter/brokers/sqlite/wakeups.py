"""Waking other processes: one Unix datagram socket for each broker object.

A datagram carries no data, only "look again": ``q<queue number>`` for a queue, ``i`` for the inboxes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from dumbwaiter.brokers.sqlite.turnstile import state_of

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Tells a socket's owner nothing; only asks whether there is one.
PROBE = b""

_DEAD_STATES = (None, "Z", "X")


class WakeSocket:
    """A broker's own socket, bound to a fresh name in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / f"{os.getpid()}-{secrets.token_hex(8)}")
        self._socket = _bound(self.path)

    def fileno(self) -> int:
        """For the event loop to watch."""
        return self._socket.fileno()

    def is_lost(self) -> bool:
        """Whether its name is gone: something that tidies temporary folders may have taken it."""
        return not os.path.lexists(self.path)

    def bind_again(self) -> None:
        """Listen under the same name, with another descriptor: whoever knows the name need not learn a new one."""
        again = _bound(self.path)
        self._socket.close()
        self._socket = again

    def drain(self) -> set[bytes]:
        """What was received since the last time."""
        received = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                received.add(self._socket.recv(64))
        return received

    def close(self) -> None:
        """Stop listening and remove the name."""
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            Path(self.path).unlink()


def _bound(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    return sock


def is_owner_alive(path: str) -> bool:
    """Whether the process that bound *path* runs, by the number that the name starts with."""
    pid = Path(path).name.partition("-")[0]
    return pid.isascii() and pid.isdigit() and state_of(int(pid)) not in _DEAD_STATES


class Kicker:
    """Sends wake-ups, from the writer thread."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def kick(self, kicks: Iterable[tuple[str, bytes]]) -> set[str]:
        """Send each payload to its path; returns the paths where nobody listens any more."""
        dead = set()
        for path, payload in kicks:
            try:
                self._socket.sendto(payload, path)
            except BlockingIOError:
                continue  # A full queue of wake-ups wakes just as well.
            except FileNotFoundError:
                # A name may have been tidied away while its owner lives: then only this wake-up is lost.
                if not is_owner_alive(path):
                    dead.add(path)
            except ConnectionRefusedError:
                dead.add(path)
                with contextlib.suppress(OSError):
                    if Path(path).is_socket():
                        Path(path).unlink()
            except OSError:
                continue  # Somebody listens whom this user may not wake; the safety poll will.
        return dead

    def close(self) -> None:
        """Close the sending socket."""
        self._socket.close()
