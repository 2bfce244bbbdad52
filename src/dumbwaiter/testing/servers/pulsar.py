"""pulsar-lite, which speaks Apache Pulsar's protocol."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import sys
from pathlib import Path

from dumbwaiter.testing.servers.local import HOST, LocalServer, MissingServerError, free_port, made


def pulsar_program() -> str:
    """The real pulsar-lite, as the package of that name brings it. Raises MissingServerError."""
    package = importlib.util.find_spec("pulsar_lite")
    found = Path(package.origin).parent / "bin" / "pulsar-lite" if package and package.origin else None
    if found is None or not found.exists():
        raise MissingServerError("pulsar-lite", "pip install pulsar-lite")
    return str(found)


_PING = bytes.fromhex("00000009 00000005 0812920100")


class PulsarServer(LocalServer):
    """pulsar-lite behind pulsar_ids, which says why. With *tls*, files of a key and its certificate, for that alone."""

    def __init__(self, folder: Path, *, tls: tuple[Path, Path] | None = None) -> None:
        folder = made(folder)
        port = free_port()
        settings = folder / f"server-{port}.toml"
        # It would show its metrics to the whole network.
        settings.write_text("[metrics]\nenabled = false\n")
        outer = (sys.executable, "-m", "dumbwaiter.testing.servers.pulsar_ids", str(port))
        keys = ("--tls", *map(str, tls)) if tls else ()
        inner = (pulsar_program(), "--config", str(settings), "--db-path", str(folder / f"data-{port}"))
        super().__init__((*outer, *keys, *inner, "--log-level", "warn"), port, folder / f"server-{port}.log")
        self._is_encrypted = tls is not None
        self.url = f"{'pulsar+ssl' if tls else 'pulsar'}://{HOST}:{port}/public/default"

    def _answers(self) -> bool:
        # It says pong to a ping, whoever asks.
        return self._listens() if self._is_encrypted else bool(self._said(_PING))

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1.0):
            return True
        return False
